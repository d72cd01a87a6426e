"""Images as a network wants them."""

from collections.abc import Iterator

from torch import Tensor

from skdfb.networks._dense_classifier import DenseClassifier
from skdfb.utils import Images, Indices, iterate_batches, sequential_batches

__all__ = ["network_inputs"]


def network_inputs(
    network: DenseClassifier, images: Images, batch_size: int, n_jobs: int | None
) -> Iterator[tuple[Indices, Tensor]]:
    """Yield all images in order: indices, and inputs (b, 3, S, S) of the network's size, device and dtype."""
    return iterate_batches(
        images,
        sequential_batches(len(images), batch_size),
        network.preprocessor,
        device=network.device,
        dtype=network.dtype,
        n_jobs=n_jobs,
    )
