"""Constraints on parameters that many estimators share."""

from numbers import Integral
from typing import Any

from skdfb._constraints import Interval

__all__ = ["N_JOBS"]

# joblib's numbers of threads; 0 has no meaning there and would raise an error only when the first image is read.
N_JOBS: list[Any] = [Interval(Integral, None, -1, closed="right"), Interval(Integral, 1, None, closed="left"), None]
