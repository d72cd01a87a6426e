"""Shared code of the built-in scorers: checks, batches, precision."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skdfb.scorers._fitted_tensors import fitted_tensor
from skdfb.scorers._protocol import ScorerOutput
from skdfb.scorers._representation import Representation
from skdfb.utils import own_torch_modes


class BaseScorer(ABC, BaseEstimator):
    """Base of the built-in scorers: `fit` and `score_samples` around the formula in `_score_batches`.

    A subclass implements `_score_batches`. If it learns anything, it also implements `_fit`, which sets the fitted
    attributes last, so that a failed fit leaves an earlier one intact. If some sizes make `_fit` impossible, it
    implements `_check_sizes`.
    """

    # scikit-learn regards every argument of `fit` other than X and y as metadata to route.
    __metadata_request__fit: ClassVar[dict[str, str]] = {"representation": UNUSED}

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {}
    # With fewer classes than this, the score is the same for all images.
    _min_classes: ClassVar[int] = 1

    output: ScorerOutput = "logit"
    needs_activations: tuple[str, ...] = ()
    learns_from_images: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # A detector skips a pass over the training images for scorers that learn nothing.
        cls.learns_from_images = cls._fit is not BaseScorer._fit

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, representation: Representation, y: ArrayLike | None = None) -> Self:
        """Fit the scorer on in-distribution images.

        Parameters
        ----------
        representation : Representation
            The n training images.
        y : array-like of shape (n,), default=None
            Classes of the images, integers 0..K-1. Ignored by scorers that do not need classes.

        Returns
        -------
        object
            The fitted scorer itself.

        Raises
        ------
        TypeError
            If `representation` is not a Representation.
        ValueError
            If `representation` is empty, or the scorer cannot be fitted on it.
        """
        self._check_representation(representation)
        self.check_sizes(representation.n_features, representation.n_classes, len(representation))
        with own_torch_modes():
            self._fit(representation, y)
        # Set last, so that a failed fit leaves an earlier one intact.
        self.n_features_in_ = representation.n_features
        self.n_classes_ = representation.n_classes
        return self

    def check_sizes(self, n_features: int, n_classes: int, n_images: int) -> None:
        """Check that the scorer can be fitted on data of these sizes; a detector does so before it trains.

        Parameters
        ----------
        n_features : int
            Number of features C.
        n_classes : int
            Number of columns K of the logits; 1 for a background representation.
        n_images : int
            Number of training images n.

        Raises
        ------
        ValueError
            If a parameter is invalid, or if `fit` fails with these sizes for all possible images.
        """
        self._validate_params()
        if n_images < 1:
            raise ValueError("representation holds no images: expected at least one training image.")
        if n_classes < self._min_classes:
            raise ValueError(
                f"representation has logits of {n_classes} class(es); {type(self).__name__} needs at "
                f"least {self._min_classes}, since its score would be the same for every image. "
                "Use BackgroundLogit for a single logit."
            )
        self._check_sizes(n_features, n_classes, n_images)

    def score_samples(self, representation: Representation) -> NDArray[np.float64]:
        """Score images.

        Parameters
        ----------
        representation : Representation
            The n images, from the network that the scorer was fitted on.

        Returns
        -------
        ndarray of shape (n,)
            Scores in float64, in the order of the images; higher is more in-distribution.

        Raises
        ------
        NotFittedError
            If the scorer is not fitted.
        TypeError
            If `representation` is not a Representation.
        ValueError
            If the number of features or classes differs from that in `fit`, or a score is NaN or infinite.
        """
        return self._check_finite(self.score_on_device(representation).numpy(force=True))

    def score_on_device(self, representation: Representation) -> Tensor:
        """Score images where they are, so that a detector on a GPU need not wait for it after each batch.

        Parameters
        ----------
        representation : Representation
            The n images, as in :meth:`score_samples`.

        Returns
        -------
        Tensor of shape (n,)
            The same scores in float64, on the device of `representation`. They are not checked for NaN and infinity:
            that would wait for the GPU.

        Raises
        ------
        NotFittedError
            If the scorer is not fitted.
        TypeError
            If `representation` is not a Representation.
        ValueError
            If the number of features or classes differs from that in `fit`.
        """
        check_is_fitted(self, "n_features_in_")
        self._check_representation(representation)
        self._check_scorable(representation)
        with own_torch_modes():
            scores = list(self._score_batches(representation))
        # There may be no images, and so no batches.
        return torch.cat(scores) if scores else as_double(representation.features[:0, 0])

    def _check_sizes(self, n_features: int, n_classes: int, n_images: int) -> None:
        """Raise ValueError for sizes with which `_fit` fails for all possible images. The parameters are valid."""

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        """Learn from a representation whose sizes were checked; the default learns nothing."""

    @abstractmethod
    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        """Yield the float64 scores of each batch, in order."""

    def _check_representation(self, representation: Representation) -> None:
        if not isinstance(representation, Representation):
            raise TypeError(
                f"representation is a {type(representation).__name__}: expected a Representation; build one with "
                "Representation.from_numpy(features=, weight=, bias=)."
            )

    def _check_scorable(self, representation: Representation) -> None:
        given = (representation.n_features, representation.n_classes)
        expected = (self.n_features_in_, self.n_classes_)
        if given != expected:
            raise ValueError(
                f"representation has {given[0]} features and {given[1]} classes, but this {type(self).__name__} was "
                f"fitted on {expected[0]} and {expected[1]}: expected the same numbers. Fit it again, or score images "
                "of the same network."
            )

    def _check_finite(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        broken = np.flatnonzero(~np.isfinite(scores))
        if broken.size:
            raise ValueError(
                f"representation gives {broken.size} scores that are NaN or infinite, first in row {broken[0]}: "
                "expected finite scores. Its features or logits hold such values or are too large; compute them in a "
                "wider floating-point type."
            )
        return scores


def as_double(tensor: Tensor) -> Tensor:
    """Return the tensor in float64, on its device if that supports float64, else on the CPU."""
    # Apple's GPUs ("mps") have no float64.
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def logit_batches(representation: Representation) -> Iterator[Representation]:
    """Yield batches for scorers that read only the logits."""
    # `batches` chooses its size for the features, which usually have more columns than the logits.
    return representation.batches(min(max(2**18 // representation.n_classes, 512), 8192))


def wide(tensor: Tensor) -> Tensor:
    """Return the tensor in its own type if that is float32 or float64, else in float32, on the device of `as_double`.

    Use it for values of single images, not for statistics over many images. There, float32 adds no more error than
    the rounding that the stored numbers already have.
    """
    tensor = tensor.cpu() if tensor.device.type == "mps" else tensor
    return tensor.to(wide_type(tensor))


def wide_type(tensor: Tensor) -> torch.dtype:
    """Return float64 for float64 tensors, else float32; see `wide`."""
    return torch.promote_types(tensor.dtype, torch.float32)


def may_be_any(rows: Tensor) -> bool:
    """Return whether any is true; on a GPU always True, because reading the answer would wait."""
    return rows.device.type != "cpu" or bool(rows.any())


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return the matrix product in the full precision of its type, with any setting of torch."""
    if a.dtype != torch.float32 or not _rounds_factors():
        return a @ b
    # No setting is changed, since it belongs to all threads.
    if a.device.type == "cpu":
        # Only here, because NumPy's threads and torch's threads slow each other down.
        return torch.from_numpy(a.detach().numpy() @ b.detach().numpy())
    return (a.double() @ b.double()).float()


