"""What displays take from detectors of any kind, and sets of scores."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from skdfb.utils import check_scores

__all__ = ["check_sets", "method_of", "readable_scores", "scores_of", "threshold_of"]


def method_of(estimator: Any, *names: str) -> Any:
    """Return the first of these methods that an estimator has.

    Raises
    ------
    TypeError
        If it has none of them.
    """
    for name in names:
        if hasattr(estimator, name):
            return getattr(estimator, name)
    raise TypeError(f"estimator={estimator!r} has no {' and no '.join(names)}: expected a fitted detector with it.")


def scores_of(estimator: Any, X: Any) -> npt.NDArray[np.floating]:
    """Return scores of images, higher for in-distribution ones."""
    scores: npt.NDArray[np.floating] = np.asarray(method_of(estimator, "score_samples", "decision_function")(X))
    return scores


def threshold_of(estimator: Any) -> float | None:
    """Return the threshold of :func:`scores_of`; None if there is none."""
    if not hasattr(estimator, "score_samples"):
        return 0.0
    # Pipelines and parameter searches have the scores of their last step, but not its threshold.
    step = estimator
    while not hasattr(step, "offset_"):
        if hasattr(step, "best_estimator_"):
            step = step.best_estimator_
        elif hasattr(step, "steps"):
            step = step.steps[-1][1]
        else:
            return None
    return float(step.offset_)


def check_sets(sets: Any, name: str) -> None:
    """Refuse what is not a mapping of the name of a set to the set."""
    if not isinstance(sets, Mapping) or len(sets) == 0:
        given = "an empty mapping" if isinstance(sets, Mapping) else f"a {type(sets).__name__}"
        raise TypeError(f"{name} is {given}: expected a mapping from the name of each set, like {name}={{'noise': X}}.")


def readable_scores(scores: npt.ArrayLike, name: str) -> tuple[npt.NDArray[np.float64], int]:
    """Return the scores that are not NaN, and how many are: images that could not be read have no score."""
    array = np.asarray(scores)
    missing = np.isnan(array) if array.dtype.kind == "f" else np.zeros(array.shape, dtype=bool)
    if array.ndim == 1 and missing.any() and not missing.all():
        array = array[~missing]
    return check_scores(array, name, allow_infinite=True), int(missing.sum())
