"""Masks of the training images, from whatever makes them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from skdfb.images import Images
from skdfb.masks._inner import check_masks, hand_over
from skdfb.networks import DenseClassifier

__all__ = ["make_masks"]


def make_masks(
    generator: Any,
    classifier: DenseClassifier,
    images: Images,
    labels: npt.NDArray[np.intp],
    *,
    random_state: int,
    n_jobs: int | None,
) -> npt.NDArray[np.integer]:
    """Run a clone of a mask generator on the trained classifier; masks come at the network's input size.

    The classifier is handed over as ``backbone``, the other settings where the user left them open (None or "auto"),
    to generators inside the generator as well.
    """
    settings = {
        "backbone": classifier,
        "mask_size": classifier.preprocessor.image_size,
        "device": classifier.device,
        "random_state": random_state,
        "n_jobs": n_jobs,
    }
    masks = hand_over(generator, settings).fit_transform(images, labels)
    return check_masks(masks, len(images), classifier.num_classes, "mask_generator")
