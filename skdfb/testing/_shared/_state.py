"""Checks that only `fit` changes anything, that a second `fit` forgets the first, and that files keep the result."""

import io
import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import joblib
import numpy as np
import torch

from skdfb.testing._shared._demands import demand, demand_same, demand_unchanged, fresh_copy
from skdfb.testing._shared._usage import Usage


def check_inputs_unchanged(name: str, instance: Any, usage: Usage) -> None:
    """Check that no method writes to its arguments."""
    # Early in each suite, because an object that does so also makes other checks fail.
    fresh = fresh_copy(instance)
    calls = (
        (usage.fit_method, usage.fit, usage.training_data(instance)),
        (usage.result_method, usage.result, usage.new_data(instance)),
    )
    for method, call, data in calls:
        if hasattr(instance, method):
            before = usage.contents(data)
            call(fresh, data)
            demand_unchanged(name, method, before, usage.contents(data))


def check_fit_returns_self(name: str, instance: Any, usage: Usage) -> None:
    """Check that `fit` returns the object itself."""
    fresh = fresh_copy(instance)
    returned = usage.fit(fresh, usage.training_data(instance))
    demand(returned is fresh, f"{name}.fit: expected the object itself, got {returned!r}; end it with return self.")


def check_global_random_state(name: str, instance: Any, usage: Usage) -> None:
    """Check that the global random states of Python, NumPy and torch are as before."""
    fresh = fresh_copy(instance)
    with _unusual_random_states():
        before = _random_states()
        # Reading a global state changes it, so this also finds objects that draw from it.
        usage.run(fresh)
        changed = [package for package, state in _random_states().items() if state != before[package]]
    demand(
        not changed,
        f"{name}: expected the same global random states as before, got another of {' and '.join(changed)}, given "
        "random_state=0 if there is such a parameter; draw from a generator, such as "
        "check_random_state(self.random_state) of sklearn.utils.",
    )


@contextmanager
def _unusual_random_states() -> Iterator[None]:
    """Set states that plain seeding never leads to, since the object may have seeded in an earlier check."""
    python, numpy, pytorch = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        random.seed(20240731)
        np.random.seed(20240731)  # noqa: NPY002
        torch.default_generator.manual_seed(20240731)
        random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(pytorch)


def _random_states() -> dict[str, bytes]:
    numpy = np.random.get_state()  # noqa: NPY002
    states = {"Python": random.getstate(), "NumPy": numpy, "torch": torch.get_rng_state().numpy()}
    return {package: pickle.dumps(state) for package, state in states.items()}


def check_result_keeps_state(name: str, instance: Any, usage: Usage) -> None:
    """Check that a result does not depend on earlier results: only `fit` learns."""
    fitted, data = usage.fitted(instance), usage.new_data(instance)
    expected = usage.result(fitted, data)
    usage.result(fitted, usage.new_data(instance, seed=2))
    got, given = usage.result(fitted, data), f"other data in {usage.result_method} in between"
    demand_same(name, got, expected, given=given, meaning=f"the {usage.noun} of before", noun=usage.noun)


def check_refit(name: str, instance: Any, usage: Usage) -> None:
    """Check that a second fit forgets the first."""
    again = fresh_copy(instance)
    # Other data of the same sizes: nothing but memory can make a difference.
    usage.run(again, seed=2)
    got, expected = usage.run(again), usage.run(fresh_copy(instance))
    given, meaning = f"an earlier {usage.fit_method} on other data", f"the {usage.noun} after a single fit"
    demand_same(name, got, expected, given=given, meaning=meaning, noun=usage.noun)


def check_deterministic(name: str, instance: Any, usage: Usage) -> None:
    """Check that the same data give the same result."""
    got, expected = (usage.run(fresh_copy(instance)) for _ in range(2))
    given = "the same data twice, and random_state=0 if there is such a parameter"
    demand_same(name, got, expected, given=given, meaning=f"the same {usage.noun}", noun=usage.noun)


def check_pickle(name: str, instance: Any, usage: Usage) -> None:
    """Check that pickle keeps the result."""
    _demand_kept(name, instance, usage, "pickle", lambda fitted: pickle.loads(pickle.dumps(fitted)))


def check_joblib(name: str, instance: Any, usage: Usage) -> None:
    """Check that joblib keeps the result."""

    def round_trip(fitted: Any) -> Any:
        buffer = io.BytesIO()
        joblib.dump(fitted, buffer)
        buffer.seek(0)
        return joblib.load(buffer)

    _demand_kept(name, instance, usage, "joblib", round_trip)


def _demand_kept(name: str, instance: Any, usage: Usage, by: str, round_trip: Callable[[Any], Any]) -> None:
    fitted, data = usage.fitted(instance), usage.new_data(instance)
    expected = usage.result(fitted, data)
    # The object is stored after a use: caches that cannot be stored are found as well.
    try:
        got = usage.result(round_trip(fitted), data)
    except Exception as error:
        raise AssertionError(
            f"{name}: expected a class at the top of a module whose attributes {by} can store, got "
            f"{type(error).__name__}: {error}, given a round trip of a fitted object."
        ) from error
    given = f"a round trip through {by}"
    demand_same(name, got, expected, given=given, meaning=f"the {usage.noun} of before", noun=usage.noun)


# For objects whose fit takes data and whose result takes new data.
CHECKS = (
    check_global_random_state,
    check_result_keeps_state,
    check_refit,
    check_deterministic,
    check_pickle,
    check_joblib,
)
