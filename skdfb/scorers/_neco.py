"""NECO: the share of the feature that lies in the principal space, times the largest logit."""

from collections.abc import Iterator
from numbers import Integral
from typing import Any, ClassVar

import torch
from numpy.typing import ArrayLike
from sklearn.utils._param_validation import Interval
from torch import Tensor

from skdfb.scorers._base import BaseScorer, as_double, double_like
from skdfb.scorers._moments import feature_mean, numerical_rank, second_moment
from skdfb.scorers._representation import Representation


class NECO(BaseScorer):
    r"""Share of the standardised feature that lies in the principal space, times the largest logit.

    .. math::

        S(x) = \frac{\lVert P^\top h' \rVert}{\lVert h' \rVert} \, \max_k z_k, \qquad
        h'_j = \frac{h_j - \mu_j}{\sigma_j}

    where h are the C features and z the K logits of image x, μ and σ are mean and standard deviation of each feature
    over the training images, and P holds the first D principal components of the standardised training features as
    columns. Under neural collapse, in-distribution features lie in few dimensions, and others lie outside them.
    Higher is more in-distribution.

    Parameters
    ----------
    n_components : int, default=None
        Number D of principal components, less than C and not more than the numerical rank of the standardised training
        features. None takes 100, but at most half of that rank.
    scale_by_max_logit : bool, default=True
        Whether to multiply the share by the largest logit. The paper does so, except for ResNet-18.

    Attributes
    ----------
    mean_ : ndarray of shape (C,)
        The mean μ.
    scale_ : ndarray of shape (C,)
        The standard deviation σ, or 1 for features that are constant over the training images.
    components_ : ndarray of shape (C, D)
        P, with orthonormal columns, the first component in the last column.
    n_components_ : int
        The D in use.
    n_features_in_ : int
        Number of features C seen in `fit`.
    n_classes_ : int
        Number of classes K seen in `fit`.
    output : str
        "logit".

    See Also
    --------
    Residual : How far the feature lies outside a principal space.
    MaxLogit : The largest logit alone.

    Notes
    -----
    The formula, with its standardised features, is that of the authors' code, which also holds the 100. For two
    architectures (DeiT, Swin) that code divides by the norm of features that are not standardised; this is left out.
    Its authors advise against standardising where the classes are well separated, as with a ViT on CIFAR; this is not
    offered.

    An image right at the mean, where the share is 0 / 0, has share 0. Where the largest logit is negative, a larger
    share makes the score lower. `fit` raises ValueError if D >= C, where the share is 1 for every image, or D > rank.
    The covariance is summed up and decomposed in float64; `fit` reads the features twice, a batch at a time.

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
                "feature(s) of representation; wanted n_components < number of features, so at least 2 features. "
                "MaxLogit() needs no features."
            )

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        mean = feature_mean(representation)
        covariance = second_moment(representation, mean)
        deviation = covariance.diagonal().sqrt()
        scale = torch.where(deviation > 0, deviation, 1.0)
        eigenvalues, eigenvectors = torch.linalg.eigh(covariance / scale / scale[:, None])  # ascending
        D = self._choose_components(numerical_rank(eigenvalues, representation.features.dtype))
        self.mean_ = mean.numpy(force=True)
        self.scale_ = scale.numpy(force=True)
        self.components_ = eigenvectors[:, -D:].contiguous().numpy(force=True)
        self.n_components_ = D

    def _choose_components(self, rank: int) -> int:
        """Return D, of which features of this rank must have that many components."""
        D = max(1, min(100, rank // 2)) if self.n_components is None else self.n_components
        if rank < D:
            raise ValueError(
                f"n_components={self.n_components} is more than the standardised training features of representation "
                f"have: their numerical rank is {rank}. Wanted n_components <= rank, so a rank of at least 1: lower "
                "n_components, give more or more varied images, or use MaxLogit()."
            )
        return int(D)

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        mean, scale, components = (
            double_like(array, representation.features) for array in (self.mean_, self.scale_, self.components_)
        )
        for batch in representation.batches():
            standardised = (as_double(batch.features) - mean) / scale
            inside = torch.linalg.vector_norm(standardised @ components, dim=1)
            norm = torch.linalg.vector_norm(standardised, dim=1)
            share = inside / norm.where(norm != 0, 1.0)  # inside is 0 where norm is
            yield share * as_double(batch.logits).amax(dim=1) if self.scale_by_max_logit else share
