"""KernelPCA: the reconstruction error of kernel PCA with a cosine or a cosine-Gaussian kernel."""

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import RealNotInt, StrOptions
from torch import Tensor

from skdfb._constraints import RANDOM_STATE, Interval
from skdfb.scorers._base import BaseScorer, double_like
from skdfb.scorers._moments import (
    RowsOf,
    feature_mean,
    least_mean_square,
    numerical_rank,
    second_moment,
)
from skdfb.scorers._neighbours import unit_rows
from skdfb.scorers._representation import Representation, images_per_batch


class KernelPCA(BaseScorer):
    r"""Error of the reconstruction of the mapped feature from its principal components, negated.

    .. math::

        S(x) = -\bigl\lVert (I - P P^\top) (\varphi(z) - \mu) \bigr\rVert, \qquad z = \frac{h}{\lVert h \rVert}

    .. math::

        \varphi(z) = z \quad\text{or}\quad
        \varphi(z) = \sqrt{2 / M} \, \cos\bigl(\sqrt{2 \gamma} \, W^\top z + u\bigr)

    where h are the C features of image x, μ is the mean of φ(z) over the training images and the columns of P are the
    first D principal components of the centred φ(z). With ``kernel="cosine"`` (the paper's CoP), φ(z) is z. With
    ``kernel="cosine-gaussian"`` (the paper's CoRP), φ(z) are M random Fourier features: the entries of W (C x M) are
    drawn from the standard normal distribution, those of u (M) uniformly from 0 to 2π, and
    :math:`\varphi(z)^\top \varphi(z')` approximates the Gaussian kernel :math:`e^{-\gamma \lVert z - z' \rVert^2}`.
    Scores are at most 0. Higher is more in-distribution. `fit` ignores y, and there may be any number of classes.

    Parameters
    ----------
    kernel : {"cosine", "cosine-gaussian"}, default="cosine"
        The map φ.
    n_components : int or float, default=0.8
        Number D of principal components. An int >= 1 must be less than the numerical rank of the centred φ(z), which is
        at most n - 1 for n images and at most C or M. A float in (0, 1) takes the smallest D whose components have
        this share of the variance, but less than the rank.
    gamma : float or "auto", default="auto"
        The γ > 0 of the Gaussian kernel. "auto" takes 1 divided by the mean squared distance of z between two training
        images, which is twice the sum of the variances of its C entries. The cosine kernel ignores it.
    n_random_features : int, default=2048
        Number M of random Fourier features. The cosine kernel ignores it.
    random_state : int, RandomState instance or None, default=0
        Seed for drawing W and u. None draws differently in each `fit`. The cosine kernel ignores it.

    Attributes
    ----------
    mean_ : ndarray of shape (C,) or (M,)
        The mean μ.
    components_ : ndarray of shape (C, D) or (M, D)
        The matrix P with orthonormal columns. The first component is the last column.
    n_components_ : int
        The D in use.
    explained_variance_ratio_ : float
        Share of the variance of φ(z) that the components have.
    gamma_ : float or None
        The γ in use; None with the cosine kernel.
    random_weights_ : ndarray of shape (C, M) or None
        The matrix :math:`\sqrt{2 \gamma} \, W`; None with the cosine kernel.
    random_offset_ : ndarray of shape (M,) or None
        The vector u; None with the cosine kernel.
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit".

    See Also
    --------
    Residual : The same error for features that are neither normalised nor centred at their mean.
    KNN : Distances between normalised features.

    Notes
    -----
    φ(z) is centred at its training mean, and D is chosen by the share of the variance, as in the authors' code. Where
    no D < C (or M) reaches this share, that code takes all components but the last one; here D stays less than the
    rank, so that a residual is always left.

    The authors choose the parameters for each network. With the cosine kernel, they take a share of 0.7 to 0.99. With
    the cosine-Gaussian kernel, they take a share of 0.5 to 0.8, γ from 1 to 3, and M = 2048 (C = 512) or M = 4096
    (C = 2048). The default share of 0.8 lies in both ranges. "auto" for γ is not theirs. With a much larger γ, the
    kernel is about 0 between any two images, so that all new images have similar scores. The authors also multiply this
    score with others; this fusion is not offered.

    Features that are all 0 have no direction. Their z is 0, as in :class:`KNN`, and their score is finite. `fit` raises
    ValueError if fewer than three training images have different directions, since no residual is left then.

    All computations are in float64. `fit` reads the features twice, or four times if it also estimates γ. Besides a
    batch, it holds C x C numbers, or C x M and M x M. The eigendecomposition takes time in proportion to the cube of C
    or M. The kernel matrix of the training images is never computed.

    References
    ----------
    Fang et al., *Kernel PCA for Out-of-Distribution Detection*, NeurIPS 2024, arXiv 2402.02949. Rahimi and Recht,
    *Random Features for Large-Scale Kernel Machines*, NIPS 2007.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import KernelPCA, Representation
    >>> rng = np.random.default_rng(0)
    >>> head = {"weight": np.eye(2, 4), "bias": np.zeros(2)}
    >>> features = 5 + rng.normal(size=(100, 4)) * [3.0, 3.0, 0.1, 0.1]
    >>> scorer = KernelPCA(n_components=2).fit(Representation.from_numpy(features=features, **head))
    >>> new = np.array([[8.0, 5.0, 5.0, 5.0], [5.0, 5.0, 8.0, 5.0]])
    >>> in_distribution, out = scorer.score_samples(Representation.from_numpy(features=new, **head))
    >>> bool(in_distribution > out)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "kernel": [StrOptions({"cosine", "cosine-gaussian"})],
        "n_components": [Interval(Integral, 1, None, closed="left"), Interval(RealNotInt, 0, 1, closed="neither")],
        "gamma": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "n_random_features": [Interval(Integral, 1, None, closed="left")],
        "random_state": RANDOM_STATE,
    }

    def __init__(
        self,
        kernel: str = "cosine",
        n_components: int | float = 0.8,
        *,
        gamma: float | str = "auto",
        n_random_features: int = 2048,
        random_state: int | RandomState | None = 0,
    ) -> None:
        self.kernel = kernel
        self.n_components = n_components
        self.gamma = gamma
        self.n_random_features = n_random_features
        self.random_state = random_state

    def _check_sizes(self, n_features: int, n_classes: int, n_images: int) -> None:
        width, name = self.n_random_features, "random features"
        # A single feature has two directions only, its signs.
        if self.kernel == "cosine" or n_features == 1:
            width, name = n_features, "feature(s) of representation"
        least = 1 if self._is_share() else self.n_components
        if width <= least:
            raise ValueError(
                f"n_components={self.n_components} leaves no residual of the {width} {name}: expected n_components < "
                f"{width}, and at least 2 features. Lower n_components, raise n_random_features, or, for a single "
                "feature of representation, use a scorer that reads the logits, such as Energy()."
            )
        # Centring takes one dimension away.
        self._check_rank(min(width, n_images - 1), n_images)

    def _check_rank(self, rank: int, n_images: int) -> None:
        """Refuse features whose rank is too low to leave a residual."""
        least = 1 if self._is_share() else self.n_components
        if rank <= least:
            raise ValueError(
                f"n_components={self.n_components} leaves no residual: the centred features of the {self.kernel} "
                f"kernel have numerical rank {rank} over {n_images} training image(s). Expected n_components < rank, "
                "and a rank of at least 2; lower n_components, give more or more varied images, or use Energy()."
            )

    def _is_share(self) -> bool:
        return not isinstance(self.n_components, Integral)

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        gamma = weights = offset = None
        level = 1 / representation.n_features  # mean square of the entries of z
        if self.kernel == "cosine-gaussian":
            gamma = self._choose_gamma(representation)
            weights, offset = self._draw(representation.n_features, gamma)
            # φ changes by up to sqrt(2γ) times as much as z, in up to C directions.
            level *= max(1.0, 2 * gamma)
        rows_of = _feature_map(weights, offset)
        mean = feature_mean(representation, rows_of)
        covariance = second_moment(representation, mean, rows_of=rows_of)
        eigenvalues, eigenvectors = torch.linalg.eigh(covariance)  # ascending
        dtype = representation.features.dtype
        level = max(level, least_mean_square(dtype))
        rank = numerical_rank(eigenvalues, dtype, eigenvalues.new_tensor(level))
        self._check_rank(rank, len(representation))
        # Rounding can make the smallest eigenvalues negative.
        shares = eigenvalues.flip(0).clamp(min=0).cumsum(dim=0)
        shares = shares / shares[-1]
        D = self._choose_components(shares, rank)
        self.mean_ = mean.numpy(force=True)
        self.components_ = eigenvectors[:, -D:].contiguous().numpy(force=True)
        self.n_components_ = D
        self.explained_variance_ratio_ = float(shares[D - 1])
        self.gamma_ = gamma
        self.random_weights_, self.random_offset_ = weights, offset

    def _choose_gamma(self, representation: Representation) -> float:
        """Return γ; "auto" takes 1 divided by the mean squared distance between two training images."""
        if self.gamma != "auto":
            return float(self.gamma)
        mean = feature_mean(representation, unit_rows)
        # From differences, since 1 - |mean|² would cancel if all directions are similar.
        squared = sum(float((unit_rows(batch.features) - mean).square_().sum()) for batch in representation.batches())
        variance = squared / len(representation)
        eps, eps_double = (torch.finfo(dtype).eps for dtype in (representation.features.dtype, torch.float64))
        if variance <= max(eps**2, 100 * eps_double):
            # All directions are the same up to rounding, which this check refuses.
            self._check_rank(0, len(representation))
        return 1 / (2 * variance)

    def _draw(self, C: int, gamma: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Draw the weights, shape (C, M), and the offset, shape (M,), of the random Fourier features."""
        rng = check_random_state(self.random_state)
        weights = np.sqrt(2 * gamma) * rng.normal(size=(C, self.n_random_features))
        return weights, rng.uniform(0, 2 * np.pi, size=self.n_random_features)

    def _choose_components(self, shares: Tensor, rank: int) -> int:
        """Return D for the cumulative shares of the variance, largest component first."""
        if not self._is_share():
            return int(self.n_components)
        n_below = int((shares < self.n_components).sum())
        return min(n_below + 1, rank - 1)

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        mean, components = (double_like(array, representation.features) for array in (self.mean_, self.components_))
        rows_of = _feature_map(self.random_weights_, self.random_offset_)
        for batch in representation.batches(images_per_batch(max(len(mean), representation.n_features))):
            centred = rows_of(batch.features) - mean  # (m, C) or (m, M)
            residual = centred - (centred @ components) @ components.T
            yield -torch.linalg.vector_norm(residual, dim=1)


def _feature_map(weights: NDArray[np.float64] | None, offset: NDArray[np.float64] | None) -> RowsOf:
    """Return the function that maps features to φ(z) in float64: `unit_rows`, or random Fourier features of them."""
    if weights is None or offset is None:
        return unit_rows
    amplitude = np.sqrt(2 / len(offset))

    def random_features(features: Tensor) -> Tensor:
        W, u = double_like(weights, features), double_like(offset, features)
        angles = unit_rows(features) @ W + u  # (m, M)
        return angles.cos_().mul_(amplitude)

    return random_features
