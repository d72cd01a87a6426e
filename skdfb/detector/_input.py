"""What ``fit`` checks of the objects and images it is given, beyond their form."""

from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed

from skdfb.utils import Images, Indices, sequential_batches

__all__ = ["check_masks", "check_nested_parameters", "check_readable"]


def check_nested_parameters(component: Any, name: str) -> None:
    """Refuse parameters of a scikit-learn estimator that its own ``fit`` would refuse, after the training."""
    if hasattr(component, "_parameter_constraints"):
        try:
            component._validate_params()
        except ValueError as error:
            raise type(error)(f"{name}: {error}") from None


def check_readable(images: Images, batch_size: int, n_jobs: int | None) -> None:
    """Read each image once, so that a cut file is found before the training; arrays have been checked already."""
    if images.size is not None:
        return

    def read(indices: Indices) -> None:
        images.read(indices)

    batches = sequential_batches(len(images), batch_size)
    Parallel(n_jobs=n_jobs, prefer="threads")(delayed(read)(indices) for indices in batches)


def check_masks(masks: Any, n_images: int, n_classes: int) -> npt.NDArray[np.integer]:
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
