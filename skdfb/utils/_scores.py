"""Checks of scores, one a image."""

import numpy as np
import numpy.typing as npt

__all__ = ["check_scores"]


def check_scores(scores: npt.ArrayLike, name: str, *, allow_infinite: bool = False) -> npt.NDArray[np.float64]:
    """Return scores as a 1-d float64 array; anything that is none is refused by ``name``.

    Raises
    ------
    ValueError
        If ``scores`` is no 1-d array of numbers, is empty, or holds NaN or, unless allowed, infinity.
    """
    wanted = f"a 1-d array with one {'' if allow_infinite else 'finite '}score an image is wanted"
    try:
        array = np.asarray(scores)
    except ValueError as error:
        raise ValueError(f"{name} cannot be made an array ({error}): {wanted}.") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {array.dtype}: {wanted}; convert it to float first.")
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}: {wanted}; ravel it or choose one column.")
    if array.size == 0:
        raise ValueError(f"{name} has shape {array.shape} and is empty: {wanted}.")
    bad = np.isnan(array) if allow_infinite else ~np.isfinite(array)
    if bad.any():
        found = f"{int(bad.sum())} NaN" if allow_infinite else f"{int(bad.sum())} NaN or infinite values"
        raise ValueError(f"{name} holds {found} of {array.size} scores: {wanted}; mend the scorer.")
    return array.astype(np.float64)
