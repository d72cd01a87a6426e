"""What follows from a score and a threshold, for every detector."""

import os
from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import OutlierMixin

from skdfb.calibration import ConformalCalibrator
from skdfb.detector._outputs import for_readable
from skdfb.detector._parts import Scores
from skdfb.persistence import save

__all__ = ["ThresholdedDetector"]


class ThresholdedDetector(OutlierMixin, ABC):
    """Decisions and p-values of a detector that scores samples, images or rows of features.

    Its ``fit`` sets ``offset_``, the threshold, and ``calibrator_``.
    """

    offset_: float
    calibrator_: ConformalCalibrator

    @abstractmethod
    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from in-distribution samples and set the threshold."""

    @abstractmethod
    def score_samples(self, X: Any) -> Scores:
        """Return the score of each sample; higher is more in-distribution."""

    def fit_predict(self, X: Any, y: Any = None) -> npt.NDArray[np.intp]:
        """Return ``fit(X, y).predict(X)``: samples of the training set that score below the threshold get -1.

        Parameters
        ----------
        X, y
            As in :meth:`fit`; the labels are used, unlike in scikit-learn's other outlier detectors.

        Returns
        -------
        labels : ndarray of shape (n,)
            +1 in-distribution, -1 OOD.
        """
        return self.fit(X, y).predict(X)

    def decision_function(self, X: Any) -> Scores:
        """Return ``score_samples(X) - offset_``.

        Parameters
        ----------
        X : images or array-like of features
            n samples, as in :meth:`fit`.

        Returns
        -------
        decisions : ndarray of shape (n,)
            Higher is more in-distribution; negative is OOD.
        """
        decisions: Scores = self.score_samples(X) - self.offset_
        return decisions

    def predict(self, X: Any) -> npt.NDArray[np.intp]:
        """Tell in-distribution from OOD samples.

        Parameters
        ----------
        X : images or array-like of features
            n samples, as in :meth:`fit`.

        Returns
        -------
        labels : ndarray of shape (n,)
            +1 in-distribution, -1 OOD.
        """
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def p_values(self, X: Any) -> Scores:
        """Return conformal p-values.

        Parameters
        ----------
        X : images or array-like of features
            n samples, as in :meth:`fit`.

        Returns
        -------
        p_values : ndarray of shape (n,)
            In (0, 1]; an in-distribution sample gets one of at most a with probability at most a. ``predict`` rejects
            where it is at most ``alpha``.
        """
        scores = {"joint": self.score_samples(X)}
        return for_readable(lambda parts: self.calibrator_.p_values(parts["joint"]), scores)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the detector to a file; see :func:`skdfb.save`, and :func:`skdfb.load` for the way back.

        Parameters
        ----------
        path : path
            The file, usually ``*.safetensors``.
        """
        save(self, path)
