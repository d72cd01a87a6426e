"""Outputs of the networks for whole image sets, with NaN for images that cannot be read."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from sklearn.utils import gen_batches
from torch import Tensor

from skdfb._transfers import Download
from skdfb.detector._views import NetworkViews, Start, ViewRequest
from skdfb.exceptions import UnreadableImageError, UnreadableImageWarning
from skdfb.images import Images, Indices, LenientImages
from skdfb.images._unreadable import check_readable
from skdfb.networks._inputs import run_over
from skdfb.scorers import Representation
from skdfb.scoring._parts import DENSE
from skdfb.utils import evaluation_mode

__all__ = ["Output", "class_probability_maps", "outputs_of", "read_rows", "together"]

_N_REPORTED = 5  # unreadable images that a warning describes in full
_PROBABILITIES_AT_ONCE = 2**26  # of pixels: 256 MiB

# The results are arrays, or dicts of arrays, with one row per image.
Output = Start[Any]


def outputs_of(
    views: NetworkViews, images: Images, requests: dict[str, ViewRequest], outputs: Sequence[Output]
) -> list[Any]:
    """Return what each of ``outputs`` reads of the requested views of all images, from one pass over them."""
    # Outputs are read batch by batch, so that the views of only one batch exist at a time.
    batches = (found for _, found in views.run(images, requests, together(outputs)))
    joined = [_joined(pieces) for pieces in zip(*batches, strict=True)]
    _mark_unreadable(images, joined)
    return joined


def together(outputs: Sequence[Output]) -> Start[list[Any]]:
    """Return several outputs as one, which gives a list."""

    def start(views: dict[str, Representation], download: Download) -> Callable[[], list[Any]]:
        finish = [output(views, download) for output in outputs]
        return lambda: [finish_one() for finish_one in finish]

    return start


def read_rows(read: Callable[[dict[str, Representation]], Tensor], finish: Callable[[Tensor], Any]) -> Output:
    """Return an output: ``read`` takes a tensor from the views, ``finish`` gets its copy on the CPU."""

    def start(views: dict[str, Representation], download: Download) -> Callable[[], Any]:
        rows = download.add(read(views))
        return lambda: finish(rows())

    return start


def class_probability_maps(views: NetworkViews, images: Images) -> npt.NDArray[np.float32]:
    """Return the probabilities of classes and background for every pixel, shape (n, H, W, K + 1).

    H, W are the images' own size, or the network's input size if the images differ in size.
    """
    network = views.networks[DENSE]
    size = images.size or (network.preprocessor.image_size,) * 2

    maps = np.empty((len(images), *size, views.n_classes + 1), dtype=np.float32)

    def fill(indices: Indices, inputs: Tensor) -> None:
        logit_map = network.logit_map(inputs)  # (b, K + 1, h, w)
        # Few images at once: of a large photograph, or of many classes, the probabilities take gigabytes.
        for rows in gen_batches(len(indices), max(1, _PROBABILITIES_AT_ONCE // maps[0].size)):
            probabilities = F.interpolate(logit_map[rows], size, mode="bilinear").softmax(1)
            maps[indices[rows]] = probabilities.permute(0, 2, 3, 1).float().cpu().numpy()

    with evaluation_mode(network):
        for _ in run_over(network, images, views.batch_size, views.n_jobs, fill):
            pass
    _mark_unreadable(images, [maps])
    return maps


def _joined(pieces: Sequence[Any]) -> Any:
    """Join the outputs of batches: arrays, or dicts of arrays."""
    if isinstance(pieces[0], dict):
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    return np.concatenate(pieces)


def _mark_unreadable(images: Images, outputs: Sequence[Any]) -> None:
    """Set the rows of images that could not be read to NaN, and warn."""
    # Readers note the errors while the batches are computed, so this comes after the last batch.
    if not isinstance(images, LenientImages) or not images.errors:
        return
    # A mistake in the call, such as a wrong folder, would make each image OOD. A single image may be damaged.
    if len(images.errors) == len(images) > 1:
        check_readable([images.errors[place] for place in sorted(images.errors)], len(images))
    _warn_of_unreadable(images.errors, len(images))
    # Until here these rows hold the outputs for one black pixel.
    rows = list(images.errors)
    for output in outputs:
        for array in output.values() if isinstance(output, dict) else [output]:
            array[rows] = np.nan


def _warn_of_unreadable(errors: dict[int, UnreadableImageError], n_images: int) -> None:
    reported = " ".join(str(errors[index]) for index in sorted(errors)[:_N_REPORTED])
    more = f" And {len(errors) - _N_REPORTED} more." if len(errors) > _N_REPORTED else ""
    warnings.warn(
        f"{len(errors)} of {n_images} images could not be read; their scores are NaN. {reported}{more}",
        UnreadableImageWarning,
        stacklevel=6,
    )
