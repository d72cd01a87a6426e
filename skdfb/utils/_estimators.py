"""Helpers for estimators."""

from collections.abc import Sequence
from typing import TypeVar

__all__ = ["numbered", "shallow_copy"]

Estimator = TypeVar("Estimator")


def numbered(names: Sequence[str], separator: str) -> list[str]:
    """Return names, with a number from 1 up behind each that comes more than once."""
    return [
        name if names.count(name) == 1 else f"{name}{separator}{names[: place + 1].count(name)}"
        for place, name in enumerate(names)
    ]


def shallow_copy(estimator: Estimator, *, fitted_state: bool) -> Estimator:
    """Return an estimator that shares all attributes, or the parameters only.

    An estimator that fits such a copy, and takes its state over at the end, stays as it was if the fit fails.
    ``copy.copy`` would leave out what ``__getstate__`` does.
    """
    other = object.__new__(type(estimator))
    other.__dict__ = {name: value for name, value in vars(estimator).items() if fitted_state or not name.endswith("_")}
    return other
