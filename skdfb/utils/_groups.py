"""Checks of groups: images of one group, such as the frames of one video, belong together."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["check_groups", "group_labels"]


def check_groups(groups: Any, n_images: int, name: str = "groups", images: str = "images") -> npt.NDArray[np.intp]:
    """Check the groups of images and encode them.

    Parameters
    ----------
    groups : array-like of shape (n,)
        The group of each image: strings, numbers or any other hashable labels.
    n_images : int
        Number of images n.
    name : str, default="groups"
        The name of the argument in error messages.
    images : str, default="images"
        What the groups are of, in error messages.

    Returns
    -------
    codes : ndarray of int of shape (n,)
        0..G-1, in the order in which the groups first occur.

    Raises
    ------
    TypeError, ValueError
        If there is not one label per image, or a label is missing or not hashable.
    """
    expected = "expected a 1-d array-like with one label per image"
    if isinstance(groups, str | bytes) or not hasattr(groups, "__len__"):
        raise TypeError(f"{name}={groups!r}: {expected}.")
    if getattr(groups, "ndim", 1) != 1:
        raise ValueError(f"{name} has shape {groups.shape}: {expected}.")
    labels = group_labels(groups)
    if len(labels) != n_images:
        raise ValueError(f"{name} has {len(labels)} labels for {n_images} {images}: {expected}.")
    n_missing = sum(map(_is_missing, labels))
    if n_missing:
        raise ValueError(
            f"{name} has no label for {n_missing} of {n_images} {images}: {expected}; give each image that belongs to "
            "no group a label of its own."
        )
    codes: dict[Any, int] = {}
    try:
        return np.array([codes.setdefault(label, len(codes)) for label in labels], dtype=np.intp)
    except TypeError as error:
        raise TypeError(f"{name} has a label that cannot be compared ({error}): {expected}.") from None


def group_labels(groups: Any) -> list[Any]:
    """Return the label of each image; those of an array or a tensor as Python's own types, which can be compared."""
    return list(groups.tolist() if hasattr(groups, "tolist") else groups)


def _is_missing(label: Any) -> bool:
    """Return whether a label is None, NaN, or a missing value of pandas."""
    try:
        return label is None or bool(label != label)
    except (TypeError, ValueError):
        # The truth of pandas.NA is an error; that of a list of arrays, too, which is reported as not hashable.
        return type(label).__name__ == "NAType"
