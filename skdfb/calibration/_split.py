"""Choice of the held-out images: each class has its share of them, each image the same chance."""

import math

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state

from skdfb.images import encode_labels, shown


def stratified_holdout(
    y: npt.ArrayLike,
    fraction: float = 0.1,
    random_state: int | np.random.RandomState | None = None,
    *,
    min_per_class: int = 2,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    r"""Split images into a training part and a held-out part, stratified by class.

    Parameters
    ----------
    y : array-like of shape (n,)
        Class labels: integers or strings.
    fraction : float, default=0.1
        Share of the images to hold out, in (0, 0.5]; the detector's `calibration_fraction`.
    random_state : int, RandomState instance or None, default=None
        Seed of the choice; pass an int for the same split each time.
    min_per_class : int, default=2
        Smallest number of images that a class may have. With 2 or more, every class keeps an image for training. With
        1, a class may have a single image, and that image may be held out.

    Returns
    -------
    train_indices : ndarray of shape (n_train,)
        Indices into `y` in ascending order.
    held_out_indices : ndarray of shape (n_held_out,)
        The other indices in ascending order. Their number is ``fraction * n`` rounded up or down, and in each class
        `fraction` times the size of the class rounded up or down.

    Raises
    ------
    ValueError
        If `y` is not 1-d, `fraction` is outside (0, 0.5] or holds out less than one image, or a class has fewer than
        `min_per_class` images.

    See Also
    --------
    ConformalCalibrator : Sets the threshold from the held-out images.
    sklearn.model_selection.StratifiedShuffleSplit : Refuses test parts smaller than the number of classes.

    Notes
    -----
    This is systematic sampling. The images are ordered by class, and at random inside each class. The images at the
    positions

    .. math:: \lfloor u + k / f \rfloor, \qquad k = 0, 1, 2, \dots, \quad u \sim \mathrm{Uniform}[0, 1 / f)

    are held out, with `fraction` :math:`f`. Each position is held out with probability f, whatever the size of its
    class. So held-out images are like new ones, even if classes are small; rounding the share of each class would not
    achieve that. Since :math:`1 / f \ge 2`, two neighbours are never both held out: no class of two or more is emptied.

    References
    ----------
    .. [1] W. G. Cochran, *Sampling Techniques*, 3rd edition, Wiley, 1977, chapter 8.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.calibration import stratified_holdout
    >>> y = np.repeat(["cat", "dog"], [30, 10])
    >>> train, held_out = stratified_holdout(y, 0.2, random_state=0)
    >>> len(train), len(held_out)
    (32, 8)
    >>> [int(np.sum(y[held_out] == label)) for label in ("cat", "dog")]
    [6, 2]
    """
    labels = np.asarray(y)
    classes = _check_split(labels, fraction, min_per_class)
    rng = check_random_state(random_state)
    # A random order, then a stable sort by class: random inside each class.
    order = rng.permutation(labels.size)
    row = order[np.argsort(classes[order], kind="stable")]
    step = 1 / fraction
    positions = np.floor(np.arange(rng.uniform(0, step), labels.size, step)).astype(np.intp)
    held_out = np.zeros(labels.size, dtype=bool)
    held_out[row[positions]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _check_split(labels: npt.NDArray[np.generic], fraction: float, min_per_class: int) -> npt.NDArray[np.intp]:
    """Return the class of each label as an integer."""
    if labels.ndim != 1 or labels.size == 0:
        raise ValueError(f"y has shape {labels.shape}: expected a 1-d array with one label per image.")
    if not 0 < fraction <= 0.5:
        raise ValueError(f"calibration_fraction={fraction!r} must be greater than 0 and at most 0.5.")
    if min_per_class < 1:
        raise ValueError(f"min_per_class={min_per_class!r} must be at least 1.")
    classes, indices = encode_labels(labels)
    counts = np.bincount(indices)
    small = np.flatnonzero(counts < min_per_class)
    if small.size:
        others = f" (and {small.size - 1} other classes likewise)" if small.size > 1 else ""
        raise ValueError(
            f"y: class {shown(classes.tolist()[small[0]])} has {counts[small[0]]} image(s){others}: expected at least "
            f"{min_per_class}, to hold some out and keep some for training; give more images of it or leave it out."
        )
    if fraction * labels.size < 1:
        raise ValueError(
            f"calibration_fraction={fraction!r} of {labels.size} images is less than one held-out image: "
            f"use a calibration_fraction of at least {math.ceil(1000 / labels.size) / 1000} or give more images."
        )
    return indices
