"""All checks, run at once or as tests."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from sklearn.exceptions import EstimatorCheckFailedWarning

from skdfb.scorers import InputPerturbingScorer, check_scorer
from skdfb.testing._scorers import _declared, _odd_data, _parameters, _scores, _state

if TYPE_CHECKING:
    import pytest

Check = Callable[[str, Any], None]


def check_foreground_scorer(
    scorer: Any,
    *,
    expected_failed_checks: Mapping[str, str] | None = None,
    on_fail: Literal["raise", "warn"] | None = "raise",
) -> list[dict[str, Any]]:
    """Check that a scorer keeps what detectors and comparisons rely on.

    A plain class with `fit` and `score_samples` is enough. It is checked on small random data as a network might say
    them, with the activations and the input perturbation that the scorer declares; the scorer itself stays as it is.

    Parameters
    ----------
    scorer : object
        An instance; see :class:`skdfb.scorers.ForegroundScorer`. It must be able to learn from 200 images of 4
        classes, 8 features each.
    expected_failed_checks : mapping of str to str, default=None
        Names of checks that may fail, and why.
    on_fail : {"raise", "warn"} or None, default="raise"
        What the first failing check that is not expected to fail does, and each further one:

        - "raise": its exception is raised;
        - "warn": a :class:`sklearn.exceptions.EstimatorCheckFailedWarning` tells of it, and the checks go on;
        - None: the checks go on. Read the result.

    Returns
    -------
    list of dict
        For each check that was run, in order: "scorer", "check_name", "exception" (or None), "status" ("passed",
        "failed" or "xfail" for an expected failure), "expected_to_fail" and "expected_to_fail_reason".

    Raises
    ------
    Exception
        That of the first failing check, an AssertionError where the scorer itself raised none. Only with
        ``on_fail="raise"``.
    TypeError
        If `scorer` is a class.
    ValueError
        If `expected_failed_checks` names no check, or `on_fail` is another value.

    See Also
    --------
    parametrize_scorers_with_checks : The same as tests for pytest, one a check.

    Notes
    -----
    The names of the checks are in the result; what they hold a scorer to:

    - Scores: one finite floating-point number an image; the same whatever the order of the images and however they
      are cut into batches, to 1e-5 of the largest score.
    - Precision: float32 ranks as float64 does; float16 features are taken.
    - Nothing is changed: not the representation, its arrays or the labels, not the global random states, and by
      `score_samples` not the scorer. Memory-mapped, read-only features are taken.
    - `fit` again forgets what was learned before, and gives the same scores from the same data, given its
      `random_state` if it has one. Pickle and joblib keep the scores.
    - Odd data (a class without images, constant or signed features, fewer images than features, one image, one
      feature, two classes, the one class of a background representation, all-zero or huge features, no images to
      score) give finite scores, or are refused by a ValueError that has a message, in `fit` or in `score_samples`.
      A ``numpy.linalg.LinAlgError`` and a ``NotFittedError`` are ValueErrors, too, but no such refusal.
    - Only with `get_params`: `clone`, `get_params` and `set_params`; ``__init__`` only stores; `fit` returns the scorer
      and leaves its parameters alone.
    - Only with `needs_activations`: `fit` reads the activations from the batches, where a detector supplies them.
    - Only with `learns_from_held_out`: `fit` takes ``held_out=(representation, y)``.
    - Only with `input_perturbation`: `perturbation_objective` is one differentiable number an image.

    Examples
    --------
    >>> from skdfb.scorers import Energy
    >>> from skdfb.testing import check_foreground_scorer
    >>> {result["status"] for result in check_foreground_scorer(Energy())}
    {'passed'}

    A scorer that needs mending:

    >>> class FirstLogit:
    ...     def fit(self, representation, y):
    ...         return self
    ...
    ...     def score_samples(self, representation):
    ...         return representation.logits[:, :1]
    >>> check_foreground_scorer(FirstLogit())
    Traceback (most recent call last):
    ...
    AssertionError: FirstLogit.score_samples returned shape (60, 1), given 60 images; wanted (60,), one score an image.
    """
    _refuse_class(scorer)
    expected = _known_checks(expected_failed_checks)
    if on_fail not in ("raise", "warn", None):
        raise ValueError(f"on_fail is {on_fail!r}; wanted 'raise', 'warn' or None.")
    results = []
    for check in _checks_of(scorer):
        result = _run(check, scorer, expected.get(check.__name__))
        if result["status"] == "failed" and on_fail == "raise":
            raise result["exception"]
        if result["status"] == "failed" and on_fail == "warn":
            told = {key: value for key, value in result.items() if key != "scorer"}
            warnings.warn(EstimatorCheckFailedWarning(estimator=scorer, **told), stacklevel=2)
        results.append(result)
    return results


def parametrize_scorers_with_checks(
    scorers: Iterable[Any],
    *,
    expected_failed_checks: Callable[[Any], Mapping[str, str]] | None = None,
    xfail_strict: bool | None = None,
) -> "pytest.MarkDecorator":
    """Make one test of a pytest function for each scorer and each check.

    Parameters
    ----------
    scorers : iterable of object
        Instances; see :func:`check_foreground_scorer`.
    expected_failed_checks : callable, default=None
        Takes a scorer and returns a mapping of names of checks that may fail to the reasons. Those tests are marked
        as xfail.
    xfail_strict : bool, default=None
        Whether a check that passes although it is expected to fail makes its test fail. None leaves it to pytest's
        own setting.

    Returns
    -------
    pytest.MarkDecorator
        ``pytest.mark.parametrize`` of the arguments `scorer` and `check`.

    Raises
    ------
    TypeError
        If a scorer is a class.
    ValueError
        If `expected_failed_checks` names no check.

    See Also
    --------
    check_foreground_scorer : The checks, run at once.

    Examples
    --------
    >>> from skdfb.scorers import MSP, Energy
    >>> from skdfb.testing import parametrize_scorers_with_checks
    >>> @parametrize_scorers_with_checks([MSP(), Energy(temperature=2.0)])
    ... def test_scorer(scorer, check):
    ...     check(scorer)
    """
    import pytest

    cases = []
    for scorer in scorers:
        _refuse_class(scorer)
        expected = _known_checks(expected_failed_checks(scorer) if expected_failed_checks else None)
        # An object's default repr holds its address, which differs between the processes of a parallel run.
        shown = repr(scorer).replace("\n", "") if hasattr(scorer, "get_params") else type(scorer).__name__
        for check in _checks_of(scorer):
            reason = expected.get(check.__name__)
            xfail = partial(pytest.mark.xfail, reason=reason)
            mark = xfail() if xfail_strict is None else xfail(strict=xfail_strict)
            bound = partial(check, type(scorer).__name__)
            name = f"{shown}-{check.__name__}"
            cases.append(pytest.param(scorer, bound, marks=() if reason is None else mark, id=name))
    return pytest.mark.parametrize(("scorer", "check"), cases)


def _refuse_class(scorer: Any) -> None:
    if isinstance(scorer, type):
        check_scorer(scorer)


def _known_checks(expected_failed_checks: Mapping[str, str] | None) -> dict[str, str]:
    expected = dict(expected_failed_checks or {})
    known = {check.__name__ for check in CHECKS}
    if unknown := sorted(set(expected) - known):
        raise ValueError(f"expected_failed_checks names {unknown}; wanted names among {sorted(known)}.")
    return expected


def _checks_of(scorer: Any) -> list[Check]:
    """Return the checks that apply to a scorer; that of the protocol itself comes first."""
    return [check for check, applies in CHECKS.items() if applies(scorer)]


def _run(check: Check, scorer: Any, reason: str | None) -> dict[str, Any]:
    """Return the outcome of a check as a dictionary, as scikit-learn does."""
    exception = None
    try:
        check(type(scorer).__name__, scorer)
    except Exception as error:
        exception = error
    return {
        "scorer": scorer,
        "check_name": check.__name__,
        "exception": exception,
        "status": "passed" if exception is None else "failed" if reason is None else "xfail",
        "expected_to_fail": reason is not None,
        "expected_to_fail_reason": reason or "",
    }


def _checks_in(module: ModuleType, applies: Callable[[Any], bool]) -> dict[Check, Callable[[Any], bool]]:
    return {check: applies for name, check in vars(module).items() if name.startswith("check_scorer_")}


# Each check, in the order they run, and which scorers it is for.
CHECKS: dict[Check, Callable[[Any], bool]] = {
    **_checks_in(_scores, lambda scorer: True),
    **_checks_in(_parameters, lambda scorer: hasattr(scorer, "get_params")),
    **_checks_in(_state, lambda scorer: True),
    **_checks_in(_odd_data, lambda scorer: True),
    _declared.check_scorer_streamed_activations: lambda scorer: bool(getattr(scorer, "needs_activations", ())),
    _declared.check_scorer_held_out_images: lambda scorer: bool(getattr(scorer, "learns_from_held_out", False)),
    _declared.check_scorer_perturbation_objective: lambda scorer: isinstance(scorer, InputPerturbingScorer),
}
