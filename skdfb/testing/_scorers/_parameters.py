"""Checks of scorers that have parameters in scikit-learn's way."""

import inspect
from typing import Any

import joblib
from sklearn.base import clone

from skdfb.testing._scorers._data import training_data
from skdfb.testing._scorers._demands import demand, fitted_copy, fresh_copy


def check_scorer_clone(name: str, scorer: Any) -> None:
    """Check that `clone` gives an unfitted scorer with the same parameters."""
    parameters = scorer.get_params(deep=False)
    copy = clone(fitted_copy(scorer))
    fitted = sorted(_attributes(copy) - _attributes(clone(scorer)))
    demand(not fitted, f"{name} has {fitted} after clone, given a fitted one; wanted what its __init__ stores alone.")
    cloned = copy.get_params(deep=False)
    demand(
        type(copy) is type(scorer) and set(cloned) == set(parameters),
        f"{name} has the parameters {sorted(parameters)}, and its clone {sorted(cloned)}; wanted the same.",
    )


def check_scorer_get_and_set_params(name: str, scorer: Any) -> None:
    """Check that `set_params` stores, and that `get_params` gives back what is stored."""
    parameters, fresh = scorer.get_params(deep=False), clone(scorer)
    returned = fresh.set_params(**parameters)
    demand(returned is fresh, f"{name}.set_params returned {returned!r}, given parameters; wanted the scorer itself.")
    changed = [key for key, value in fresh.get_params(deep=False).items() if value is not parameters.get(key)]
    demand(not changed, f"{name}.set_params(**get_params()) changed {changed}; wanted the parameters as before.")
    for parameter in parameters:
        fresh, marker = clone(scorer), object()
        try:
            fresh.set_params(**{parameter: marker})
        except (TypeError, ValueError):
            continue  # refused already here
        stored = fresh.get_params(deep=False).get(parameter)
        demand(
            stored is marker,
            f"{name}.get_params gave {parameter}={stored!r}, given another to set_params before; wanted what was set.",
        )


def check_scorer_init_only_stores(name: str, scorer: Any) -> None:
    """Check that ``__init__`` stores its parameters under their names, as they are, and nothing else."""
    parameters = scorer.get_params(deep=False)
    made = type(scorer)(**parameters)
    changed = [key for key, value in parameters.items() if getattr(made, key, None) is not value]
    demand(not changed, f"{name}.__init__ changed or left out {changed}; wanted each stored as it was given.")
    accepted = inspect.signature(type(scorer)).parameters.values()
    named = {
        parameter.name
        for parameter in accepted
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    missing = sorted(named - set(parameters))
    demand(not missing, f"{name}.get_params leaves out {missing} of __init__; wanted all of them.")
    added = sorted(_attributes(made) - set(parameters))
    demand(not added, f"{name}.__init__ set {added} besides its parameters; wanted that in fit.")


def check_scorer_fit_keeps_parameters(name: str, scorer: Any) -> None:
    """Check that `fit` returns the scorer and leaves its parameters alone."""
    fresh = fresh_copy(scorer)
    before = {key: (value, joblib.hash(value)) for key, value in fresh.get_params(deep=False).items()}
    returned = fresh.fit(*training_data(scorer))
    demand(returned is fresh, f"{name}.fit returned {returned!r}, given images; wanted the scorer itself.")
    after = fresh.get_params(deep=False)
    changed = [
        key for key, (value, content) in before.items() if after[key] is not value or joblib.hash(after[key]) != content
    ]
    demand(
        not changed,
        f"{name}.fit changed its parameters {changed}; wanted them as given: clone what is fitted, and end the names "
        "of what is learned in an underscore.",
    )


def _attributes(scorer: Any) -> set[str]:
    return set(getattr(scorer, "__dict__", ()))
