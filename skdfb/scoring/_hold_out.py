"""How many images to hold out for the threshold, and which."""

import logging
import math
from itertools import count
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state

from skdfb.calibration import stratified_holdout

__all__ = ["HeldOutSplit", "check_number", "hold_out", "learning_share", "number_to_hold_out"]

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

    Returns
    -------
    split : HeldOutSplit
        The held-out images are in random order, so that the first of them are like the others.

    Raises
    ------
    ValueError
        If a class has fewer than two images, or less than one image would be held out.

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
    """
    # 1. Which images: the same for the same choice_seed, in ascending order.
    n_images = len(np.asarray(y))
    share = _fraction_for(n_images, n_needed) if fraction == "auto" else float(fraction)
    train, held_out = stratified_holdout(y, share, random_state=choice_seed)
    # More images held out are fewer to train on: that must not stay unnoticed.
    if fraction == "auto" and share > _DEFAULT_FRACTION and len(held_out) >= n_needed:
        logger.warning(
            "%d of %d images (%.1f %%) are held out instead of %.0f %%: so many are needed for the threshold.",
            *(len(held_out), n_images, 100 * len(held_out) / n_images, 100 * _DEFAULT_FRACTION),
        )
    # 2. Their order.
    return HeldOutSplit(train, check_random_state(order_seed).permutation(held_out))


def _fraction_for(n_images: int, n_needed: int) -> float:
    """Return a tenth, or the larger fraction that holds out the number needed, at most half."""
    if n_needed <= math.floor(_DEFAULT_FRACTION * n_images):
        return _DEFAULT_FRACTION
    # A little more than the ratio: rounded down, it could hold out one image too few.
    return min(max(_DEFAULT_FRACTION, n_needed / n_images * (1 + 1e-12)), _LARGEST_FRACTION)


def learning_share(n_held_out: int, n_needed: int) -> int:
    """Return how many of the held-out images fusion and scorers may learn from; the others set the threshold.

    It is half of them. If that leaves fewer than the ``n_needed`` for a threshold, they learn from the rest, if that
    is enough to learn from.
    """
    # The threshold comes first: without it nothing is rejected, while a fusion from few images is only less exact.
    half = n_held_out // 2
    if n_held_out - half >= n_needed:
        return half
    return max(n_held_out - n_needed, min(half, _LEAST_TO_LEARN_FROM))


def number_to_hold_out(n_needed: int) -> int:
    """Return the least number of held-out images that leaves ``n_needed`` for a threshold beside those learned from."""
    return next(n for n in count(max(2, n_needed)) if n - learning_share(n, n_needed) >= n_needed)


def check_number(n_held_out: int, n_needed: int, n_images: int, alpha: float, *, learns: bool) -> None:
    """Refuse held-out images that are too few for a finite threshold; the message gives every remedy.

    Raises
    ------
    ValueError
        Before any training.
    """
    if n_held_out >= n_needed:
        return
    learned = ", some of which the fusion or a scorer learns from" if learns else ""
    # Each remedy is rounded up to three digits, so that the value in the message is enough.
    remedies = []
    # At most half of the images can be held out.
    if n_images >= 2 * n_needed:
        remedies.append(f"calibration_fraction={math.ceil(1000 * n_needed / n_images) / 1000:g}")
    # As many as would be left if only the least number were learned from; see learning_share.
    n_threshold = n_held_out - (min(n_held_out // 2, _LEAST_TO_LEARN_FROM) if learns else 0)
    if n_threshold > 1:
        remedies.append(f"alpha={math.ceil(1000 / (n_threshold + 1)) / 1000:g}")
    remedies.append("alpha=None, which sets no threshold")
    remedies.append(f"at least {2 * n_needed} images with calibration_fraction='auto'")
    raise ValueError(
        f"{n_held_out} of {n_images} images are held out{learned}, but alpha={alpha:g} needs at least {n_needed}: "
        f"otherwise the threshold is -inf and nothing is rejected. Pass {', or '.join(remedies)}."
    )
