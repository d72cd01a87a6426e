"""NECO: the share of the feature that lies in the principal space, multiplied by the largest logit."""

from collections.abc import Iterator
from numbers import Integral
from typing import Any, ClassVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from skdfb._constraints import Interval
from skdfb.scorers._base import BaseScorer, as_double, double_like
from skdfb.scorers._moments import feature_mean, numerical_rank, second_moment
from skdfb.scorers._representation import Representation


class NECO(BaseScorer):
    r"""Share of the standardised feature that lies in the principal space, multiplied by the largest logit.

    .. math::

        S(x) = \frac{\lVert P^\top h' \rVert}{\lVert h' \rVert} \, \max_k z_k, \qquad
        h'_j = \frac{h_j - \mu_j}{\sigma_j}

    where h are the C features and z the K logits of image x, μ and σ are the mean and the standard deviation of each
    feature over the training images, and the columns of P are the first D principal components of the standardised
    training features. Under neural collapse, in-distribution features lie in a space of few dimensions, and
    OOD features lie partly outside it. Higher is more in-distribution.

    Parameters
    ----------
    n_components : int, default=None
        Number D of principal components. It must be less than C and at most the numerical rank of the standardised
        training features, which is at most n - 1 for n images. None takes the smaller of 100 and half of that rank.
    scale_by_max_logit : bool, default=True
        Whether to multiply the share by the largest logit. The paper multiplies, except for ResNet-18.

    Attributes
    ----------
    mean_ : ndarray of shape (C,)
        The mean μ.
    scale_ : ndarray of shape (C,)
        The standard deviation σ; 1 for features that are constant over the training images.
    components_ : ndarray of shape (C, D)
        The matrix P with orthonormal columns. The first component is the last column.
    n_components_ : int
        The D in use.
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit".

    See Also
    --------
    Residual : The distance of the feature from a principal space.
    MaxLogit : The largest logit alone.

    Notes
    -----
    The formula with standardised features and the default of 100 come from the authors' code. For two architectures
    (DeiT, Swin) that code divides by the norm of features that are not standardised. The authors advise against
    standardising where the classes are well separated, for example with a ViT on CIFAR. Neither variant is offered
    here.

    The share of an image exactly at the mean is 0 / 0. It is set to 0. If the largest logit is negative, a larger
    share lowers the score. `fit` raises ValueError if D >= C, where the share is 1 for every image, or if D is more
    than the rank. The covariance is summed and decomposed in float64. `fit` reads the features twice, in batches.

    References
    ----------
    Ben Ammar et al., *NECO: NEural Collapse Based Out-of-distribution detection*, ICLR 2024, arXiv 2310.06823.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import NECO, Representation
    >>> rng = np.random.default_rng(0)
    >>> head = {"weight": np.eye(2, 4), "bias": np.ones(2)}
    >>> features = rng.normal(size=(100, 2)) @ np.eye(2)[[0, 1, 0, 1]].T + 0.1 * rng.normal(size=(100, 4))
    >>> scorer = NECO(n_components=2).fit(Representation.from_numpy(features=features, **head))
    >>> new = np.array([[3.0, 0.0, 3.0, 0.0], [3.0, 0.0, -3.0, 0.0]])
    >>> in_distribution, out = scorer.score_samples(Representation.from_numpy(features=new, **head))
    >>> bool(in_distribution > out)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "scale_by_max_logit": ["boolean"],
    }

    def __init__(self, n_components: int | None = None, *, scale_by_max_logit: bool = True) -> None:
        self.n_components = n_components
        self.scale_by_max_logit = scale_by_max_logit

    def _check_sizes(self, n_features: int, n_classes: int, n_images: int) -> None:
        if n_features < 2 or (self.n_components is not None and self.n_components >= n_features):
            raise ValueError(
                f"n_components={self.n_components} leaves nothing outside the principal space of the {n_features} "
                "feature(s) of representation: expected n_components < number of features, and at least 2 features. "
                "MaxLogit() needs no features."
            )
        # Centring takes one dimension away.
        self._choose_components(min(n_features, max(n_images - 1, 0)), n_images)

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        mean = feature_mean(representation)
        covariance = second_moment(representation, mean)
        deviation = covariance.diagonal().sqrt()
        # Constant features are 0 after centring, so any divisor works.
        scale = torch.where(deviation > 0, deviation, 1.0)
        # The covariance of the standardised features is the correlation matrix, so no third pass is needed.
        eigenvalues, eigenvectors = torch.linalg.eigh(covariance / scale / scale[:, None])  # ascending
        D = self._choose_components(numerical_rank(eigenvalues, representation.features.dtype), len(representation))
        self.mean_ = mean.numpy(force=True)
        self.scale_ = scale.numpy(force=True)
        self.components_ = eigenvectors[:, -D:].contiguous().numpy(force=True)
        self.n_components_ = D

    def _choose_components(self, rank: int, n_images: int) -> int:
        """Return D, or refuse features whose rank is too low for it."""
        D = max(1, min(100, rank // 2)) if self.n_components is None else self.n_components
        if rank < D:
            raise ValueError(
                f"n_components={self.n_components} is more than the standardised features of {n_images} training "
                f"image(s) have: their numerical rank is {rank}. Expected n_components <= rank, and a rank of at least "
                "1; lower n_components, give more or more varied images, or use MaxLogit()."
            )
        return int(D)

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        mean, scale, components = (
            double_like(array, representation.features) for array in (self.mean_, self.scale_, self.components_)
        )
        for batch in representation.batches():
            standardised = (as_double(batch.features) - mean) / scale  # (m, C)
            inside = torch.linalg.vector_norm(standardised @ components, dim=1)
            norm = torch.linalg.vector_norm(standardised, dim=1)
            # Where the norm is 0, `inside` is 0, too.
            share = inside / norm.where(norm != 0, 1.0)
            yield share * as_double(batch.logits).amax(dim=1) if self.scale_by_max_logit else share
