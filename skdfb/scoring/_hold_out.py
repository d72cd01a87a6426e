"""How many images to hold out for the threshold, and which."""

import logging
import math
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state

from skdfb.calibration import stratified_holdout
from skdfb.scoring._groups import choose_groups
from skdfb.utils import check_groups

__all__ = [
    "HeldOut",
    "HeldOutSplit",
    "check_number",
    "hold_out",
    "in_random_order",
    "learning_share",
    "least_to_learn_from",
    "number_to_hold_out",
]

_DEFAULT_FRACTION, _LARGEST_FRACTION = 0.1, 0.5
# Images. Fewer scores do not describe a tail: TailProbability fits its lower end to at least ten, too.
_LEAST_TO_LEARN_FROM = 10

logger = logging.getLogger("skdfb")


class HeldOutSplit(NamedTuple):
    """Which images train and which are held out.

    Parameters
    ----------
    train : ndarray of shape (n_train,)
        Indices in ascending order.
    held_out : ndarray of shape (n_held_out,)
        The other indices, in random order.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scoring import HeldOutSplit
    >>> split = HeldOutSplit(train=np.array([0, 2]), held_out=np.array([1]))
    >>> split.fraction
    0.3333333333333333
    """

    train: npt.NDArray[np.intp]
    held_out: npt.NDArray[np.intp]

    @property
    def fraction(self) -> float:
        """The share of the images that is held out."""
        return len(self.held_out) / (len(self.train) + len(self.held_out))


def hold_out(
    y: npt.ArrayLike,
    fraction: float | str = "auto",
    n_needed: int = 1,
    *,
    choice_seed: int | np.random.RandomState | None = None,
    order_seed: int | np.random.RandomState | None = None,
    groups: npt.ArrayLike | None = None,
) -> HeldOutSplit:
    """Split images into those that train and those that are held out, stratified by class.

    Parameters
    ----------
    y : array-like of shape (n,)
        Class labels.
    fraction : float or "auto", default="auto"
        Share of the images to hold out, in (0, 0.5]. "auto" is a tenth, or as many more as are needed, up to half.
    n_needed : int, default=1
        How many held-out images "auto" aims at; see :attr:`JointScore.n_held_out_needed`.
    choice_seed, order_seed : int, RandomState or None, default=None
        Fix which images are held out, and their order.
    groups : array-like of shape (n,), default=None
        The group of each image, any labels. Images of one group are held out together; `fraction` and `n_needed` then
        count groups.

    Returns
    -------
    split : HeldOutSplit
        The held-out images are in random order, so that the first of them are like the others; with groups, one group
        follows the other.

    Raises
    ------
    ValueError
        If a class has fewer than two images, or groups, or less than one of them would be held out.

    See Also
    --------
    skdfb.calibration.stratified_holdout : How images are chosen.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scoring import hold_out
    >>> y = np.repeat(["cat", "dog"], 120)
    >>> len(hold_out(y, choice_seed=0, order_seed=0).held_out)
    24
    >>> len(hold_out(y, n_needed=29, choice_seed=0, order_seed=0).held_out)
    29

    Frames of 24 videos:

    >>> split = hold_out(y, n_needed=5, choice_seed=0, order_seed=0, groups=np.arange(240) // 10)
    >>> len(split.held_out)
    50
    """
    if groups is not None:
        codes = check_groups(groups, len(np.asarray(y)))
        return _hold_out_groups(np.asarray(y), codes, fraction, n_needed, choice_seed, order_seed)
    # 1. Which images: the same for the same choice_seed, in ascending order.
    share = _fraction_for(len(np.asarray(y)), n_needed) if fraction == "auto" else float(fraction)
    train, held_out = stratified_holdout(y, share, random_state=choice_seed)
    if fraction == "auto":
        _report(share, len(held_out), len(train) + len(held_out), n_needed, "images")
    # 2. Their order.
    return HeldOutSplit(train, in_random_order(held_out, None, check_random_state(order_seed)))


def _hold_out_groups(
    y: npt.NDArray[Any],
    groups: npt.NDArray[np.intp],
    fraction: float | str,
    n_needed: int,
    choice_seed: int | np.random.RandomState | None,
    order_seed: int | np.random.RandomState | None,
) -> HeldOutSplit:
    """Hold out whole groups; they take the place of images."""
    n_groups = int(groups.max()) + 1
    share = _fraction_for(n_groups, n_needed) if fraction == "auto" else float(fraction)
    held_out = choose_groups(y, groups, share, choice_seed)
    if fraction == "auto":
        _report(share, len(held_out), n_groups, n_needed, "groups")
    is_held_out = np.isin(groups, held_out)
    order = in_random_order(np.flatnonzero(is_held_out), groups, check_random_state(order_seed))
    return HeldOutSplit(np.flatnonzero(~is_held_out), order)


