"""What the built-in scorers share: checks, streaming, precision."""

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

from skdfb.scorers._protocol import ScorerOutput
from skdfb.scorers._representation import Representation, tensor_view


class BaseScorer(ABC, BaseEstimator):
    """Base of the built-in scorers: `fit` and `score_samples` around the formula in `_score_batches`.

    A subclass writes `_score_batches`, and `_fit` if it learns anything. `_fit` sets fitted attributes last, so that
    a failed fit leaves an earlier one whole.
    """

    # A representation is no metadata to route, though `fit` does not call it X.
    __metadata_request__fit: ClassVar[dict[str, str]] = {"representation": UNUSED}

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {}
    # Fewer classes than this would make the score a constant.
    _min_classes: ClassVar[int] = 1

    output: ScorerOutput = "logit"
    needs_activations: tuple[str, ...] = ()
    learns_from_images: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.learns_from_images = cls._fit is not BaseScorer._fit

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, representation: Representation, y: ArrayLike | None = None) -> Self:
        """Learn from in-distribution images.

        Parameters
        ----------
        representation : Representation
            The n training images.
        y : array-like of shape (n,), default=None
            Their classes, integers 0..K-1. Ignored by scorers that learn nothing of single classes.

        Returns
        -------
        object
            The fitted scorer itself.

        Raises
        ------
        TypeError
            If `representation` is no Representation.
        ValueError
            If it is empty, or the scorer cannot learn from it.
        """
        self._check_representation(representation)
        if len(representation) == 0:
            raise ValueError("representation holds no images; wanted at least one image to fit on.")
        self.check_sizes(representation.n_features, representation.n_classes, len(representation))
        with torch.no_grad(), _without_autocast(representation):
            self._fit(representation, y)
        self.n_features_in_ = representation.n_features
        self.n_classes_ = representation.n_classes
        return self

    def check_sizes(self, n_features: int, n_classes: int, n_images: int) -> None:
        """Refuse a network this scorer cannot be fitted on; a detector asks before it trains one.

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
            If a parameter, or the scorer, does not fit these sizes.
        """
        if n_classes < self._min_classes:
            raise ValueError(
                f"representation has logits of {n_classes} class(es); {type(self).__name__} needs at "
                f"least {self._min_classes}, since its score would be the same for every image. "
                "Use BackgroundLogit for a single logit."
            )

    def score_samples(self, representation: Representation) -> NDArray[np.float64]:
        """Score images.

        Parameters
        ----------
        representation : Representation
            The n images, from the network this scorer was fitted on.

        Returns
        -------
        ndarray of shape (n,)
            Scores in float64, in the order of the images; higher is more in-distribution.

        Raises
        ------
        NotFittedError
            If the scorer was not fitted.
        TypeError
            If `representation` is no Representation.
        ValueError
            If its number of features or classes is not that of `fit`, or a score is NaN or infinite.
        """
        check_is_fitted(self, "n_features_in_")
        self._check_representation(representation)
        self._check_scorable(representation)
        with torch.no_grad(), _without_autocast(representation):
            scores = [scores.numpy(force=True) for scores in self._score_batches(representation)]
        return self._check_finite(np.concatenate([np.empty(0), *scores]))

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        """Learn from checked images; learns nothing here."""

    @abstractmethod
    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        """Yield the float64 scores of one batch after another."""

    def _check_representation(self, representation: Representation) -> None:
        if not isinstance(representation, Representation):
            raise TypeError(
                f"representation is a {type(representation).__name__}; wanted a Representation: build one with "
                "Representation.from_numpy(features=, weight=, bias=)."
            )

    def _check_scorable(self, representation: Representation) -> None:
        given = (representation.n_features, representation.n_classes)
        wanted = (self.n_features_in_, self.n_classes_)
        if given != wanted:
            raise ValueError(
                f"representation has {given[0]} features and {given[1]} classes; this {type(self).__name__} was fitted "
                f"on {wanted[0]} and {wanted[1]}. Fit it again, or score images of the same network."
            )

    def _check_finite(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        broken = np.flatnonzero(~np.isfinite(scores))
        if broken.size:
            raise ValueError(
                f"representation gives {broken.size} scores that are NaN or infinite, first in row {broken[0]}: its "
                "features or logits hold such values or are too large. Compute them in a wider floating-point type."
            )
        return scores


def _without_autocast(representation: Representation) -> torch.autocast:
    return torch.autocast(representation.device.type, enabled=False)


def as_double(tensor: Tensor) -> Tensor:
    """Return the tensor in float64, on its device if that has float64 and else on the CPU."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def logit_batches(representation: Representation) -> Iterator[Representation]:
    """Yield batches of a size that suits those who read the logits alone."""
    return representation.batches(min(max(2**18 // representation.n_classes, 512), 8192))


def wide(tensor: Tensor) -> Tensor:
    """Return the tensor in its own type if that is float32 or float64, else in float32; where `as_double` puts it.

    For what is no statistic, only a number or a few of an image itself: there float32 adds no more than the rounding
    that the stored numbers have already.
    """
    tensor = tensor.cpu() if tensor.device.type == "mps" else tensor
    return tensor.to(wide_type(tensor))


def wide_type(tensor: Tensor) -> torch.dtype:
    """Return float64 for float64 tensors, else float32; see `wide`."""
    return torch.promote_types(tensor.dtype, torch.float32)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return the matrix product, in full precision on the CPU whatever torch's switches say."""
    if a.device.type == "cpu" and a.dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
        # NumPy's threads and torch's hinder each other, so this is slower.
        return torch.from_numpy(a.detach().numpy() @ b.detach().numpy())
    return a @ b


def tensor_like(array: NDArray[Any], tensor: Tensor) -> Tensor:
    """Return a fitted floating-point array as a tensor of its own type, where `as_double(tensor)` lies.

    On the CPU nothing is copied, however often scores are asked for; never write to it.
    """
    return tensor_view("array", array).to("cpu" if tensor.device.type == "mps" else tensor.device)


def double_like(array: NDArray[np.floating], tensor: Tensor) -> Tensor:
    """Return a fitted statistic as a float64 tensor where `as_double(tensor)` lies; see `tensor_like`."""
    return tensor_like(array, tensor).double()


def activation(batch: Representation, name: str) -> Tensor:
    """Return the activations of that name, or say that they are missing."""
    if batch.activations is None or name not in batch.activations:
        given = list(batch.activations or ())
        raise ValueError(
            f"representation.activations holds {given}; wanted {name!r}: score images through a detector, which "
            f"supplies it, or pass activations={{{name!r}: ...}} to Representation.from_numpy."
        )
    return batch.activations[name]


def check_class_indices(y: ArrayLike | Tensor | None, representation: Representation) -> NDArray[np.int64]:
    """Return y as integers 0..K-1, one an image of the representation, or refuse it.

    Where there is one class (a background representation), y may be None.
    """
    if y is None and representation.n_classes == 1:
        return np.zeros(len(representation), dtype=np.int64)
    if y is None:
        raise ValueError("y is None; this scorer needs the class of each training image, integers 0..K-1.")
    labels = y.numpy(force=True) if isinstance(y, Tensor) else np.asarray(y)
    n, K = len(representation), representation.n_classes
    if labels.shape != (n,):
        raise ValueError(f"y has shape {labels.shape}; wanted ({n},), one class per image of representation.")
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"y has dtype {labels.dtype}; wanted integers 0..{K - 1}: encode it with sklearn's LabelEncoder."
        )
    if n and not (labels.min() >= 0 and labels.max() < K):
        raise ValueError(
            f"y runs from {labels.min()} to {labels.max()}; wanted integers 0..{K - 1}, the columns of the logits: "
            "encode it with sklearn's LabelEncoder."
        )
    return labels.astype(np.int64)
