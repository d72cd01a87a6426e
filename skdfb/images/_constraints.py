"""Constraints of parameters that estimators share."""

from numbers import Integral
from typing import Any

from sklearn.utils._param_validation import Interval

__all__ = ["N_JOBS"]

# joblib's convention: -1 is all cores; 0 has no meaning.
N_JOBS: list[Any] = [Interval(Integral, None, -1, closed="right"), Interval(Integral, 1, None, closed="left"), None]
