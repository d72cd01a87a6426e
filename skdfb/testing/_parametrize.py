"""The checks as separate tests of pytest."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from skdfb.testing import _augmentations, _fusions, _mask_generators, _scorers
from skdfb.testing._augmentations import check_augmentation
from skdfb.testing._fusions import check_fusion
from skdfb.testing._mask_generators import check_mask_generator
from skdfb.testing._scorers import check_foreground_scorer

if TYPE_CHECKING:
    import pytest

_SUITES = {
    check_foreground_scorer: _scorers.SUITE,
    check_fusion: _fusions.SUITE,
    check_mask_generator: _mask_generators.SUITE,
    check_augmentation: _augmentations.SUITE,
}


def parametrize_with_checks(
    check: Callable[..., Any],
    instances: Iterable[Any],
    *,
    expected_failed_checks: Callable[[Any], Mapping[str, str]] | None = None,
    xfail_strict: bool | None = None,
) -> "pytest.MarkDecorator":
    """Make one test of a pytest function for each object and each check.

    Parameters
    ----------
    check : callable
        One of the other functions of this package, such as :func:`check_foreground_scorer`.
    instances : iterable of object
        Objects that `check` accepts.
    expected_failed_checks : callable, default=None
        Takes an object and returns a mapping of names of checks that may fail to the reasons. Those tests are marked
        as xfail.
    xfail_strict : bool, default=None
        Whether a check that passes although it is expected to fail makes its test fail. None uses pytest's own
        setting.

    Returns
    -------
    pytest.MarkDecorator
        ``pytest.mark.parametrize`` of the arguments `instance` and `check`.

    Raises
    ------
    TypeError
        If an object is a class.
    ValueError
        If `check` is another function, or if `expected_failed_checks` returns an unknown name.

    See Also
    --------
    check_foreground_scorer : The checks of scorers in one call.

    Examples
    --------
    >>> from skdfb.scorers import MSP, Energy
    >>> from skdfb.testing import check_foreground_scorer, parametrize_with_checks
    >>> @parametrize_with_checks(check_foreground_scorer, [MSP(), Energy(temperature=2.0)])
    ... def test_scorer(instance, check):
    ...     check(instance)
    """
    # Here, because the other functions work without pytest.
    import pytest

    if check not in _SUITES:
        names = ", ".join(function.__name__ for function in _SUITES)
        raise ValueError(f"Expected check to be one of {names}, got {check!r}.")
    cases = []
    for instance in instances:
        expected = expected_failed_checks(instance) if expected_failed_checks else None
        # The default repr holds the address, which differs between the processes of a parallel run.
        label = repr(instance).replace("\n", "") if hasattr(instance, "get_params") else type(instance).__name__
        for single, reason in _SUITES[check].cases(instance, expected):
            xfail = partial(pytest.mark.xfail, reason=reason)
            mark = xfail() if xfail_strict is None else xfail(strict=xfail_strict)
            bound = partial(single, type(instance).__name__)
            name = f"{label}-{single.__name__}"
            cases.append(pytest.param(instance, bound, marks=() if reason is None else mark, id=name))
    return pytest.mark.parametrize(("instance", "check"), cases)
