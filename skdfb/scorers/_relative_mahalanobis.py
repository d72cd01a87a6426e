"""RelativeMahalanobis: the Mahalanobis distance to the nearest class minus the distance to all images."""

from collections.abc import Iterator
from numbers import Real
from typing import Any, ClassVar

from numpy.typing import ArrayLike
from sklearn.utils._param_validation import StrOptions
from torch import Tensor

from skdfb._constraints import Interval
from skdfb.scorers._base import BaseScorer, check_class_indices, double_like
from skdfb.scorers._moments import (
    choose_shrinkage,
    feature_rows,
    gram,
    nearest_squared_distance,
    whitening,
    within_class_moments,
)
from skdfb.scorers._representation import Representation


class RelativeMahalanobis(BaseScorer):
    r"""Mahalanobis distance to the nearest class mean minus that to the mean of all images, negated.

    .. math::

        S(x) = -\Bigl( \min_k d_k(x) - d_0(x) \Bigr), \qquad
        d_k(x) = (h - \mu_k)^\top \Sigma^{+} (h - \mu_k), \qquad
        d_0(x) = (h - \mu_0)^\top \Sigma_0^{+} (h - \mu_0)

    where h are the C features of image x, :math:`\mu_k` is the mean feature of class k and Σ is the covariance of the
    training features about the means of their classes. :math:`\mu_0` and :math:`\Sigma_0` are the mean and the
    covariance of all training features, and ⁺ is the pseudo-inverse. Covariances are divided by the number of images.
    In directions in which all classes are alike, the distances of :class:`Mahalanobis` are mostly noise; here these
    directions cancel out. Higher is more in-distribution.

    Parameters
    ----------
    shrinkage : float or "auto", default=0.0
        Shrinkage s in [0, 1]. It replaces Σ by :math:`(1 - s) \Sigma + s \frac{\mathrm{tr} \Sigma}{C} I`, and
        :math:`\Sigma_0` in the same way. With 0, as in the paper, the covariances are not changed. "auto" estimates the
        s for Σ, as :class:`Mahalanobis` does, and takes it for both.
    normalize : bool, default=False
        Whether to divide the features of each image by their L2 norm first, in `fit` and in `score_samples`, as Müller
        and Hein do: h in the formulas is replaced by :math:`h / \lVert h \rVert`.

    Attributes
    ----------
    shrinkage_ : float
        The shrinkage s that was used.
    normalize_ : bool
        Whether the features were normalised in `fit`. Scores use this value.
    mean_ : ndarray of shape (C,)
        The mean of all training features, normalised if `normalize_`.
    whitening_ : ndarray of shape (C, r)
        The matrix A with A Aᵀ = Σ⁺, where r is the numerical rank of Σ, or C with shrinkage.
    whitened_means_ : ndarray of shape (K', r)
        The means :math:`A^\top (\mu_k - \mu_0)` of the K' classes that have training images, in their order.
    overall_whitening_ : ndarray of shape (C, r')
        The matrix `whitening_` for :math:`\Sigma_0`.
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit".

    See Also
    --------
    Mahalanobis : The distance to the nearest class mean alone.

    Notes
    -----
    `fit` needs the classes y, 0..K-1. A class without training images is left out. If fewer than two classes are left,
    the score would be 0 for every image, so `fit` raises ValueError. It also raises ValueError if no class has two
    different images.

    The pseudo-inverses leave out directions whose variance is not larger than rounding errors. With few images
    (n - K < C) these directions differ between Σ and :math:`\Sigma_0`; use `shrinkage` in this case.

    With ``normalize=True``, features that are all 0 stay 0 and have a finite score, as in :class:`Mahalanobis`.

    All statistics and scores are computed in float64. Since :math:`\Sigma_0` is Σ plus the covariance of the class
    means, `fit` computes only one product of the features with themselves. Scoring computes two products of the
    features with C x C matrices.

    References
    ----------
    Ren et al., *A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection*, 2021, arXiv 2106.09022.
    Müller and Hein, *Mahalanobis++: Improving OOD Detection via Feature Normalization*, ICML 2025, arXiv 2505.18032.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import RelativeMahalanobis, Representation
    >>> rng = np.random.default_rng(0)
    >>> head, y = {"weight": np.eye(2, 3), "bias": np.zeros(2)}, np.arange(100) % 2
    >>> features = rng.normal(size=(100, 3)) + 9 * np.eye(2, 3)[y]
    >>> scorer = RelativeMahalanobis().fit(Representation.from_numpy(features=features, **head), y)
    >>> new = np.array([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [4.5, 4.5, 0.0]])
    >>> first, second, between = scorer.score_samples(Representation.from_numpy(features=new, **head))
    >>> bool(between < min(first, second))
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "shrinkage": [Interval(Real, 0, 1, closed="both"), StrOptions({"auto"})],
        "normalize": ["boolean"],
    }
    _min_classes = 2

    def __init__(self, shrinkage: float | str = 0.0, *, normalize: bool = False) -> None:
        self.shrinkage = shrinkage
        self.normalize = normalize

    def _check_sizes(self, n_features: int, n_classes: int, n_images: int) -> None:
        # Two images are of one class, or each is the mean of its own class, so that Σ is 0.
        if n_images < 3:
            raise ValueError(
                f"representation holds {n_images} image(s): expected at least 3 images, of two classes, since one of "
                "the classes needs two different images. Give more images, or use a scorer that needs no classes."
            )

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        labels = check_class_indices(y, representation)
        n, normalize = len(representation), bool(self.normalize)
        means, shares, covariance, mean_square = within_class_moments(representation, labels, normalize=normalize)
        if len(means) < 2:
            raise ValueError(
                f"y holds class {labels[0]} only: expected images of at least two classes, since the score would be 0 "
                "for every image. Use Mahalanobis() for one class."
            )
        mean = shares @ means
        # Each class mean counts as often as its class has images.
        between = gram(shares.sqrt()[:, None] * (means - mean))  # (C, C)
        # Σ_0 is Σ plus the covariance of the class means.
        overall = covariance + between
        # One shrinkage for both. With two, far images would be further from all images than from the nearest class, in
        # the directions that the smaller of the two lets count more, and would score highest.
        shrinkage = choose_shrinkage(self.shrinkage, covariance, n - len(means))
        A, A_0 = (
            whitening(matrix, representation.features.dtype, mean_square, shrinkage) for matrix in (covariance, overall)
        )
        self.shrinkage_ = shrinkage
        self.normalize_ = normalize
        self.mean_ = mean.numpy(force=True)
        self.whitening_ = A.numpy(force=True)
        self.whitened_means_ = ((means - mean) @ A).numpy(force=True)
        self.overall_whitening_ = A_0.numpy(force=True)

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        mean, A, whitened_means, A_0 = (
            double_like(array, representation.features)
            for array in (self.mean_, self.whitening_, self.whitened_means_, self.overall_whitening_)
        )
        # Models that were saved before `normalize` was added lack the attribute.
        rows_of = feature_rows(getattr(self, "normalize_", False))
        for batch in representation.batches():
            # Centred at μ_0 once, so that both distances use the same rounded difference.
            centred = rows_of(batch.features) - mean  # (m, C)
            to_nearest = nearest_squared_distance(centred @ A, whitened_means)
            to_all = (centred @ A_0).square_().sum(dim=1)
            yield to_all - to_nearest
