"""Scores and labels of any detector: scikit-learn's, a third party's, or one inside a pipeline or a search."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.pipeline import Pipeline
from sklearn.utils import column_or_1d

__all__ = ["can_classify", "checked_labels", "labels_in", "scoring_method", "shown_labels", "unwrapped"]


def unwrapped(detector: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return the last step of pipelines and parameter searches, and a function that transforms their input for it.

    The last step is needed, because pipelines and searches pass on its scores, but neither ``offset_`` nor
    ``classify``.
    """
    # From the outside to the inside; the steps before the last one transform the images in this order.
    before = []
    while isinstance(detector, Pipeline) or hasattr(detector, "best_estimator_"):
        if isinstance(detector, Pipeline):
            before += [detector[:-1]] if len(detector) > 1 else []
            detector = detector[-1]
        else:
            detector = detector.best_estimator_
    return detector, lambda X: reduce(lambda X, steps: steps.transform(X), before, X)


def can_classify(step: Any) -> bool:
    """Return whether a fitted last step can label images with classes."""
    return hasattr(step, "classify") or (hasattr(step, "classes_") and hasattr(step, "predict_proba"))


def labels_in(labels: npt.NDArray[Any], classes: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which labels are one of the classes, shape (n,)."""
    # Not by np.isin, which compares texts if either side has texts, so that 1 is "1".
    known = set(classes.tolist())
    return np.asarray([label in known for label in labels.tolist()], dtype=bool)


def scoring_method(estimator: Any) -> Any:
    """Return the method that scores images, higher for in-distribution: ``score_samples`` or ``decision_function``."""
    for name in ("score_samples", "decision_function"):
        if hasattr(estimator, name):
            return getattr(estimator, name)
    raise TypeError(
        f"{estimator!r} has neither score_samples nor decision_function: expected a detector, or a pipeline that ends "
        "in one."
    )


def shown_labels(classes: Any, most: int = 6) -> str:
    """Return labels as a text for messages, only the first ``most`` of them."""
    shown = ", ".join(map(repr, np.asarray(classes)[:most].tolist()))
    return f"{shown}, ..." if len(classes) > most else shown


def checked_labels(step: Any, y: Any, n_images: int, X_name: str, y_name: str) -> npt.NDArray[Any]:
    """Return the labels of images as an array.

    Raises
    ------
    TypeError
        If the fitted last step ``step`` does not classify.
    ValueError
        If there is not one label per image, or a label is not one of the ``classes_`` of the last step.
    """
    if not can_classify(step):
        raise TypeError(
            f"{y_name} is given, but {step!r} has neither classify nor predict_proba to compare it with: expected "
            f"{y_name}=None."
        )
    labels: npt.NDArray[Any] = column_or_1d(y, warn=True)
    if len(labels) != n_images:
        raise ValueError(
            f"{X_name} has {n_images} images and {y_name} has {len(labels)} labels: expected one label per image."
        )
    # Labels of other classes would count as wrong, although no classifier could be right.
    unseen = ~labels_in(labels, step.classes_)
    if unseen.any():
        others = list(dict.fromkeys(labels[unseen].tolist()))
        raise ValueError(
            f"{y_name} has {unseen.sum()} of {len(labels)} labels that are not classes of the detector, "
            f"{shown_labels(others)}: expected {shown_labels(step.classes_)}. Images of other classes are OOD: move "
            "them to a set of ood."
        )
    return labels
