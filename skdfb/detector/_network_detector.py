"""What a fitted detector says of images; how it became so is in ``_dfb.py``."""

import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted

from skdfb.detector._forward import ForwardPass
from skdfb.detector._outputs import for_readable, run
from skdfb.detector._parts import PartScorers, Scores
from skdfb.detector._thresholded import ThresholdedDetector
from skdfb.detector._views import Views
from skdfb.fusion import Fusion
from skdfb.images import BatchSize, batch_size_of, check_images, labels_given
from skdfb.networks import DenseClassifier
from skdfb.utils import deterministic_algorithms

__all__ = ["NetworkDetector"]


class NetworkDetector(ThresholdedDetector, TransformerMixin, BaseEstimator):
    """Scores, classes and maps of images, by two trained networks and the scorers fitted on them.

    Its ``fit`` learns all that is named here.
    """

    batch_size: int
    n_jobs: int | None
    foreground_pooling: str
    on_error: str
    deterministic: bool
    image_shape: tuple[int, ...] | None

    classes_: npt.NDArray[Any]
    classifier_: DenseClassifier
    network_: DenseClassifier
    fusion_: Fusion
    batch_size_: int
    _parts_: PartScorers
    _group_fusions_: Mapping[str, Fusion]

    # --------------------------------------------------------------- scores

    def score_samples(self, X: Any) -> Scores:
        """Return the joint score of each image.

        Parameters
        ----------
        X : images
            n images.

        Returns
        -------
        scores : ndarray of shape (n,)
            Higher is more in-distribution.
        """
        return self._combine(self.score_parts(X))

    def score_parts(self, X: Any) -> dict[str, Scores]:
        """Return the scores before they are joined.

        Parameters
        ----------
        X : images
            n images.

        Returns
        -------
        parts : dict of str to ndarray of shape (n,)
            ``"foreground"``, or ``"foreground_dense"`` and ``"foreground_plain"``; ``"background"``, or, of several,
            a name each such as ``"background_logit"``. Higher is more in-distribution in each.
        """
        parts: dict[str, Scores] = self._run(X, "parts")[0]
        return parts

    def score_foreground(self, X: Any) -> Scores:
        """Return the foreground's score of each image.

        Parameters
        ----------
        X : images
            n images.

        Returns
        -------
        scores : ndarray of shape (n,)
            The foreground part of :meth:`score_parts`; several are joined by the fusion, fitted on them alone. Higher
            is more in-distribution.
        """
        return self._score_group("foreground", X)

    def score_background(self, X: Any) -> Scores:
        """Return the background's score of each image.

        Parameters
        ----------
        X : images
            n images.

        Returns
        -------
        scores : ndarray of shape (n,)
            The background part of :meth:`score_parts`; several are joined by the fusion, fitted on them alone. Higher
            is more in-distribution.
        """
        return self._score_group("background", X)

    def _score_group(self, group: str, X: Any) -> Scores:
        return self._combine_group(group, self.score_parts(X))

    def _combine_group(self, group: str, parts: dict[str, Scores]) -> Scores:
        names = self._parts_.groups[group]
        if len(names) == 1:
            return parts[names[0]]
        return for_readable(self._group_fusions_[group].combine, {name: parts[name] for name in names})

    # ----------------------------------------------------- classes and maps

    def predict_proba(self, X: Any) -> npt.NDArray[np.floating]:
        """Return the probabilities of the K classes.

        Parameters
        ----------
        X : images
            n images.

        Returns
        -------
        probabilities : ndarray of shape (n, K)
            In the order of ``classes_``; they say nothing of whether an image is in-distribution.
        """
        logits = torch.from_numpy(self._run(X, "logits")[0])
        return logits.softmax(1).numpy()

    def classify(self, X: Any) -> npt.NDArray[Any]:
        """Return the most probable label of each image, whether it is in-distribution or not.

        Parameters
        ----------
        X : images
            n images.

        Returns
        -------
        labels : ndarray of shape (n,)

        Raises
        ------
        skdfb.exceptions.UnreadableImageError
            If an image cannot be read, also with ``on_error="nan"``: there is no label for it.
        """
        return self._labels(self._run(X, "logits", lenient=False)[0])

    def predict_open_set(self, X: Any, unknown_label: Any = None) -> npt.NDArray[Any]:
        """Return the most probable label of in-distribution images, and ``unknown_label`` for the others.

        Parameters
        ----------
        X : images
            n images.
        unknown_label : label, default=None
            Must not be a class. None is -1, or "unknown" where the classes are strings.

        Returns
        -------
        labels : ndarray of shape (n,)
            Of dtype object where strings and numbers meet, or classes are booleans. Images that cannot be read, with
            ``on_error="nan"``, get ``unknown_label``.

        Raises
        ------
        ValueError
            If ``unknown_label`` is one of ``classes_``.
        """
        check_is_fitted(self)
        if unknown_label is None:
            unknown_label = "unknown" if self.classes_.dtype.kind in "OUS" else -1
        if unknown_label in self.classes_.tolist():
            raise ValueError(f"unknown_label={unknown_label!r} is one of classes_; a label of its own is wanted.")
        scores, labels = self._scores_and_labels(X)
        known, unknown = scores >= self.offset_, np.asarray(unknown_label)
        if (labels.dtype.kind in "US") != (unknown.dtype.kind in "US") or labels.dtype.kind == "b":
            labels = labels.astype(object)  # else NumPy would turn numbers to strings, and False to 0
        return np.where(known, labels, unknown)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the accuracy of :meth:`classify`.

        Parameters
        ----------
        X : images
            n in-distribution images.
        y : array-like of shape (n,), default=None
            Their labels; a torch dataset of (image, label) items brings its own.

        Returns
        -------
        accuracy : float
        """
        check_is_fitted(self)
        y = labels_given(X, y)
        if y is None:
            raise ValueError("y is None; the label of each image is wanted.")
        n_unseen = int((~np.isin(np.asarray(y), self.classes_)).sum())
        if n_unseen:
            warnings.warn(
                f"{n_unseen} of {len(y)} labels are of classes that fit did not see, and count as wrong. In cross-"
                "validation, pass cv=StratifiedKFold() so that each class is in each part.",
                UserWarning,
                stacklevel=2,
            )
        return float(accuracy_score(y, self.classify(X)))

    def segment(self, X: Any) -> npt.NDArray[np.float32]:
        """Return class probabilities a pixel.

        Parameters
        ----------
        X : images
            n images.

        Returns
        -------
        probabilities : ndarray of shape (n, H, W, K + 1)
            In the order of ``classes_``, the background last. H, W are the images' own where they come as an array,
            else the network's input size.
        """
        probabilities: npt.NDArray[np.float32] = self._run(X, "segments")[0]
        return probabilities

    def transform(self, X: Any) -> npt.NDArray[np.floating]:
        """Return the pooled features of the dense network.

        Parameters
        ----------
        X : images
            n images.

        Returns
        -------
        features : ndarray of shape (n, C)
        """
        features: npt.NDArray[np.floating] = self._run(X, "features")[0]
        return features

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """Return the names of the columns of :meth:`transform`, shape (C,)."""
        check_is_fitted(self)
        return np.asarray([f"dfb_feature{index}" for index in range(self.network_.num_features)], dtype=object)

    # -------------------------------------------------------------- private

    def _views(self, batch_size: BatchSize) -> Views:
        n_classes, n_jobs = len(self.classes_), self.n_jobs
        dense = ForwardPass(self.network_, n_classes, batch_size, n_jobs, self.foreground_pooling)
        return Views(dense, ForwardPass(self.classifier_, n_classes, batch_size, n_jobs))

    def _run(self, X: Any, *wanted: str, lenient: bool = True) -> list[Any]:
        """Run the networks over X once; see :func:`skdfb.detector._outputs.run`.

        An image that cannot be read raises, unless ``on_error`` and ``lenient`` are for NaN.
        """
        check_is_fitted(self)
        images = check_images(self, X, reset=False, lenient=lenient and self.on_error == "nan")
        with self._batches() as batch_size:
            return run(self._views(batch_size), images, wanted, self._parts_)

    @contextmanager
    def _batches(self) -> Generator[BatchSize]:
        """Give the size of batches for passes of the networks, by deterministic algorithms where these are wanted."""
        with batch_size_of(self) as batch_size, deterministic_algorithms(self.deterministic):
            yield batch_size

    def _scores_and_labels(self, X: Any) -> tuple[Scores, npt.NDArray[Any]]:
        """Return what ``score_samples`` and ``classify`` do, from one pass over X."""
        parts, logits = self._run(X, "parts", "logits")
        return self._combine(parts), self._labels(logits)

    def _combine(self, parts: dict[str, Scores]) -> Scores:
        scores: Scores = np.asarray(for_readable(self.fusion_.combine, parts), dtype=np.float64)
        return scores

    def _labels(self, logits: npt.NDArray[np.floating]) -> npt.NDArray[Any]:
        labels: npt.NDArray[Any] = self.classes_[logits.argmax(1)]
        return labels

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "offset_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []  # features have the network's
        return tags
