"""Checks of scores, one per image."""

import numpy as np
import numpy.typing as npt

__all__ = ["check_scores"]


def check_scores(scores: npt.ArrayLike, name: str, *, allow_infinite: bool = False) -> npt.NDArray[np.float64]:
    """Check scores and return them as float64.

    Parameters
    ----------
    scores : array-like of shape (n,)
        One number per image.
    name : str
        The name of the argument in error messages.
    allow_infinite : bool, default=False
        Whether scores may be infinite.

    Returns
    -------
    scores : ndarray of float64 of shape (n,)
        The same numbers.

    Raises
    ------
    ValueError
        If ``scores`` is not a 1-d array of numbers, is empty, or holds NaN or, unless allowed, infinity.
    """
    expected = f"expected a 1-d array with one {'' if allow_infinite else 'finite '}score per image"
    # One error per cause, from the container to the values: a later check needs what the earlier ones made sure of.
    try:
        array = np.asarray(scores)
    except ValueError as error:
        raise ValueError(f"{name} cannot be made an array ({error}): {expected}.") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {array.dtype}: {expected}; convert it to float first.")
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}: {expected}; ravel it or choose one column.")
    if array.size == 0:
        raise ValueError(f"{name} has shape {array.shape} and is empty: {expected}.")
    # NaN is never a score. Infinity can be one, as the log of a probability of 0.
    bad = np.isnan(array) if allow_infinite else ~np.isfinite(array)
    if bad.any():
        found = f"{int(bad.sum())} NaN" if allow_infinite else f"{int(bad.sum())} NaN or infinite values"
        raise ValueError(f"{name} holds {found} of {array.size} scores: {expected}; correct the scorer.")
    return array.astype(np.float64)