def _rounds_factors() -> bool:
    """Return whether torch may round float32 factors of a product."""
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # it was set by the newer torch.backends.fp32_precision, which this function does not read
        return True


def tensor_like(array: NDArray[Any], tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a fitted floating-point array as a tensor on the device of `as_double(tensor)`; never write to it.

    It has its own type, or `dtype`.
    """
    return fitted_tensor(array, torch.device("cpu") if tensor.device.type == "mps" else tensor.device, dtype)


def double_like(array: NDArray[np.floating], tensor: Tensor) -> Tensor:
    """Return a fitted statistic as a float64 tensor on the device of `as_double(tensor)`; see `tensor_like`."""
    return tensor_like(array, tensor, torch.float64)


def activation(batch: Representation, name: str) -> Tensor:
    """Return the activations of this name; raise ValueError if they are missing."""
    if batch.activations is None or name not in batch.activations:
        given = list(batch.activations or ())
        raise ValueError(
            f"representation.activations holds {given}: expected {name!r}; score images through a detector, which "
            f"supplies it, or pass activations={{{name!r}: ...}} to Representation.from_numpy."
        )
    return batch.activations[name]


def check_class_indices(y: ArrayLike | Tensor | None, representation: Representation) -> NDArray[np.int64]:
    """Return y as integers 0..K-1, one per image of the representation; raise an error if y is anything else.

    With one class (a background representation), y may be None.
    """
    if y is None and representation.n_classes == 1:
        return np.zeros(len(representation), dtype=np.int64)
    if y is None:
        raise ValueError("y is None: expected the class of each training image, integers 0..K-1.")
    labels = y.numpy(force=True) if isinstance(y, Tensor) else np.asarray(y)
    n, K = len(representation), representation.n_classes
    if labels.shape != (n,):
        raise ValueError(f"y has shape {labels.shape}: expected ({n},), one class per image of representation.")
    # Booleans and floats are refused, because they are rarely meant as class indices.
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"y has dtype {labels.dtype}: expected integers 0..{K - 1}; encode it with sklearn's LabelEncoder."
        )
    if n and not (labels.min() >= 0 and labels.max() < K):
        raise ValueError(
            f"y runs from {labels.min()} to {labels.max()}: expected integers 0..{K - 1}, the columns of the logits; "
            "encode it with sklearn's LabelEncoder."
        )
    return labels.astype(np.int64)


def predicted_classes(representation: Representation) -> NDArray[np.int64]:
    """Return the class of the largest logit of each image, or -1 if a logit is NaN."""
    predicted = []
    for batch in representation.batches():
        largest, c = batch.logits.max(dim=1)
        predicted.append(c.masked_fill(largest.isnan(), -1).numpy(force=True))
    return np.concatenate(predicted)
