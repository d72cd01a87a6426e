"""Labels that are missing, or contradict their files: no error, since the user may mean them, but rarely meant."""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from skdfb.images import Images, shown
from skdfb.images._folders import is_folder
from skdfb.images._images import ItemImages

__all__ = ["warn_of_conflicts", "warn_of_no_class_folders"]


def warn_of_no_class_folders(X: Any) -> None:
    """Warn in ``fit`` without labels if X is the path of a folder, which then has no class folders."""
    if is_folder(X):
        warnings.warn(
            f"X is the folder {os.fsdecode(X)!r}, which has no class folders, and y is None: its images are sorted "
            "into classes by their looks. Put the images of each class into a folder of its own, or pass y; if you "
            "want such classes, pass load_image_folder(X).paths.",
            UserWarning,
            stacklevel=6,
        )


def warn_of_conflicts(images: Images, labels: npt.NDArray[np.generic]) -> None:
    """Warn in ``fit`` if y divides class folders, or if a file is listed under several labels.

    Parameters
    ----------
    images : Images
        The n training images.
    labels : ndarray of shape (n,)
        The label of each.
    """
    # Only those of a folder have labels here.
    folders = images.labels() if isinstance(images, ItemImages) else None
    if folders is not None:
        divided = _with_several(folders, labels)
        if divided:
            folder, own = next(iter(divided.items()))
            warnings.warn(
                f"y gives the images of {len(divided)} of {len(set(folders))} class folders more than one label each, "
                f"such as those of {shown(folder)} the labels {shown(own)}. y is used, and the names of the folders "
                "are not. Check that y has the order of load_image_folder(X).paths, or leave y out; if y is right, "
                "pass these paths as X.",
                UserWarning,
                stacklevel=6,
            )
    files = images.names
    listed = {} if files is None else _with_several([os.path.abspath(file) for file in files], labels)
    if listed:
        file, own = next(iter(listed.items()))
        warnings.warn(
            f"{len(listed)} file(s) are given several times with different labels, such as {file!r} with {shown(own)}: "
            "expected one label per image; leave all but one out.",
            UserWarning,
            stacklevel=6,
        )


def _with_several(keys: Sequence[str], labels: npt.NDArray[np.generic]) -> dict[str, list[object]]:
    """Return the labels of each key that has more than one."""
    found: dict[str, list[object]] = {}
    for key, label in dict.fromkeys(zip(keys, labels.tolist(), strict=True)):
        found.setdefault(key, []).append(label)
    return {key: own for key, own in found.items() if len(own) > 1}
