"""Helpers for estimators."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, ClassVar, Self, TypeVar

from sklearn.pipeline import Pipeline
from sklearn.utils.metaestimators import _BaseComposition

__all__ = ["NestedByName", "last_step", "numbered", "scoring_method", "shallow_copy"]

Estimator = TypeVar("Estimator")


def numbered(names: Sequence[str], separator: str) -> list[str]:
    """Append a number from 1 up to each name that occurs more than once."""
    return [
        name if names.count(name) == 1 else f"{name}{separator}{names[: place + 1].count(name)}"
        for place, name in enumerate(names)
    ]


def shallow_copy(estimator: Estimator, *, fitted_state: bool) -> Estimator:
    """Return an estimator that shares the attributes, or only the parameters.

    An estimator that fits such a copy and takes over its state at the end does not change if the fit fails.

    Parameters
    ----------
    estimator : estimator
        It is not changed.
    fitted_state : bool
        Whether the copy has the attributes that end in ``_``.

    Returns
    -------
    other : estimator
        Of the same class.
    """
    # Not by copy.copy, which leaves out what __getstate__ leaves out for pickling.
    other = object.__new__(type(estimator))
    other.__dict__ = {name: value for name, value in vars(estimator).items() if fitted_state or not name.endswith("_")}
    return other


def last_step(detector: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return the last step of pipelines and parameter searches, and the function that transforms X into its input.

    Pipelines and searches have the scores of their last step, but neither its ``offset_`` nor its ``classify``.
    """
    before = []
    # They can be nested: a search of a pipeline that ends in another pipeline.
    while isinstance(detector, Pipeline) or hasattr(detector, "best_estimator_"):
        if isinstance(detector, Pipeline):
            before += [detector[:-1]] if len(detector) > 1 else []
            detector = detector[-1]
        else:
            detector = detector.best_estimator_
    return detector, lambda X: reduce(lambda X, steps: steps.transform(X), before, X)


def scoring_method(estimator: Any) -> Any:
    """Return the method that scores images, higher for in-distribution ones.

    It is ``score_samples``, or ``decision_function`` if there is no ``score_samples``.
    """
    for name in ("score_samples", "decision_function"):
        if hasattr(estimator, name):
            return getattr(estimator, name)
    raise TypeError(
        f"{estimator!r} has neither score_samples nor decision_function: expected a detector, or a pipeline that ends "
        "in one."
    )


class NestedByName(_BaseComposition):
    """An estimator whose nested objects have names, by which ``get_params`` and ``set_params`` reach them.

    The attribute ``_named`` is the name of a property that holds (name, object) pairs, and can be set to others.
    """

    _named: ClassVar[str]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters.

        Parameters
        ----------
        deep : bool, default=True
            Whether to add nested objects by their name, and their parameters as ``name__parameter``.

        Returns
        -------
        params : dict
            Values by name.
        """
        # scikit-learn's compositions take the name of an attribute that holds the pairs.
        params: dict[str, Any] = self._get_params(self._named, deep=deep)
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters, nested objects by their name, or parameters of nested objects.

        Parameters
        ----------
        **params : dict
            Values by name; ``name__parameter`` is a parameter of the nested object of that name.

        Returns
        -------
        self : estimator
            The estimator itself.
        """
        self._set_params(self._named, **params)
        return self
