"""Which images set the threshold: held out from those of ``fit``, or the caller's own; image by image, or by group."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state

from skdfb.exceptions import DuplicateImagesWarning
from skdfb.images import (
    Images,
    JoinedImages,
    check_images,
    check_labels,
    label_array,
    label_places,
    labels_given,
    near_duplicates,
    shown,
    survey,
)
from skdfb.scoring import HeldOutSplit, JointScore, hold_out
from skdfb.scoring._hold_out import in_random_order
from skdfb.scoring._parts import BACKGROUND
from skdfb.utils import check_groups, group_labels

__all__ = [
    "Calibration",
    "check_calibration",
    "check_refit",
    "checked_calibration",
    "images_of_fit",
    "joined",
    "known_labels",
    "warn_of_duplicates",
]

Indices = npt.NDArray[np.intp]

_UNKNOWN = -1  # index of the class of an image without a label
# A few nearly equal images are in most image sets.
_FEW_DUPLICATES, _DUPLICATES = 2, 0.05


@dataclass(frozen=True)
class Calibration:
    """What ``fit`` was told of the images that set the threshold.

    Parameters
    ----------
    n_own : int or None
        Number of images of ``X_calibration``; None if images of X are held out.
    y : array-like of shape (n_own,) or None
        Labels of ``X_calibration``.
    groups : ndarray of int or None
        The group of each image of ``X_calibration``, or else of X.
    """

    n_own: int | None
    y: Any
    groups: Indices | None

    def class_indices(self, classes: npt.NDArray[Any]) -> Indices:
        """Return the class index of each own image, -1 where there is no label.

        Raises
        ------
        ValueError
            If a label is not one of the classes.
        """
        n_own = self.n_own or 0
        if self.y is None:
            return np.full(n_own, _UNKNOWN)
        labels = label_array(self.y, "y_calibration")
        if len(labels) != n_own:
            raise ValueError(
                f"X_calibration has {n_own} images and y_calibration has {len(labels)} labels: expected one each."
            )
        places = label_places(labels, classes)
        others = list(dict.fromkeys(labels[places < 0].tolist()))
        if others:
            raise ValueError(
                f"y_calibration holds {shown(others)}, which are not classes of y: expected some of "
                f"{shown(classes.tolist())}; leave images of other classes out, since they are not in-distribution."
            )
        return places

    def split(
        self, stratified_by: npt.NDArray[Any], fraction: float | str, joint_score: JointScore, *seeds: int
    ) -> HeldOutSplit:
        """Return which images train and which set the threshold; own ones are counted after those of X.

        Parameters
        ----------
        stratified_by : ndarray of shape (n,)
            Labels of X.
        fraction : float or "auto"
            See :func:`skdfb.scoring.hold_out`.
        joint_score : JointScore
            Says how many are needed.
        *seeds : int
            Two: for the choice and for the order.

        Raises
        ------
        ValueError
            If they are too few for the threshold, or lack labels that a scorer needs.
        """
        n, groups, (choice, order) = len(stratified_by), self.groups, seeds
        if self.n_own is None:
            n_needed = joint_score.number_needed(groups)
            split = hold_out(stratified_by, fraction, n_needed, choice_seed=choice, order_seed=order, groups=groups)
        else:
            rows = in_random_order(np.arange(self.n_own), groups, check_random_state(order))
            split = HeldOutSplit(np.arange(n), n + rows)
            check_labelled(joint_score, has_labels=self.y is not None)
        # Before the features for the clusters: they take time.
        held_out, n_all = self.groups_of(split), None if self.n_own is not None else n
        if groups is None or held_out is None:
            joint_score.check_number(len(split.held_out), n_all)
        else:
            n_all = None if n_all is None else len(np.unique(groups))
            joint_score.check_number(len(np.unique(held_out)), n_all, groups=groups)
        return split

    def groups_of(self, split: HeldOutSplit) -> Indices | None:
        """Return the group of each image that sets the threshold, in their order."""
        first = 0 if self.n_own is None else len(split.train)
        return None if self.groups is None else self.groups[split.held_out - first]


def checked_calibration(
    detector: Any,
    images: Images,
    y: Any,
    groups: Any,
    X_calibration: Any,
    y_calibration: Any,
    groups_calibration: Any,
) -> tuple[Images | None, Calibration]:
    """Return the images of ``X_calibration``, if any, and what they and ``groups`` mean for the threshold."""
    own = own_images(detector, X_calibration)
    # Those of a dataset count only if X has labels, too.
    if own is not None and y is not None:
        y_calibration = labels_given(own, y_calibration)
    n_own = None if own is None else len(own)
    return own, check_calibration(len(images), y, groups, n_own, y_calibration, groups_calibration)


def check_calibration(
    n_images: int, y: Any, groups: Any, n_own: int | None, y_calibration: Any, groups_calibration: Any
) -> Calibration:
    """Check labels and groups of X and of ``X_calibration``, whose number of images is ``n_own``.

    Raises
    ------
    TypeError, ValueError
        If they do not belong together.
    """
    codes = None if groups is None else check_groups(groups, n_images, "groups", "images of X")
    own = {"y_calibration": y_calibration, "groups_calibration": groups_calibration}
    if n_own is None:
        given = [name for name, value in own.items() if value is not None]
        if given:
            raise ValueError(f"{given[0]} is given, but X_calibration is None: expected both or neither.")
        return Calibration(None, None, codes)
    if y is None and y_calibration is not None:
        raise ValueError("y_calibration is given, but y is None: expected both, or neither.")
    if groups_calibration is None:
        if groups is not None:
            raise ValueError(
                "groups are those of X, but X_calibration sets the threshold: expected groups_calibration as well, the "
                "group of each image of X_calibration; or groups=None if each of these is an image of its own."
            )
        return Calibration(n_own, y_calibration, None)
    own_codes = check_groups(groups_calibration, n_own, "groups_calibration", "images of X_calibration")
    if groups is not None:
        # One list for both, so that equal labels get equal codes.
        together = check_groups(group_labels(groups) + group_labels(groups_calibration), n_images + n_own)
        n_shared = len(np.intersect1d(together[:n_images], together[n_images:]))
        if n_shared:
            raise ValueError(
                f"groups and groups_calibration share {n_shared} group(s): expected none, since images of one group "
                "must not both train and set the threshold."
            )
    return Calibration(n_own, y_calibration, own_codes)


def check_labelled(joint_score: JointScore, *, has_labels: bool) -> None:
    """Refuse own images without labels beside a scorer that learns from their classes."""
    if has_labels:
        return
    for name, view, scorer in joint_score.parts:
        # On the background view each image has the class of the view.
        if view != BACKGROUND and getattr(scorer, "learns_from_held_out", False):
            raise ValueError(
                f"part {name!r}, {scorer!r}, learns from images that set the threshold, and their classes: expected "
                "y, and y_calibration beside X_calibration."
            )


def check_refit(joint_score: JointScore, split: HeldOutSplit, labels: Indices, groups: Indices | None) -> None:
    """Refuse other scorers that need more held-out images than a fit had, or their labels."""
    check_labelled(joint_score, has_labels=known_labels(labels) is not None)
    # The error of JointScore.check has remedies that only another fit can use.
    n_held_out = len(split.held_out) if groups is None else len(np.unique(groups))
    n_needed = joint_score.number_needed(groups)
    if n_held_out < n_needed:
        which = f"{n_held_out} of {sum(map(len, split))} images" if groups is None else f"{n_held_out} groups"
        raise ValueError(
            f"{which} are held out, but with alpha={joint_score.alpha} these scorers and this fusion need at least "
            f"{n_needed}. Pass a larger alpha, call with_alpha(None) first, which sets no threshold, or fit "
            "again with a larger calibration_fraction or X_calibration."
        )


def images_of_fit(detector: Any, X: Any, y: Any, X_calibration: Any) -> Images:
    """Return X and ``X_calibration``, if they and y are those of ``fit`` as far as their number and the labels show."""
    images, own = check_images(detector, X, reset=False), own_images(detector, X_calibration)
    n_own = getattr(detector, "_n_own_", None) or 0  # older saved models have none
    numbers = {
        "X": (len(images), len(detector._labels_) - n_own),
        "X_calibration": (0 if own is None else len(own), n_own),
    }
    for name, (n_images, n_expected) in numbers.items():
        if n_images != n_expected:
            raise ValueError(f"{name} has {n_images} images: expected the {n_expected} of fit.")
    # Pixels are not compared, which would take as long as a pass of the networks.
    if y is not None:
        classes, labels = check_labels(y, images)
        same = np.array_equal(classes, detector.classes_) and np.array_equal(labels, detector._labels_[: len(images)])
        if not same:
            raise ValueError("y differs from the labels of fit: expected the same X and y in the same order.")
    return joined(images, own)


def own_images(detector: Any, X: Any) -> Images | None:
    """Return the images of ``X_calibration``, compared in form with those of ``fit``; None without any."""
    if X is None:
        return None
    try:
        images = check_images(detector, X, reset=False)
        survey(images, detector.n_jobs)
    except (TypeError, ValueError) as error:
        error.args = (f"X_calibration: {error}",)
        raise
    return images


def warn_of_duplicates(images: Images, split: HeldOutSplit) -> None:
    """Warn if many images that set the threshold are nearly the same as images that train."""
    known = images.fingerprints()
    train, held_out = ([known[int(row)] for row in rows if int(row) in known] for rows in split)
    if not train or not held_out:
        return
    n_duplicates = near_duplicates(np.stack(train), np.stack(held_out))
    if n_duplicates > max(_FEW_DUPLICATES, _DUPLICATES * len(held_out)):
        warnings.warn(
            f"{n_duplicates} of {len(held_out)} images that set the threshold are nearly the same as images that "
            "train, such as frames of one video. Other new images are then rejected more often than alpha says: pass "
            "groups=, the video of each frame, or X_calibration=.",
            DuplicateImagesWarning,
            stacklevel=5,
        )


def joined(images: Images, own: Images | None) -> Images:
    """Return X and ``X_calibration`` as one set."""
    return images if own is None else JoinedImages(images, own)


def known_labels(labels: Indices) -> Indices | None:
    """Return class indices, or None if some are not known."""
    return None if (labels == _UNKNOWN).any() else labels
