"""A network run over images: read, brought to its size, device and dtype, and shown to it."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from torch import Tensor

from skdfb.images import BatchSize, Images, Indices, read_batches
from skdfb.networks._dense_classifier import DenseClassifier

__all__ = ["run_over"]

Result = TypeVar("Result")


def run_over(
    network: DenseClassifier,
    images: Images,
    batch_size: BatchSize,
    n_jobs: int | None,
    process: Callable[[Indices, Tensor], Result],
) -> Iterator[Result]:
    """Yield ``process(indices, inputs)`` of all images in order, inputs (b, 3, S, S) as the network wants them.

    All that takes the device's memory belongs into ``process``, and what it returns should take little: where a batch
    does not fit, it is tried again in smaller ones.
    """
    preprocessor, device, dtype = network.preprocessor, network.device, network.dtype
    for indices, pixels in read_batches(images, batch_size.batches(len(images)), preprocessor, n_jobs=n_jobs):

        def show(rows: slice, indices: Indices = indices, pixels: Tensor = pixels) -> Result:
            inputs = preprocessor(pixels[rows].to(device, non_blocking=True)).to(dtype)
            return process(indices[rows], inputs)

        yield from batch_size.pieces(len(indices), show)
    batch_size.warn_if_halved()
