"""A suite of checks: which of them apply to an object, how they run, and how failures are reported."""

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from sklearn.exceptions import EstimatorCheckFailedWarning

from skdfb.testing._shared._usage import Usage

Check = Callable[[str, Any], None]
Applies = Callable[[Any], bool]
OnFail = Literal["raise", "warn"] | None


@dataclass(frozen=True)
class Suite:
    """The checks of one protocol.

    Parameters
    ----------
    kind : str
        What is checked, as in the names of the checks: "scorer" for ``check_scorer_shape``.
    checks : mapping of callable to callable
        Each check, in the order they run, and a function that returns whether it applies to an object. Checks whose
        failure makes others fail come first.
    """

    kind: str
    checks: Mapping[Check, Applies]

    def run(
        self, instance: Any, expected_failed_checks: Mapping[str, str] | None, on_fail: OnFail
    ) -> list[dict[str, Any]]:
        """Run the checks that apply, and return their outcomes."""
        # Bad arguments are refused before the first check runs.
        cases = list(self.cases(instance, expected_failed_checks))
        if on_fail not in ("raise", "warn", None):
            raise ValueError(f"Expected on_fail to be 'raise', 'warn' or None, got {on_fail!r}.")
        outcomes = []
        for check, reason in cases:
            outcome = self._outcome(check, instance, reason)
            if outcome["status"] == "failed" and on_fail == "raise":
                raise outcome["exception"]
            if outcome["status"] == "failed" and on_fail == "warn":
                reported = {key: value for key, value in outcome.items() if key != self.kind}
                # The user's line: above it are the suite's function and this one.
                warnings.warn(EstimatorCheckFailedWarning(estimator=instance, **reported), stacklevel=3)
            outcomes.append(outcome)
        return outcomes

    def cases(
        self, instance: Any, expected_failed_checks: Mapping[str, str] | None
    ) -> Iterator[tuple[Check, str | None]]:
        """Yield each check that applies, and the reason why it may fail, or None."""
        if isinstance(instance, type):
            raise TypeError(f"Expected an instance, got the class {instance.__name__}; pass {instance.__name__}().")
        expected, known = dict(expected_failed_checks or {}), {check.__name__ for check in self.checks}
        if unknown := sorted(set(expected) - known):
            raise ValueError(f"Expected names of checks in expected_failed_checks, {sorted(known)}, got {unknown}.")
        for check, applies in self.checks.items():
            if applies(instance):
                yield check, expected.get(check.__name__)

    def _outcome(self, check: Check, instance: Any, reason: str | None) -> dict[str, Any]:
        """Run a check, and return its outcome with the keys of scikit-learn's own checks."""
        exception = None
        try:
            check(type(instance).__name__, instance)
        except Exception as error:
            exception = error
        return {
            self.kind: instance,
            "check_name": check.__name__,
            "exception": exception,
            "status": "passed" if exception is None else "failed" if reason is None else "xfail",
            "expected_to_fail": reason is not None,
            "expected_to_fail_reason": reason or "",
        }


def always(instance: Any) -> bool:
    """Return True: the check applies to every object."""
    return True


def has_parameters(instance: Any) -> bool:
    """Tell whether an object has scikit-learn's parameters."""
    return hasattr(instance, "get_params")


def checks_in(module: ModuleType, kind: str) -> dict[Check, Applies]:
    """Return a module's own checks, which apply to every object, in the order of the file."""
    return {check: always for name, check in vars(module).items() if name.startswith(f"check_{kind}_")}


def shared_checks(
    kind: str, usage: Usage, *checks: Callable[[str, Any, Any], None], applies: Applies = always
) -> dict[Check, Applies]:
    """Return shared checks under names of their own: ``check_clone`` becomes ``check_scorer_clone``."""
    return {_bound(check, kind, usage): applies for check in checks}


def _bound(check: Callable[[str, Any, Any], None], kind: str, usage: Usage) -> Check:
    # The docstring stays, the name becomes one of the suite's.
    @functools.wraps(check)
    def bound(name: str, instance: Any) -> None:
        check(name, instance, usage)

    bound.__name__ = check.__name__.replace("check_", f"check_{kind}_", 1)
    return bound