def in_random_order(
    images: npt.NDArray[np.intp], groups: npt.NDArray[np.intp] | None, rng: np.random.RandomState
) -> npt.NDArray[np.intp]:
    """Return images in random order; with the group of each image 0..n-1, whole groups and the images in each."""
    if groups is None:
        shuffled: npt.NDArray[np.intp] = rng.permutation(images)
        return shuffled
    # Large groups must not come first more often: the order of the groups is drawn, not that of all images.
    place = rng.permutation(int(groups.max()) + 1)[groups[images]]
    return images[np.lexsort((rng.uniform(size=len(images)), place))]


def _report(share: float, n_held_out: int, n_all: int, n_needed: int, unit: str) -> None:
    # More images held out are fewer to train on: that must not stay unnoticed.
    if share > _DEFAULT_FRACTION and n_held_out >= n_needed:
        logger.warning(
            "%d of %d %s (%.1f %%) are held out instead of %.0f %%: so many are needed for the threshold.",
            *(n_held_out, n_all, unit, 100 * n_held_out / n_all, 100 * _DEFAULT_FRACTION),
        )


def _fraction_for(n_images: int, n_needed: int) -> float:
    """Return a tenth, or the larger fraction that holds out the number needed, at most half."""
    if n_needed <= math.floor(_DEFAULT_FRACTION * n_images):
        return _DEFAULT_FRACTION
    # A little more than the ratio: rounded down, it could hold out one image too few.
    return min(max(_DEFAULT_FRACTION, n_needed / n_images * (1 + 1e-12)), _LARGEST_FRACTION)


def least_to_learn_from(groups: npt.NDArray[np.intp] | None) -> int:
    """Return how many held-out images, or groups, are the least that a fusion may learn from, if it learns."""
    if groups is None:
        return _LEAST_TO_LEARN_FROM
    # Any so many groups hold enough images, whichever are held out.
    smallest = int(np.unique(groups, return_counts=True)[1].min())
    return math.ceil(_LEAST_TO_LEARN_FROM / smallest)


def learning_share(n_held_out: int, n_needed: int, least: int = _LEAST_TO_LEARN_FROM) -> int:
    """Return how many of the held-out images fusion and scorers may learn from; the others set the threshold.

    It is half of them. If that leaves fewer than the ``n_needed`` for a threshold, they learn from the rest, if that
    is enough to learn from. All numbers count images, or groups.
    """
    # The threshold comes first: without it nothing is rejected, while a fusion from few images is only less exact.
    half = n_held_out // 2
    if n_held_out - half >= n_needed:
        return half
    return max(n_held_out - n_needed, min(half, least))


def number_to_hold_out(n_needed: int, least: int = _LEAST_TO_LEARN_FROM) -> int:
    """Return the least number of held-out images that leaves ``n_needed`` for a threshold beside those learned from."""
    return next(n for n in count(max(2, n_needed)) if n - learning_share(n, n_needed, least) >= n_needed)


class HeldOut(NamedTuple):
    """The held-out images, or groups of images, for the check of their number.

    Parameters
    ----------
    n : int
        How many there are.
    n_all : int or None
        How many there are with those that train; None if these are other images, which are not divided.
    least_to_learn_from : int
        See :func:`least_to_learn_from`.
    unit : {"images", "groups"}
        What is counted.
    """

    n: int
    n_all: int | None
    least_to_learn_from: int = _LEAST_TO_LEARN_FROM
    unit: str = "images"


def check_number(held_out: HeldOut, n_needed: int, alpha: float, *, learns: bool) -> None:
    """Refuse held-out images, or groups, that are too few for a finite threshold; the message gives every remedy.

    Raises
    ------
    ValueError
        Before any training.
    """
    n_held_out, n_all, least, unit = held_out
    if n_held_out >= n_needed:
        return
    learned = ", some of which the fusion or a scorer learns from" if learns else ""
    which = f"{n_held_out} {unit} are" if n_all is None else f"{n_held_out} of {n_all} {unit} are"
    # Each remedy is rounded up to three digits, so that the value in the message is enough.
    remedies = []
    # At most half of the images can be held out.
    if n_all is not None and n_all >= 2 * n_needed:
        remedies.append(f"calibration_fraction={math.ceil(1000 * n_needed / n_all) / 1000:g}")
    # As many as would be left if only the least number were learned from; see learning_share.
    n_threshold = n_held_out - (min(n_held_out // 2, least) if learns else 0)
    if n_threshold > 1:
        remedies.append(f"alpha={math.ceil(1000 / (n_threshold + 1)) / 1000:g}")
    remedies.append("alpha=None, which sets no threshold")
    if n_all is not None:
        remedies.append(f"at least {2 * n_needed} {unit} with calibration_fraction='auto'")
    remedies.append(f"{'' if n_all is None else 'an '}X_calibration of at least {n_needed} {unit}")
    raise ValueError(
        f"{which} held out{learned}, but alpha={alpha:g} needs at least {n_needed}: "
        f"otherwise the threshold is -inf and nothing is rejected. Pass {', or '.join(remedies)}."
    )
