"""Decisions, labels and p-values that follow from a joint score, shared by all detectors."""

import os
import warnings
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import OutlierMixin
from sklearn.utils import check_consistent_length
from sklearn.utils._param_validation import validate_parameter_constraints
from sklearn.utils.validation import check_is_fitted

from skdfb.calibration import ConformalCalibrator
from skdfb.images import label_array, label_places, shown
from skdfb.persistence import save
from skdfb.scoring import JointScore
from skdfb.utils import shallow_copy

__all__ = ["Scores", "ThresholdedDetector", "warn_of_unknown_class"]

Scores = npt.NDArray[np.float64]


class ThresholdedDetector(OutlierMixin, ABC):
    """A detector of samples: images, or rows of features. Its ``fit`` sets ``classes_`` and ``joint_score_``."""

    _parameter_constraints: ClassVar[dict[str, Any]]

    alpha: float | None
    classes_: npt.NDArray[Any]
    joint_score_: JointScore

    @abstractmethod
    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from in-distribution samples and set the threshold."""

    @abstractmethod
    def score_samples(self, X: Any) -> Scores:
        """Return the score of each sample; higher is more in-distribution."""

    @abstractmethod
    def classify(self, X: Any) -> npt.NDArray[Any]:
        """Return the most probable label of each sample."""

    @abstractmethod
    def score_and_classify(self, X: Any) -> tuple[Scores, npt.NDArray[Any]]:
        """Return the scores and the labels of samples, from one pass over them."""

    # ------------------------------------------------------- fitted attributes

    @property
    def offset_(self) -> float:
        """The threshold: ``decision_function = score_samples - offset_``."""
        return float(self.joint_score_.offset_)

    @property
    def calibrator_(self) -> ConformalCalibrator:
        """The fitted calibrator, with the scores of the held-out samples."""
        calibrator: ConformalCalibrator = self.joint_score_.calibrator_
        return calibrator

    @property
    def scorer_(self) -> Any:
        """The fitted scorer of the first part."""
        return self.joint_score_.parts_[0][2]

    # ------------------------------------------------------------- decisions

    def fit_predict(self, X: Any, y: Any = None, **fit_params: Any) -> npt.NDArray[np.intp]:
        """Return ``fit(X, y, **fit_params).predict(X)``: training samples that score below the threshold get -1.

        Parameters
        ----------
        X : images or array-like of features
            As in :meth:`fit`.
        y : array-like of shape (n,), default=None
            Labels. They are used, unlike in scikit-learn's other outlier detectors.
        **fit_params : dict
            More of :meth:`fit`, such as ``groups``.

        Returns
        -------
        labels : ndarray of shape (n,)
            +1 in-distribution, -1 OOD.
        """
        return self.fit(X, y, **fit_params).predict(X)

    def decision_function(self, X: Any) -> Scores:
        """Return ``score_samples(X) - offset_``.

        Parameters
        ----------
        X : images or array-like of features
            The n samples, as in :meth:`fit`.

        Returns
        -------
        decisions : ndarray of shape (n,)
            Higher is more in-distribution; negative is OOD.
        """
        decisions: Scores = self.score_samples(X) - self.offset_
        return decisions

    def predict(self, X: Any) -> npt.NDArray[np.intp]:
        """Predict which samples are in-distribution.

        Parameters
        ----------
        X : images or array-like of features
            The n samples, as in :meth:`fit`.

        Returns
        -------
        labels : ndarray of shape (n,)
            +1 in-distribution, -1 OOD.
        """
        # The comparison is false for NaN: an image that could not be read is not accepted.
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def p_values(self, X: Any) -> Scores:
        """Return conformal p-values.

        Parameters
        ----------
        X : images or array-like of features
            The n samples, as in :meth:`fit`.

        Returns
        -------
        p_values : ndarray of shape (n,)
            In (0, 1]; an in-distribution sample gets a p-value of at most a with probability at most a. ``predict``
            rejects where it is at most ``alpha``.
        """
        scores = self.score_samples(X)
        return self.joint_score_.p_values(scores)

    def predict_open_set(self, X: Any, unknown_label: Any = None) -> npt.NDArray[Any]:
        """Return the most probable label of in-distribution samples, and ``unknown_label`` for the others.

        Parameters
        ----------
        X : images or array-like of features
            The n samples, as in :meth:`fit`.
        unknown_label : label, default=None
            Must not be a class. None is -1, or "unknown" if the classes are strings; if there is such a class, ``fit``
            warns.

        Returns
        -------
        labels : ndarray of shape (n,)
            Of dtype object if strings and numbers are mixed, or if classes are booleans. Images that cannot be read,
            with ``on_error="nan"``, get ``unknown_label``.

        Raises
        ------
        ValueError
            If ``unknown_label`` is one of ``classes_``.
        """
        check_is_fitted(self)
        # The label has the type of the classes, so that the result has one type.
        if unknown_label is None:
            unknown_label, other = _unknown_labels(self.classes_)
            if other is not None:
                raise ValueError(
                    f"unknown_label is None, which means {unknown_label!r}, but {unknown_label!r} is one of classes_: "
                    f"expected a label of no class; pass predict_open_set(X, unknown_label={other!r})."
                )
        if unknown_label in self.classes_.tolist():
            raise ValueError(f"unknown_label={shown(unknown_label)} is one of classes_: expected a label of no class.")
        scores, labels = self.score_and_classify(X)
        known, unknown = scores >= self.offset_, np.asarray(unknown_label)
        # Otherwise NumPy would turn numbers into strings, and False into 0.
        if (labels.dtype.kind in "US") != (unknown.dtype.kind in "US") or labels.dtype.kind == "b":
            labels = labels.astype(object)
        return np.where(known, labels, unknown)

    def _accuracy(self, X: Any, y: Any, found: npt.NDArray[Any] | None = None) -> float:
        """Return the share of samples whose label :meth:`classify` finds, or has found."""
        if y is None:
            raise ValueError("y is None: expected the label of each sample.")
        # Not an error: cross-validation without stratification may leave a class out of a small part.
        labels = label_places(label_array(y), self.classes_)
        n_unseen = int((labels < 0).sum())
        if n_unseen:
            warnings.warn(
                f"{n_unseen} of {len(labels)} labels are of classes that were not in fit, and count as wrong. In cross-"
                "validation, pass cv=StratifiedKFold() so that each class is in each part.",
                UserWarning,
                stacklevel=3,
            )
        predicted = label_places(self.classify(X) if found is None else found, self.classes_)
        check_consistent_length(labels, predicted)
        return float(np.mean(labels == predicted))

    def with_alpha(self, alpha: float | None) -> Self:
        """Return a detector with the threshold for another ``alpha``; every score stays as it is.

        The threshold comes from the held-out scores that the detector keeps, so no samples are needed. It works on a
        loaded detector, too.

        Parameters
        ----------
        alpha : float or None
            Largest probability of rejecting an in-distribution sample, in (0, 1); None sets no threshold.

        Returns
        -------
        detector : detector
            A new one, which shares everything else with this one. This one stays as it is.

        Raises
        ------
        ValueError
            If ``alpha`` is no such number, or if the kept held-out scores are too few for it.
        """
        check_is_fitted(self)
        other = shallow_copy(self, fitted_state=True)
        # The parameter too, so that a clone or a refit has the same alpha.
        other.alpha = alpha
        other._validate("alpha")
        other.joint_score_ = self.joint_score_.with_alpha(alpha)
        return other

    def _validate(self, *names: str) -> None:
        """Refuse wrong values of some parameters, in scikit-learn's words."""
        values = {name: getattr(self, name) for name in names}
        validate_parameter_constraints(self._parameter_constraints, values, type(self).__name__)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the detector to a file; see :func:`skdfb.save`, and :func:`skdfb.load` for reading it.

        Parameters
        ----------
        path : path
            The file, usually ``*.safetensors``.
        """
        save(self, path)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "joint_score_")


def warn_of_unknown_class(classes: npt.NDArray[Any]) -> None:
    """Warn in ``fit`` if a class has the label that ``predict_open_set`` gives to OOD samples by default."""
    label, other = _unknown_labels(classes)
    if other is not None:
        warnings.warn(
            f"{label!r} is a class, so predict_open_set needs another label for images of no class: pass "
            f"predict_open_set(X, unknown_label={other!r}). If {label!r} stands for images of no class, leave these "
            "out of fit.",
            UserWarning,
            stacklevel=6,
        )


def _unknown_labels(classes: npt.NDArray[Any]) -> tuple[Any, Any]:
    """Return the default label of samples of no class and, if it is a class, another one that is none."""
    labels = classes.tolist()
    default: Any = "unknown"
    other: Any = "none" if "none" not in labels else "none of these"
    if isinstance(labels[0], int | float):
        default, other = -1, min(labels) - 1
    return default, other if default in labels else None
