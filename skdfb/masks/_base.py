"""Base class of the mask generators: labels, the threshold, and a fit that changes nothing where it fails."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils.validation import check_is_fitted

from skdfb._progress import progress
from skdfb._transfers import one_behind, start_download
from skdfb.images import Images, Indices, check_images, check_labels, label_array, label_places
from skdfb.networks._channels import input_channels
from skdfb.networks._timm import check_weights
from skdfb.utils import own_torch_modes, resolve_device, shallow_copy

__all__ = ["BaseMaskGenerator"]

Masks = npt.NDArray[np.unsignedinteger]

_LABEL = "making the masks"


class BaseMaskGenerator(TransformerMixin, BaseEstimator, ABC):
    """Masks that are attention maps at or above a threshold.

    A subclass defines how it learns (``_train``), how it computes attention maps batch by batch (``_stream``), and how
    it predicts the class of an image (``_classify``). In all three, classes are indices 0..K-1. It has the parameters
    ``threshold``, ``image_shape``, ``batch_size``, ``device``, ``n_jobs`` and ``verbose``.
    """

    threshold: float
    image_shape: tuple[int, ...] | None
    batch_size: int
    batch_size_: int
    device: str | torch.device
    n_jobs: int | None
    verbose: int = 0  # of generators that were saved before they had the parameter

    @abstractmethod
    def _train(self, images: Images, labels: npt.NDArray[np.intp]) -> None:
        """Learn from checked images and class indices; ``classes_`` is set already."""

    @abstractmethod
    def _stream(
        self, images: Images, labels: npt.NDArray[np.intp] | None
    ) -> Iterator[tuple[Indices, torch.Tensor, torch.Tensor]]:
        """Yield indices, attention maps (b, H, W) and classes (b,); without labels, of the predicted classes."""

    @abstractmethod
    def _classify(self, images: Images) -> npt.NDArray[np.intp]:
        """Return the predicted class of each image."""

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, *, image_range: tuple[float, float] | None = None) -> Self:
        """Train the network that makes the masks, or take over a trained one.

        Parameters
        ----------
        X : images
            The n training images, in any of the accepted forms.
        y : array-like of shape (n,)
            Class labels. None takes those of a folder of class folders, or of a dataset of (image, label) items.
        image_range : tuple of (float, float), default=None
            The numbers that are black and white, as in :meth:`skdfb.DFBDetector.fit`.

        Returns
        -------
        self : estimator
            The fitted generator. After an error it is as it was before.

        Raises
        ------
        ValueError, TypeError
            If images, labels or parameters are invalid; before any training.
        """
        self._fit(X, y, image_range)
        return self

    def _innermost_backbone(self) -> Any:
        """Return the backbone of this generator, or of the one inside."""
        inner: Any = self
        while not hasattr(inner, "backbone") and getattr(inner, "generator", None) is not None:
            inner = inner.generator
        return getattr(inner, "backbone", None)

    def _fit(self, X: Any, y: Any, image_range: tuple[float, float] | None) -> tuple[Images, npt.NDArray[np.intp]]:
        """Fit a copy and take over its state at the end, so that a failed fit leaves the generator as it was."""
        fitted = shallow_copy(self, fitted_state=False)
        # Gradients, also where the caller has switched them off.
        with own_torch_modes(gradients=True), progress(self.verbose):
            resolve_device(self.device)
            backbone = self._innermost_backbone()
            check_weights(backbone)  # before the images are read, which takes minutes for many files
            images = check_images(fitted, X, reset=True, n_channels=input_channels(backbone), image_range=image_range)
            fitted.classes_, labels = check_labels(y, images)
            # The first pass tries the given batch size; later passes start from the one that fitted into memory.
            fitted.batch_size_, fitted._batch_size_asked_ = self.batch_size, self.batch_size
            fitted._train(images, labels)
        # All attributes at once: nothing of an earlier fit stays, as n_features_in_ would.
        self.__dict__ = fitted.__dict__
        return images, labels

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X: Any, y: Any = None, *, image_range: tuple[float, float] | None = None) -> Masks:
        """Fit, and return the masks of the images' true classes.

        Parameters
        ----------
        X : images
            The n training images, as for :meth:`fit`.
        y : array-like of shape (n,)
            Class labels, as for :meth:`fit`.
        image_range : tuple of (float, float), default=None
            As for :meth:`fit`.

        Returns
        -------
        masks : ndarray of shape (n, H, W)
            Class indices 0..K-1 on the foreground, K on the background, in the smallest unsigned integer type.
        """
        images, labels = self._fit(X, y, image_range)
        with own_torch_modes(), progress(self.verbose, _LABEL):
            return self._masks(images, self._mask_classes(labels))

    def iter_masks(self, images: Images, labels: npt.NDArray[np.intp]) -> Iterator[tuple[Indices, Masks]]:
        """Return the masks of the training images batch by batch, after ``fit``.

        Together they are the masks of :meth:`fit_transform`, but only one batch is in memory at a time. This is for the
        packages of the library: images and labels are not checked.

        Parameters
        ----------
        images : Images
            The n images of ``fit``, or some of them.
        labels : ndarray of int of shape (n,)
            Class index of each image, in 0..K-1.

        Returns
        -------
        batches : iterator of (ndarray of shape (b,), ndarray of shape (b, H, W))
            Indices of images, and the masks of these images.
        """
        check_is_fitted(self, "classes_")
        return self._iter_masks(images, self._mask_classes(labels))

    def _mask_classes(self, labels: npt.NDArray[np.intp]) -> npt.NDArray[np.intp] | None:
        """Return the classes that the masks of training images are of: the true ones; None stands for predicted."""
        return labels

    @own_torch_modes()
    def transform(self, X: Any, y: Any = None) -> Masks:
        """Return masks of the predicted classes, or of given classes.

        Parameters
        ----------
        X : images
            The n images.
        y : array-like of shape (n,), default=None
            Label of the class that each mask is of. None takes the predicted classes.

        Returns
        -------
        masks : ndarray of shape (n, H, W)
            Class indices 0..K-1 on the foreground, K on the background, in the smallest unsigned integer type.
        """
        with progress(self.verbose, _LABEL):
            return self._masks(*self._check_input(X, y))

    @own_torch_modes()
    def attention_maps(self, X: Any, y: Any = None) -> npt.NDArray[np.float32]:
        """Return the attention maps before the threshold.

        Parameters
        ----------
        X : images
            The n images.
        y : array-like of shape (n,), default=None
            Label of the class that each map is of. None takes the predicted classes.

        Returns
        -------
        maps : ndarray of shape (n, H, W)
            Numbers in [0, 1]; higher is more likely foreground.
        """
        images, labels = self._check_input(X, y)
        # A float64 network gives maps in float64; maps of all images are large, so float32 has to do.
        stream = ((indices, maps.float()) for indices, maps, _ in self._stream(images, labels))
        batches = self._on_cpu(stream)
        with progress(self.verbose, "making the attention maps"):
            maps: npt.NDArray[np.float32] = _gather(len(images), batches)
        return maps

    @own_torch_modes()
    def classify(self, X: Any) -> npt.NDArray[Any]:
        """Predict the class of each image.

        Parameters
        ----------
        X : images
            The n images.

        Returns
        -------
        labels : ndarray of shape (n,)
            Labels of ``classes_``: the classes whose masks :meth:`transform` returns without ``y``.
        """
        images, _ = self._check_input(X, None)
        with progress(self.verbose, "classifying the images"):
            labels: npt.NDArray[Any] = self.classes_[self._classify(images)]
        return labels

    def _check_input(self, X: Any, y: Any) -> tuple[Images, npt.NDArray[np.intp] | None]:
        check_is_fitted(self, "classes_")
        images = check_images(self, X, reset=False)
        if y is None:
            return images, None
        y = label_array(y)
        places = label_places(y, self.classes_)
        if len(y) != len(images) or (places < 0).any():
            raise ValueError(
                f"y has shape {y.shape} for {len(images)} images and {int((places < 0).sum())} labels that are not in "
                "classes_: expected one label of classes_ per image."
            )
        return images, places

    def _masks(self, images: Images, labels: npt.NDArray[np.intp] | None) -> Masks:
        return _gather(len(images), self._iter_masks(images, labels))

    def _iter_masks(self, images: Images, labels: npt.NDArray[np.intp] | None) -> Iterator[tuple[Indices, Masks]]:
        background = len(self.classes_)
        dtype = np.min_scalar_type(background)
        # The threshold is applied on the device: masks take less to copy than maps, and bytes less than class indices.
        narrow = torch.uint8 if dtype.itemsize == 1 else torch.int32

        def masks() -> Iterator[tuple[Indices, torch.Tensor]]:
            for indices, maps, targets in self._stream(images, labels):
                classes = targets[:, None, None].to(narrow)
                yield indices, torch.where(maps >= self.threshold, classes, background)  # (b, H, W)

        for indices, values in self._on_cpu(masks()):
            yield indices, values.astype(dtype, copy=False)

    def _on_cpu(self, batches: Iterator[tuple[Indices, torch.Tensor]]) -> Iterator[tuple[Indices, npt.NDArray[Any]]]:
        """Yield arrays for tensors on the device; a GPU computes the next one while one is copied."""
        started = ((indices, start_download(values)) for indices, values in batches)
        return ((indices, finish().numpy()) for indices, finish in one_behind(started, resolve_device(self.device)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = []  # masks are small integers
        tags.input_tags.three_d_array = True
        return tags


def _gather(n_images: int, batches: Iterator[tuple[Indices, npt.NDArray[Any]]]) -> npt.NDArray[Any]:
    """Put all batches into one array."""
    # The first batch tells height, width and dtype.
    indices, part = next(batches)
    whole = np.empty((n_images, *part.shape[1:]), dtype=part.dtype)
    whole[indices] = part
    for indices, part in batches:
        whole[indices] = part
    return whole
