"""Copies of the checked object, and assertions with messages that name what was expected and what was given."""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

Array = NDArray[Any]

# float32 rounding of a sum, relative to the largest value.
TOLERANCE = 1e-5


def fresh_copy(instance: Any) -> Any:
    """Return an unfitted copy with its random states set."""
    return _seeded(clone(instance, safe=False))


def exact_copy(instance: Any) -> Any:
    """Return a copy of all attributes with its random states set."""
    return _seeded(copy.deepcopy(instance))


def _seeded(instance: Any) -> Any:
    if hasattr(instance, "get_params"):
        # Nested parameters as well, such as generator__random_state.
        seeds = {name: 0 for name in instance.get_params() if name.split("__")[-1] == "random_state"}
        instance.set_params(**seeds)
    elif hasattr(instance, "random_state"):
        instance.random_state = 0
    return instance


def demand(fulfilled: Any, message: str) -> None:
    """Raise an AssertionError unless fulfilled, also under ``python -O``."""
    if not fulfilled:
        raise AssertionError(message)


def demand_method(name: str, instance: Any, method: str, n_arguments: int) -> None:
    """Demand a method that can be called with so many positional arguments."""
    function = getattr(instance, method, None)
    if not callable(function):
        raise AssertionError(f"{name}: expected the method {method}, got none.")
    try:
        inspect.signature(function).bind(*[None] * n_arguments)
    except TypeError as error:
        raise AssertionError(
            f"{name}.{method}: expected a method that can be called with {n_arguments} argument(s), got {error}."
        ) from error


def largest_difference(got: Array, expected: Array) -> float:
    """Return the largest absolute difference; NaN if any value is NaN."""
    # NumPy warns about infinity minus infinity, which is NaN here.
    with np.errstate(invalid="ignore"):
        return float(np.abs(got - expected).max(initial=0))


def demand_same(name: str, got: Array, expected: Array, *, given: str, meaning: str, noun: str = "scores") -> None:
    """Demand equal arrays, to float32 rounding; `meaning` describes the expected array."""
    demand(
        got.shape == expected.shape,
        f"{name}: expected {meaning}, of shape {expected.shape}, got shape {got.shape}, given {given}.",
    )
    apart, scale = largest_difference(got, expected), np.abs(expected).max(initial=0)
    demand(
        apart <= TOLERANCE * scale,  # False for NaN
        f"{name}: expected {meaning}, got {noun} that differ by up to {apart:.3g}, given {given}. The tolerance is "
        f"{TOLERANCE:g} of the largest absolute value ({scale:.3g}).",
    )


def demand_unchanged(name: str, method: str, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
    """Demand that a method did not write to its arguments; the mappings hold the bytes of each array by name."""
    changed = [field for field in before if after.get(field) != before[field]]
    added = [field for field in after if field not in before]
    demand(
        not changed and not added,
        f"{name}.{method}: expected arguments with the same bytes as before, got changes in "
        f"{' and '.join(changed + added)}; work on a copy, such as x.clone() or np.array(x, dtype=np.float64).",
    )


def demand_refusal(name: str, error: Exception, *, given: str, expected: str) -> None:
    """Demand that an error is a ValueError with a message, so that the user can correct the data."""
    # Both are ValueErrors, but they describe the inside of the object, not the data.
    if isinstance(error, ValueError) and not isinstance(error, np.linalg.LinAlgError | NotFittedError):
        demand(str(error), f"{name}: expected {expected}, got a ValueError without a message, given {given}.")
        return
    raise AssertionError(f"{name}: expected {expected}, got {type(error).__name__}: {error}, given {given}.") from error
