"""Checks of objects with scikit-learn's parameters: `get_params` and `set_params`."""

import inspect
from typing import Any

import joblib
from sklearn.base import clone

from skdfb.testing._shared._demands import demand, demand_same, exact_copy, fresh_copy
from skdfb.testing._shared._usage import Usage


def check_clone(name: str, instance: Any, usage: Usage) -> None:
    """Check that `clone` returns an unfitted object with the same parameters and the same results."""
    parameters = instance.get_params(deep=False)
    copy = clone(usage.fitted(instance))
    # A clone of the unfitted object shows what __init__ alone sets.
    fitted = sorted(_attributes(copy) - _attributes(clone(instance)))
    demand(
        not fitted,
        f"{name}: expected only what __init__ stores after clone, got {fitted} as well, given a fitted object.",
    )
    cloned = copy.get_params(deep=False)
    demand(
        type(copy) is type(instance) and set(cloned) == set(parameters),
        f"{name}: expected a clone with the parameters {sorted(parameters)}, got {sorted(cloned)}.",
    )
    # A setting that is not a parameter is lost: only a copy of all attributes has it.
    got, expected = usage.run(fresh_copy(instance)), usage.run(exact_copy(instance))
    meaning = f"the {usage.noun} of the original"
    demand_same(name, got, expected, given="a clone", meaning=meaning, noun=usage.noun)


def check_get_and_set_params(name: str, instance: Any, usage: Usage) -> None:
    """Check that `set_params` stores, and that `get_params` returns what is stored."""
    parameters, fresh = instance.get_params(deep=False), clone(instance)
    returned = fresh.set_params(**parameters)
    demand(returned is fresh, f"{name}.set_params: expected the object itself, got {returned!r}.")
    # By identity: scikit-learn's clone relies on it.
    changed = [key for key, value in fresh.get_params(deep=False).items() if value is not parameters.get(key)]
    demand(not changed, f"{name}.set_params(**get_params()): expected the same parameters, got others for {changed}.")
    for parameter in parameters:
        fresh, marker = clone(instance), object()
        try:
            fresh.set_params(**{parameter: marker})
        except (TypeError, ValueError):
            continue  # set_params may refuse a value
        stored = fresh.get_params(deep=False).get(parameter)
        demand(
            stored is marker,
            f"{name}.get_params: expected the value that set_params was given, got {parameter}={stored!r}.",
        )


def check_init_only_stores(name: str, instance: Any, usage: Usage) -> None:
    """Check that ``__init__`` stores its parameters unchanged under their names, and nothing else."""
    parameters = instance.get_params(deep=False)
    made = type(instance)(**parameters)
    changed = [key for key, value in parameters.items() if getattr(made, key, None) is not value]
    demand(not changed, f"{name}.__init__: expected parameters stored as given, got {changed} changed or missing.")
    # get_params of one's own may leave out a parameter, which clone then loses.
    accepted = inspect.signature(type(instance)).parameters.values()
    named = {
        parameter.name
        for parameter in accepted
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    missing = sorted(named - set(parameters))
    demand(not missing, f"{name}.get_params: expected all parameters of __init__, got none named {missing}.")
    added = sorted(_attributes(made) - set(parameters))
    demand(not added, f"{name}.__init__: expected parameters alone, got {added} as well; set them in fit.")


def check_keeps_parameters(name: str, instance: Any, usage: Usage) -> None:
    """Check that parameters are the same objects with the same content after the object was used."""
    fresh = fresh_copy(instance)
    # The hash finds a list that was changed in place.
    before = {key: (value, joblib.hash(value)) for key, value in fresh.get_params(deep=False).items()}
    usage.run(fresh)
    after = fresh.get_params(deep=False)
    changed = [
        key for key, (value, content) in before.items() if after[key] is not value or joblib.hash(after[key]) != content
    ]
    # Augmentations have no fit.
    method = usage.fit_method if hasattr(instance, usage.fit_method) else usage.result_method
    demand(
        not changed,
        f"{name}.{method}: expected parameters as before, got changes in {changed}; clone what is fitted, and let the "
        "names of what is learned end in an underscore.",
    )


def check_set_params_after_fit(name: str, instance: Any, usage: Usage) -> None:
    """Check that `set_params` changes no result before the next `fit`."""
    data = usage.new_data(instance)
    expected = usage.result(usage.fitted(instance), data)
    for parameter in instance.get_params(deep=False):
        fitted = usage.fitted(instance)
        try:
            # No code can use this value, so any use of the parameter is found.
            fitted.set_params(**{parameter: object()})
        except (TypeError, ValueError):
            continue  # set_params may refuse a value
        given = f"another {parameter} in set_params after fit"
        advice = f"keep the value of fit, such as self.{parameter}_ = self.{parameter}"
        try:
            got = usage.result(fitted, data)
        except Exception as error:
            raise AssertionError(
                f"{name}.{usage.result_method}: expected the {usage.noun} of before, got {type(error).__name__}: "
                f"{error}, given {given}; {advice}."
            ) from error
        demand_same(name, got, expected, given=given, meaning=f"the {usage.noun} of before", noun=usage.noun)


def _attributes(instance: Any) -> set[str]:
    return set(getattr(instance, "__dict__", ()))


# Not the last one, which only objects that learn can pass.
CHECKS = (check_clone, check_get_and_set_params, check_init_only_stores, check_keeps_parameters)
