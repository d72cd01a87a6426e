"""How the suites report: exceptions, warnings, results, and tests of pytest."""

import inspect
import random

import numpy as np
import pytest
import torch
from sklearn.exceptions import EstimatorCheckFailedWarning

from skdfb.scorers import Energy
from skdfb.testing import check_foreground_scorer, parametrize_with_checks
from skdfb.testing._parametrize import _SUITES
from tests.testing.test_check_foreground_scorer import AtLeastOne, DrawingWhereScoring, NearestMean, SeedingNumPy


def test_the_first_failure_is_raised():
    with pytest.raises(
        AssertionError, match=r"^AtLeastOne: expected scores of shape \(0,\), got \(1,\), given 0 images"
    ):
        check_foreground_scorer(AtLeastOne())


def test_failures_are_warned_of():
    with pytest.warns(EstimatorCheckFailedWarning, match="AtLeastOne") as caught:
        results = check_foreground_scorer(AtLeastOne(), on_fail="warn")
    assert [warning.message.check_name for warning in caught] == ["check_scorer_no_images"]
    assert caught[0].filename == __file__, "the warning names the caller's line"
    assert [result["check_name"] for result in results if result["status"] == "failed"] == ["check_scorer_no_images"]


def test_expected_failures():
    scorer = AtLeastOne()
    results = check_foreground_scorer(scorer, expected_failed_checks={"check_scorer_no_images": "returns one"})
    by_name = {result.pop("check_name"): result for result in results}
    failed = by_name.pop("check_scorer_no_images")
    assert isinstance(failed.pop("exception"), AssertionError)
    assert failed == {
        "scorer": scorer, "status": "xfail", "expected_to_fail": True, "expected_to_fail_reason": "returns one",
    }  # fmt: skip
    passed = {
        "scorer": scorer, "exception": None, "status": "passed", "expected_to_fail": False,
        "expected_to_fail_reason": "",
    }  # fmt: skip
    assert list(by_name.values()) == [passed] * len(by_name)


def test_bad_arguments():
    with pytest.raises(TypeError, match=r"Expected an instance, got the class NearestMean; pass NearestMean\(\)"):
        check_foreground_scorer(NearestMean)
    with pytest.raises(TypeError, match=r"Expected an instance, got the class NearestMean; pass NearestMean\(\)"):
        parametrize_with_checks(check_foreground_scorer, [NearestMean])
    with pytest.raises(
        ValueError, match=r"Expected names of .*, \['check_scorer_batches', .*, got \['check_no_such'\]"
    ):
        check_foreground_scorer(NearestMean(), expected_failed_checks={"check_no_such": ""})
    with pytest.raises(ValueError, match="Expected on_fail to be 'raise', 'warn' or None, got 'ignore'"):
        check_foreground_scorer(NearestMean(), on_fail="ignore")
    with pytest.raises(ValueError, match=r"Expected check to be one of .*check_foreground_scorer.*, got <built-in"):
        parametrize_with_checks(repr, [NearestMean()])


def test_tests_of_pytest():
    mark = parametrize_with_checks(
        check_foreground_scorer,
        [NearestMean(), Energy(temperature=2.0), AtLeastOne()],
        expected_failed_checks=lambda scorer: (
            {"check_scorer_no_images": "why"} if isinstance(scorer, AtLeastOne) else {}
        ),
        xfail_strict=True,
    )
    assert mark.name == "parametrize"
    names, cases = mark.args
    assert names == ("instance", "check")
    ids = [case.id for case in cases]
    assert len(set(ids)) == len(ids)
    assert ids[0] == "NearestMean-check_scorer_protocol"  # no address, which differs between processes
    assert "Energy(temperature=2.0)-check_scorer_clone" in ids
    marked = {case.id: case.marks for case in cases if case.marks}
    assert list(marked) == ["AtLeastOne-check_scorer_no_images"]
    assert marked["AtLeastOne-check_scorer_no_images"][0].kwargs == {"reason": "why", "strict": True}


@parametrize_with_checks(
    check_foreground_scorer,
    [AtLeastOne()],
    expected_failed_checks=lambda scorer: {"check_scorer_no_images": "returns one"},
    xfail_strict=True,
)
def test_expected_failures_of_pytest(instance, check):
    check(instance)


def test_the_random_states_are_restored():
    checks = _SUITES[check_foreground_scorer].checks
    check = next(check for check in checks if check.__name__ == "check_scorer_global_random_state")
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    for scorer in SeedingNumPy(), DrawingWhereScoring():
        with pytest.raises(AssertionError):
            check(type(scorer).__name__, scorer)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before  # noqa: NPY002


def test_checks_have_docstrings():
    checks = [check for suite in _SUITES.values() for check in suite.checks]
    assert all(inspect.getdoc(check).startswith("Check ") for check in checks)
