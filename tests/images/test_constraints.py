"""Constraints that estimators share: every estimator with n_jobs takes the same values."""

import importlib
import inspect

import pytest
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import InvalidParameterError, validate_parameter_constraints

from tests.test_public_names import PACKAGES


def estimators_with_n_jobs():
    """All public estimators that have the parameter, by name."""
    found = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing) and issubclass(thing, BaseEstimator) and "n_jobs" in thing._get_param_names():
                found[name] = thing
    return found


def test_they_are_found():
    assert set(estimators_with_n_jobs()) >= {
        "AffinityMaskGenerator", "CAMMaskGenerator", "DFBDetector", "DenseMaskGenerator",
        "NormalizedCutMaskGenerator",
    }  # fmt: skip


@pytest.mark.parametrize("estimator", estimators_with_n_jobs().values(), ids=estimators_with_n_jobs())
def test_zero_threads_are_refused(estimator):
    constraints = {"n_jobs": estimator._parameter_constraints["n_jobs"]}
    for n_jobs in (0, 1.5, "all"):
        with pytest.raises(InvalidParameterError, match="'n_jobs' parameter"):
            estimator(n_jobs=n_jobs)._validate_params()
    for n_jobs in (None, -2, -1, 1, 8):
        validate_parameter_constraints(constraints, {"n_jobs": n_jobs}, estimator.__name__)
