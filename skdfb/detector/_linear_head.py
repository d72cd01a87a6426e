"""The linear head of a detector on features: given by the user, or fitted."""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.linear_model import LogisticRegression
from sklearn.utils import assert_all_finite, gen_batches

from skdfb.images import shown
from skdfb.utils import temporary_array

__all__ = ["Features", "LinearHead", "checked_head", "fitted_head"]

Features = npt.NDArray[np.float32] | npt.NDArray[np.float64]

_LARGE = 2**24  # numbers that are computed in float64 at once: 128 MiB


class LinearHead(NamedTuple):
    """Weight and bias of a linear layer: the logits are ``X @ weight.T + bias``."""

    weight: Features  # (K, C)
    bias: Features  # (K,)


def checked_head(head: Any, classes: npt.NDArray[Any], n_features: int) -> Any:
    """Return a head of K rows, or the unfitted classifier (None for the default) if the head has to be fitted."""
    if isinstance(head, tuple | list):
        return _given_head(head, classes, n_features)
    expected = "expected None, a linear classifier with coef_ and intercept_, or a tuple (weight, bias[, labels])"
    is_estimator = isinstance(head, BaseEstimator)  # an instance, not a class
    if head is not None and not (is_estimator and is_classifier(head) and hasattr(head, "decision_function")):
        raise TypeError(f"head={head!r}: {expected}.")
    # A single class needs no classifier: its only logit is the constant 1.
    if len(classes) == 1:
        return LinearHead(np.zeros((1, n_features)), np.ones(1))
    return head


def _given_head(head: Any, classes: npt.NDArray[Any], n_features: int) -> LinearHead:
    """Return the head (weight, bias[, labels]) of a network, with its rows in the order of the classes."""
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
                f"head has {len(weight)} rows and y has {len(classes)} class(es): expected one row per class. Pass "
                "the label of each row, head=(weight, bias, labels), to drop the rows of classes that are not in y."
            )
        return LinearHead(weight, bias)
    rows = _rows_of_classes(classes.tolist(), np.asarray(head[2]).tolist(), len(weight))
    return LinearHead(weight[rows], bias[rows])


def _rows_of_classes(classes: list[Any], labels: Any, n_rows: int) -> list[int]:
    """Return the row of the head for each class, found by the labels of the rows."""
    if not isinstance(labels, list) or len(labels) != n_rows or len(set(labels)) != n_rows:
        raise ValueError(
            f"head has {n_rows} rows and the labels {shown(labels)}: expected one different label per row."
        )
    row_of = {label: row for row, label in enumerate(labels)}
    missing = [label for label in classes if label not in row_of]
    if missing:
        raise ValueError(
            f"head has no row for the class {shown(missing[0])} of y ({len(missing)} missing): expected each class of "
            f"y among its labels, got {shown(labels)}."
        )
    return [row_of[label] for label in classes]


def _float_array(array: Any) -> Features:
    """Return an array of float32 if its own type is a float of at most 32 bits, else of float64."""
    # Scorers derive the size of rounding errors in a weight from its type, so float32 must not be cast to float64.
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu()
        # NumPy has no bfloat16.
        array = (array.float() if array.dtype == torch.bfloat16 else array).numpy()
    array = np.asarray(array)
    is_single = array.dtype.kind == "f" and array.dtype.itemsize <= 4
    floats: Features = array.astype(np.float32 if is_single else np.float64)
    return floats


def fitted_head(head: Any, X: Features, labels: npt.NDArray[Any]) -> LinearHead:
    """Fit a linear classifier on X (n, C) and return its head; None is a logistic regression on scaled features."""
    if head is not None:
        return _head_of(clone(head).fit(X, labels), X)
    scaled, mean, scale = _scaled(X)
    weight, bias = _head_of(LogisticRegression(max_iter=1000).fit(scaled, labels), scaled)
    # Centring and scaling become part of the head, which then takes X itself.
    weight = weight / scale
    return LinearHead(weight, bias - weight @ mean)


def _scaled(X: Features) -> tuple[Features, npt.NDArray[np.float64], float]:
    """Return (X - mean) / scale, the mean (C,) and the scale; the first is mapped to a file if it is large."""
    parts = list(gen_batches(len(X), max(1, _LARGE // X.shape[1])))
    mean: npt.NDArray[np.float64] = X.mean(axis=0, dtype=np.float64)
    # One scale for all features. A scale per feature would enlarge features that hardly vary in training, so that they
    # would dominate the logits of OOD rows in which they do vary.
    scale = math.sqrt(sum(float(np.square(X[rows] - mean).sum()) for rows in parts) / X.size) or 1.0
    scaled: Any = temporary_array(X.shape, X.dtype)
    for rows in parts:
        scaled[rows] = (X[rows] - mean) / scale
    return scaled, mean, scale


def _head_of(classifier: Any, X: Features) -> LinearHead:
    """Return weight (K, C) and bias (K,) of a fitted linear classifier; refuse a classifier that is not linear."""
    K, rows = len(classifier.classes_), X[:100]  # some rows, to compare the head with the classifier
    # 1. Read the coefficients. A binary classifier has one row.
    n_rows = 1 if K == 2 else K
    weight = np.atleast_2d(np.asarray(getattr(classifier, "coef_", np.nan), dtype=np.float64))
    bias = np.ravel(getattr(classifier, "intercept_", np.nan)).astype(np.float64)
    if weight.shape != (n_rows, X.shape[1]) or bias.size not in (1, n_rows):
        raise _not_linear(classifier)
    weight, bias = _without_rounding(weight), np.broadcast_to(bias, n_rows)
    if K == 2:
        # The softmax of the rows -w/2 and w/2 is the sigmoid of w.
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    # 2. Compare the logits with the decisions of the classifier. Its classes are compared as well, because a one-
    # against-one classifier has one row per pair, and three classes have three pairs.
    logits, decisions = rows @ weight.T + bias, classifier.decision_function(rows)
    margin = logits[:, 1] - logits[:, 0] if K == 2 else logits
    tolerance = 1e-3 * np.abs(decisions).max()  # wide enough for float32
    same_classes = np.array_equal(classifier.classes_[decisions.argmax(1)], classifier.predict(rows)) if K > 2 else True
    if not (same_classes and np.allclose(margin, decisions, rtol=0, atol=tolerance)):
        raise _not_linear(classifier)
    return LinearHead(weight, bias)


def _without_rounding(weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the weight without its smallest singular values, which come from the rounding of the fit."""
    # The rows of a fitted softmax head sum to 0 up to rounding, so one singular value is almost 0. Scorers that invert
    # the weight would enlarge it.
    U, singular_values, Vt = np.linalg.svd(weight, full_matrices=False)
    kept = singular_values > 1e-5 * singular_values.max()
    return weight if kept.all() else (U[:, kept] * singular_values[kept]) @ Vt[kept]


def _not_linear(classifier: Any) -> ValueError:
    return ValueError(
        f"head={classifier!r} is not linear: expected a classifier like LogisticRegression, whose decision_function "
        "is X @ coef_.T + intercept_ with one row per class."
    )
