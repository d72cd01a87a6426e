"""What all mask generators share: labels, thresholds, and fits that succeed or change nothing."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils.validation import check_is_fitted

from skdfb.images import Images, Indices, check_images, check_labels, check_readable
from skdfb.utils import resolve_device, shallow_copy

__all__ = ["BaseMaskGenerator"]


class BaseMaskGenerator(TransformerMixin, BaseEstimator, ABC):
    """Masks that are attention maps at or above a threshold.

    A generator says how it learns (``_train``), how it makes maps, a batch at a time (``_stream``), and which class it
    sees in an image (``_classify``). In all three, classes are indices 0..K-1. It has the parameters ``threshold``,
    ``image_shape``, ``batch_size``, ``device`` and ``n_jobs``.
    """

    threshold: float
    image_shape: tuple[int, ...] | None
    batch_size: int
    batch_size_: int
    device: str | torch.device
    n_jobs: int | None

    @abstractmethod
    def _train(self, images: Images, labels: npt.NDArray[np.intp]) -> None:
        """Learn from checked images and class indices; ``classes_`` is known."""

    @abstractmethod
    def _stream(
        self, images: Images, labels: npt.NDArray[np.intp] | None
    ) -> Iterator[tuple[Indices, torch.Tensor, torch.Tensor]]:
        """Yield indices, attention maps (b, H, W) and classes (b,); without labels, of the predicted classes."""

    @abstractmethod
    def _classify(self, images: Images) -> npt.NDArray[np.intp]:
        """Return the predicted class of each image."""

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Train what makes the masks, or take over what is trained.

        Parameters
        ----------
        X : images
            n images in any of the accepted forms.
        y : array-like of shape (n,)
            Class labels. A torch dataset of (image, label) items brings its own.

        Returns
        -------
        self : estimator
            After an error as it was before.

        Raises
        ------
        ValueError, TypeError
            If images, labels or parameters are not as wanted; before any training.
        """
        self._fit(X, y)
        return self

    def _fit(self, X: Any, y: Any) -> tuple[Images, npt.NDArray[np.intp]]:
        """Fit a copy and take its state over at the end: a failed fit leaves the generator as it was."""
        fitted = shallow_copy(self, fitted_state=False)
        with torch.inference_mode(False):  # gradients, also where the caller has switched them off
            resolve_device(self.device)
            images = check_images(fitted, X, reset=True)
            if not isinstance(X, Images):  # those have been checked by who made them
                check_readable(images, self.batch_size, self.n_jobs)
            fitted.classes_, labels = check_labels(y, images)
            fitted.batch_size_, fitted._batch_size_asked_ = self.batch_size, self.batch_size
            fitted._train(images, labels)
        self.__dict__ = fitted.__dict__
        return images, labels

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X: Any, y: Any = None) -> npt.NDArray[np.unsignedinteger]:
        """Fit, and return the masks of the images' true classes.

        Parameters
        ----------
        X, y
            As in :meth:`fit`.

        Returns
        -------
        masks : ndarray of shape (n, H, W)
            Class indices 0..K-1 on the foreground, K on the background, as the smallest unsigned integers.
        """
        images, labels = self._fit(X, y)
        return self._masks(images, labels)

    def transform(self, X: Any, y: Any = None) -> npt.NDArray[np.unsignedinteger]:
        """Return masks of the predicted classes, or of given ones.

        Parameters
        ----------
        X : images
            n images.
        y : array-like of shape (n,), default=None
            Labels of the classes meant; None takes the predicted ones.

        Returns
        -------
        masks : ndarray of shape (n, H, W)
            As from :meth:`fit_transform`.
        """
        return self._masks(*self._check_input(X, y))

    def attention_maps(self, X: Any, y: Any = None) -> npt.NDArray[np.float32]:
        """Return the attention maps before the threshold.

        Parameters
        ----------
        X : images
            n images.
        y : array-like of shape (n,), default=None
            Labels of the classes meant; None takes the predicted ones.

        Returns
        -------
        maps : ndarray of shape (n, H, W)
            In [0, 1]; higher is more likely foreground.
        """
        images, labels = self._check_input(X, y)
        stream = self._stream(images, labels)
        maps: npt.NDArray[np.float32] = _gather(
            len(images), ((indices, maps.float().cpu().numpy()) for indices, maps, _ in stream)
        )
        return maps

    def classify(self, X: Any) -> npt.NDArray[Any]:
        """Return the predicted classes.

        Parameters
        ----------
        X : images
            n images.

        Returns
        -------
        labels : ndarray of shape (n,)
            Those of ``classes_`` whose masks :meth:`transform` makes without labels.
        """
        images, _ = self._check_input(X, None)
        labels: npt.NDArray[Any] = self.classes_[self._classify(images)]
        return labels

    def _check_input(self, X: Any, y: Any) -> tuple[Images, npt.NDArray[np.intp] | None]:
        check_is_fitted(self, "classes_")
        images = check_images(self, X, reset=False)
        return images, None if y is None else self._encode(y, len(images))

    def _encode(self, y: Any, n_images: int) -> npt.NDArray[np.intp]:
        y = np.asarray(y)
        unknown = ~np.isin(y, self.classes_)
        if y.shape != (n_images,) or unknown.any():
            raise ValueError(
                f"y has shape {y.shape} for {n_images} images and {int(unknown.sum())} labels that fit did not see; "
                "one label of classes_ for each image is wanted."
            )
        indices: npt.NDArray[np.intp] = np.searchsorted(self.classes_, y).astype(np.intp)
        return indices

    def _masks(self, images: Images, labels: npt.NDArray[np.intp] | None) -> npt.NDArray[np.unsignedinteger]:
        return _gather(len(images), self.iter_masks(images, labels))

    def iter_masks(
        self, images: Images, labels: npt.NDArray[np.intp] | None
    ) -> Iterator[tuple[Indices, npt.NDArray[np.unsignedinteger[Any]]]]:
        """Yield masks of images, one batch at a time, for image sets whose masks do not fit into memory.

        Parameters
        ----------
        images : Images
            The n images, checked.
        labels : ndarray of int of shape (n,) or None
            Class indices; None takes the predicted classes.

        Yields
        ------
        indices : ndarray of shape (b,)
            Which images.
        masks : ndarray of shape (b, H, W)
            Their masks, as from :meth:`fit_transform`.
        """
        background = len(self.classes_)
        dtype = np.min_scalar_type(background)
        for indices, maps, targets in self._stream(images, labels):
            values = torch.where(maps >= self.threshold, targets[:, None, None], background)
            yield indices, values.cpu().numpy().astype(dtype)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = []  # masks are small integers
        tags.input_tags.three_d_array = True
        return tags


def _gather(n_images: int, batches: Iterator[tuple[Indices, npt.NDArray[Any]]]) -> npt.NDArray[Any]:
    """Put batches together in one array, whose shape and dtype the first one tells."""
    indices, part = next(batches)
    whole = np.empty((n_images, *part.shape[1:]), dtype=part.dtype)
    whole[indices] = part
    for indices, part in batches:
        whole[indices] = part
    return whole
