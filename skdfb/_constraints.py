"""Constraints on numbers for ``_parameter_constraints``, which see a boolean as what it is."""

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval as SklearnInterval

__all__ = ["RANDOM_STATE", "Interval"]


class Interval(SklearnInterval):
    """An interval of numbers, as scikit-learn's, but without booleans.

    Python counts True as the integer 1, so ``Trainer(max_steps=True)`` would train for one step.
    """

    def is_satisfied_by(self, val: Any) -> bool:
        """Return whether a value is a number of the interval."""
        return not isinstance(val, bool) and bool(super().is_satisfied_by(val))


# What scikit-learn's "random_state" stands for.
RANDOM_STATE: list[Any] = [Interval(Integral, 0, 2**32 - 1, closed="both"), np.random.RandomState, None]
