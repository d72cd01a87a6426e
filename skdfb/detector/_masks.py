"""Masks of the training images, from whatever makes them."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from skdfb.networks import DenseClassifier
from skdfb.utils import Images

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

    The classifier is handed over as ``backbone``, the other settings where the user left them open (None or "auto").
    """
    generator = clone(generator, safe=False)
    handed_over = {
        "backbone": classifier,
        "mask_size": classifier.preprocessor.image_size,
        "device": classifier.device,
        "random_state": random_state,
        "n_jobs": n_jobs,
    }
    known = generator.get_params(deep=False) if hasattr(generator, "get_params") else {}
    open_to_us = {name for name, value in known.items() if value is None or value == "auto"} | {"backbone"}
    changes = {name: value for name, value in handed_over.items() if name in known and name in open_to_us}
    if changes:
        generator.set_params(**changes)
    return _check_masks(generator.fit_transform(images, labels), len(images), classifier.num_classes)


def _check_masks(masks: Any, n_images: int, n_classes: int) -> npt.NDArray[np.integer]:
    """Refuse masks that are not integers 0..K of shape (n, H, W): the generator may be anybody's."""
    array: npt.NDArray[np.integer] = np.asarray(masks)
    found = f"dtype {array.dtype} and shape {array.shape}"
    if array.ndim == 3 and len(array) == n_images and array.size and array.dtype.kind in "ui":
        low, high = int(array.min()), int(array.max())
        if low >= 0 and high <= n_classes:
            return array
        found = f"values in {low}..{high}"
    raise ValueError(
        f"mask_generator.fit_transform returned masks with {found}; integers of shape ({n_images}, H, W) are wanted, "
        f"0..{n_classes - 1} for the classes and {n_classes} for the background."
    )
