"""The linear head of a detector on features: given, or fitted."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.linear_model import LogisticRegression
from sklearn.utils import assert_all_finite

__all__ = ["Features", "LinearHead", "checked_head", "fitted_head"]

Features = npt.NDArray[np.float32] | npt.NDArray[np.float64]


class LinearHead(NamedTuple):
    """Logits are ``X @ weight.T + bias``."""

    weight: Features  # (K, C)
    bias: Features  # (K,)


def checked_head(head: Any, classes: npt.NDArray[Any], n_features: int) -> Any:
    """Return a head of K rows, or an unfitted classifier or None, if the head has to be fitted first."""
    if isinstance(head, tuple | list):
        return _given_head(head, classes, n_features)
    expected = "expected None, a linear classifier with coef_ and intercept_, or a tuple (weight, bias[, labels])"
    is_estimator = isinstance(head, BaseEstimator)  # and no class
    if head is not None and not (is_estimator and is_classifier(head) and hasattr(head, "decision_function")):
        raise TypeError(f"head={head!r}: {expected}.")
    if len(classes) == 1:
        return LinearHead(np.zeros((1, n_features)), np.ones(1))
    return head


def _given_head(head: Any, classes: npt.NDArray[Any], n_features: int) -> LinearHead:
    """Return the rows of a network's head in the order of the classes."""
    if len(head) not in (2, 3):
        raise ValueError(f"head has {len(head)} items: expected (weight, bias) or (weight, bias, labels).")
    weight, bias = (_float_array(array) for array in head[:2])
    if weight.ndim != 2 or weight.shape[1] != n_features or bias.shape != weight.shape[:1]:
        raise ValueError(
            f"head has a weight of shape {weight.shape} and a bias of shape {bias.shape}: expected (K, {n_features}) "
            "and (K,), the layer that takes these features."
        )
    for array in (weight, bias):
        assert_all_finite(array, input_name="head")
    if len(head) == 2:
        if len(weight) != len(classes):
            raise ValueError(
                f"head has {len(weight)} rows, and y has {len(classes)} class(es): expected one row per class. Pass "
                "the label of each row, head=(weight, bias, labels), so that rows of classes not in y are dropped."
            )
        return LinearHead(weight, bias)
    rows = _rows_of_classes(classes.tolist(), np.asarray(head[2]).tolist(), len(weight))
    return LinearHead(weight[rows], bias[rows])


def _rows_of_classes(classes: list[Any], labels: Any, n_rows: int) -> list[int]:
    if not isinstance(labels, list) or len(labels) != n_rows or len(set(labels)) != n_rows:
        raise ValueError(
            f"head has {n_rows} rows with the labels {labels!r}: expected one label per row, no two equal."
        )
    row_of = {label: row for row, label in enumerate(labels)}
    missing = [label for label in classes if label not in row_of]
    if missing:
        raise ValueError(
            f"head has no row for the class {missing[0]!r} of y ({len(missing)} missing); its labels are {labels!r}."
        )
    return [row_of[label] for label in classes]


def _float_array(array: Any) -> Features:
    """Return an array as float32 if it is at most that precise, else as float64.

    Scorers judge by the type how much of a weight is rounding, so float32 must not become float64.
    """
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu()
        array = (array.float() if array.dtype == torch.bfloat16 else array).numpy()
    array = np.asarray(array)
    is_single = array.dtype.kind == "f" and array.dtype.itemsize <= 4
    floats: Features = array.astype(np.float32 if is_single else np.float64)
    return floats


def fitted_head(head: Any, X: Features, labels: npt.NDArray[Any]) -> LinearHead:
    """Fit a linear classifier and return its head."""
    if head is not None:
        return _head_of(clone(head).fit(X, labels), X)
    mean = X.mean(axis=0, dtype=np.float64)
    # One scale for all features: a scale per feature would blow up features that hardly vary, and with them the
    # logits of OOD rows.
    scale = np.sqrt(X.var(axis=0, dtype=np.float64).mean()) or 1.0
    scaled = ((X - mean) / scale).astype(X.dtype)
    weight, bias = _head_of(LogisticRegression(max_iter=1000).fit(scaled, labels), scaled)
    weight = weight / scale  # as a function of X
    return LinearHead(weight, bias - weight @ mean)


def _head_of(classifier: Any, X: Features) -> LinearHead:
    """Return weight and bias of a fitted linear classifier, with one row per class."""
    K, rows = len(classifier.classes_), X[:100]
    n_rows = 1 if K == 2 else K
    weight = np.atleast_2d(np.asarray(getattr(classifier, "coef_", np.nan), dtype=np.float64))
    bias = np.ravel(getattr(classifier, "intercept_", np.nan)).astype(np.float64)
    if weight.shape != (n_rows, X.shape[1]) or bias.size not in (1, n_rows):
        raise _not_linear(classifier)
    weight, bias = _without_rounding(weight), np.broadcast_to(bias, n_rows)
    if K == 2:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    # One against one has one row per pair, as many as classes if there are three: so the classes are compared, too.
    logits, decisions = rows @ weight.T + bias, classifier.decision_function(rows)
    margin = logits[:, 1] - logits[:, 0] if K == 2 else logits
    tolerance = 1e-3 * np.abs(decisions).max()  # wide enough for float32
    same_classes = np.array_equal(classifier.classes_[decisions.argmax(1)], classifier.predict(rows)) if K > 2 else True
    if not (same_classes and np.allclose(margin, decisions, rtol=0, atol=tolerance)):
        raise _not_linear(classifier)
    return LinearHead(weight, bias)


def _without_rounding(weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return a weight whose smallest singular values are 0 if they are rounding errors of the fit.

    The rows of a softmax head sum to 0, up to rounding. Scorers that invert the weight would blow up these errors.
    """
    U, singular_values, Vt = np.linalg.svd(weight, full_matrices=False)
    kept = singular_values > 1e-5 * singular_values.max()
    return weight if kept.all() else (U[:, kept] * singular_values[kept]) @ Vt[kept]


def _not_linear(classifier: Any) -> ValueError:
    return ValueError(
        f"head={classifier!r} is not linear: its decision_function is not X @ coef_.T + intercept_ with one row per "
        "class. Expected a classifier like LogisticRegression."
    )
