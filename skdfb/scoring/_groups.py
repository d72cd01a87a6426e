"""Which groups of images to hold out: each class has its share of them, as far as groups allow."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state

from skdfb.calibration import stratified_holdout

__all__ = ["choose_groups"]

_N_DRAWS = 100


def choose_groups(
    y: npt.NDArray[Any], groups: npt.NDArray[np.intp], fraction: float, random_state: Any
) -> npt.NDArray[np.intp]:
    """Return the groups to hold out, stratified by class.

    A group of several classes counts as one of its rarest class, the one that occurs in the fewest groups.

    Parameters
    ----------
    y : ndarray of shape (n,)
        Class labels.
    groups : ndarray of int of shape (n,)
        The group of each image, 0..G-1.
    fraction : float
        Share of the groups to hold out, in (0, 0.5].
    random_state : int, RandomState or None
        Fixes the choice.

    Returns
    -------
    held_out : ndarray of int
        Some of 0..G-1, in ascending order.

    Raises
    ------
    ValueError
        If less than one group would be held out, or a class would have no image for training.
    """
    n_groups = int(groups.max()) + 1
    if fraction * n_groups < 1:
        raise ValueError(
            f"calibration_fraction={fraction!r} of {n_groups} groups is less than one held-out group: use a "
            f"calibration_fraction of at least {math.ceil(1000 / n_groups) / 1000} or give more groups, or an "
            "X_calibration."
        )
    classes, labels = np.unique(y, return_inverse=True)
    # Each group with each of its classes, once.
    owner, member = np.unique(np.stack([groups, labels]), axis=1)
    n_owners = np.bincount(member)
    if n_owners.min() < 2:
        raise ValueError(
            f"y: class {classes.tolist()[n_owners.argmin()]!r} has images of one group only: expected at least 2 "
            "groups, to hold one out and keep one for training; give more groups of it, leave it out, or pass an "
            "X_calibration."
        )
    # Sorted by group, and in each by how rare the class is: the first class of each group is its rarest.
    order = np.lexsort((n_owners[member], owner))
    rarest = member[order][np.unique(owner[order], return_index=True)[1]]
    rng = check_random_state(random_state)
    for _ in range(_N_DRAWS):
        _, held_out = stratified_holdout(rarest, fraction, rng, min_per_class=1)
        # Only groups of several classes can take a class away from the training.
        if len(np.unique(labels[~np.isin(groups, held_out)])) == len(classes):
            return held_out
    raise ValueError(
        f"groups share the {len(classes)} classes so that in {_N_DRAWS} draws some class had no image left for "
        f"training beside {len(held_out)} held-out groups: lower calibration_fraction, or pass an X_calibration."
    )
