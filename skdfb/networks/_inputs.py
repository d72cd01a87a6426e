"""Batches of images as inputs of a network."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from torch import Tensor

from skdfb._progress import progress_bar
from skdfb._transfers import upload
from skdfb.images import BatchSize, Images, Indices, read_batches
from skdfb.networks._dense_classifier import DenseClassifier
from skdfb.networks._folding import folded_norms

__all__ = ["run_over"]

Result = TypeVar("Result")

_FEW = 3  # batches that need no progress bar


def run_over(
    network: DenseClassifier,
    images: Images,
    batch_size: BatchSize,
    n_jobs: int | None,
    process: Callable[[Indices, Tensor], Result],
) -> Iterator[Result]:
    """Yield ``process(indices, inputs)`` for all images in order.

    The inputs (b, 3, S, S) have the network's size, device, dtype and normalisation. ``process`` should do everything
    that needs the device's memory, and return little: if a batch does not fit, it is tried again in smaller parts.
    """
    preprocessor, device, dtype = network.preprocessor, network.device, network.dtype
    with progress_bar(len(images), is_long=len(images) > _FEW * batch_size.size) as bar:
        folded = folded_norms(network, len(images))
        batches = batch_size.batches(len(images), first=None if folded is None else 1)
        for indices, pixels in read_batches(images, batches, preprocessor, n_jobs=n_jobs, device=device):
            # The defaults bind the arrays of this batch.
            def process_rows(rows: slice, indices: Indices = indices, pixels: Tensor = pixels) -> Result:
                inputs = preprocessor(upload(pixels[rows], device)).to(dtype)
                compute = partial(process, indices[rows], inputs)
                return compute() if folded is None else folded.run(compute)

            yield from batch_size.pieces(len(indices), process_rows)
            bar.update(len(indices))
    batch_size.warn_if_halved()
