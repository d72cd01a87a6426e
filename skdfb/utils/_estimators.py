"""Helpers for estimators."""

from collections.abc import Sequence
from typing import TypeVar

__all__ = ["numbered", "shallow_copy"]

Estimator = TypeVar("Estimator")


def numbered(names: Sequence[str], separator: str) -> list[str]:
    """Append a number from 1 up to each name that occurs more than once."""
    return [
        name if names.count(name) == 1 else f"{name}{separator}{names[: place + 1].count(name)}"
        for place, name in enumerate(names)
    ]


def shallow_copy(estimator: Estimator, *, fitted_state: bool) -> Estimator:
    """Return an estimator that shares the attributes, or only the parameters.

    An estimator that fits such a copy and takes over its state at the end does not change if the fit fails.

    Parameters
    ----------
    estimator : estimator
        It is not changed.
    fitted_state : bool
        Whether the copy has the attributes that end in ``_``.

    Returns
    -------
    other : estimator
        Of the same class.
    """
    # Not by copy.copy, which leaves out what __getstate__ leaves out for pickling.
    other = object.__new__(type(estimator))
    other.__dict__ = {name: value for name, value in vars(estimator).items() if fitted_state or not name.endswith("_")}
    return other
