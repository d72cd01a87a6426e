"""Masks of the training images, from any mask generator."""

from typing import Any

import numpy as np
import numpy.typing as npt

from skdfb.images import Images
from skdfb.masks._base import BaseMaskGenerator
from skdfb.masks._inner import check_masks, hand_over
from skdfb.networks import DenseClassifier
from skdfb.utils import PackedMasks

__all__ = ["make_masks"]


def make_masks(
    generator: Any,
    classifier: DenseClassifier,
    images: Images,
    labels: npt.NDArray[np.intp],
    *,
    random_state: int,
    n_jobs: int | None,
) -> PackedMasks:
    """Return the masks that a clone of a mask generator makes with the trained classifier, at the network's input size.

    The classifier is passed as ``backbone``. Other settings that the user left open (None or "auto") are filled in as
    well, also in generators inside the generator.
    """
    settings = {
        "backbone": classifier,
        "mask_size": classifier.preprocessor.image_size,
        "device": classifier.device,
        "random_state": random_state,
        "n_jobs": n_jobs,
    }
    prepared, n_classes = hand_over(generator, settings), classifier.num_classes
    # One batch at a time, because the masks of all images may not fit into memory. A subclass with a fit_transform of
    # its own must be run by it.
    if getattr(type(prepared), "fit_transform", None) is BaseMaskGenerator.fit_transform:
        batches = prepared.fit(images, labels).iter_masks(images, labels)
        return PackedMasks.from_batches(batches, labels, n_classes)
    masks = check_masks(prepared.fit_transform(images, labels), len(images), n_classes, "mask_generator")
    return PackedMasks.pack(masks, labels, n_classes)
