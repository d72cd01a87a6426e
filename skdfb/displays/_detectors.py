"""What displays take from detectors of any kind, and sets of scores."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from skdfb.utils import check_scores, last_step, scoring_method

__all__ = ["check_sets", "method_of", "readable_scores", "scores_of", "threshold_of"]


def method_of(estimator: Any, name: str) -> Any:
    """Return a method of an estimator; raise TypeError if it has none of this name."""
    if not hasattr(estimator, name):
        raise TypeError(f"estimator={estimator!r} has no {name}: expected a fitted detector with it.")
    return getattr(estimator, name)


def scores_of(estimator: Any, X: Any) -> npt.NDArray[np.floating]:
    """Return scores of images, higher for in-distribution ones."""
    scores: npt.NDArray[np.floating] = np.asarray(scoring_method(estimator)(X))
    return scores


def threshold_of(estimator: Any) -> float | None:
    """Return the threshold of :func:`scores_of`; None if there is none."""
    if not hasattr(estimator, "score_samples"):
        return 0.0
    # Pipelines and parameter searches have the scores of their last step, but not its threshold.
    step, _ = last_step(estimator)
    return float(step.offset_) if hasattr(step, "offset_") else None


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
