"""Masks of the training images, from any mask generator."""

from typing import Any

import numpy as np
import numpy.typing as npt

from skdfb.images import Images
from skdfb.masks._inner import fit_pack, hand_over
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
    # A mask at the network's input size needs no resizing in the training.
    settings = {
        "backbone": classifier,
        "mask_size": classifier.preprocessor.image_size,
        "device": classifier.device,
        "random_state": random_state,
        "n_jobs": n_jobs,
    }
    return fit_pack(hand_over(generator, settings), images, labels, classifier.num_classes, "mask_generator")
