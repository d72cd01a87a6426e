"""Mahalanobis: distance to the nearest class mean, relative to the covariance within classes."""

from collections.abc import Iterator
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils._param_validation import StrOptions
from torch import Tensor

from skdfb._constraints import Interval
from skdfb.scorers._base import BaseScorer, check_class_indices, double_like
from skdfb.scorers._moments import (
    check_variation,
    choose_shrinkage,
    feature_rows,
    nearest_squared_distance,
    whitening,
    within_class_moments,
)
from skdfb.scorers._representation import Representation


class Mahalanobis(BaseScorer):
    r"""Squared Mahalanobis distance to the nearest class mean, negated.

    .. math::

        S(x) = -\min_k \, (h - \mu_k)^\top \Sigma^{+} (h - \mu_k), \qquad
        \Sigma = \frac{1}{n} \sum_i (h_i - \mu_{y_i})(h_i - \mu_{y_i})^\top

    where h are the C features of image x, :math:`\mu_k` is the mean feature of class k, and the sum runs over the n
    training images i, of class :math:`y_i`; Σ⁺ is the pseudo-inverse of Σ. Higher is more in-distribution; the largest
    score is 0.

    Parameters
    ----------
    shrinkage : float or "auto", default=0.0
        Number s in [0, 1]: Σ is replaced by :math:`(1 - s) \Sigma + s \frac{\mathrm{tr} \Sigma}{C} I`. 0 leaves Σ
        unchanged, 1 gives Euclidean distances in units of the mean variance. With s > 0, all directions count. "auto"
        estimates the s that brings Σ nearest to the true covariance, if features are normally distributed: the fewer
        images per feature, the larger. See Notes.
    normalize : bool, default=False
        Whether to divide the features of each image by their L2 norm first, in `fit` and in `score_samples`. With True,
        this is Mahalanobis++ of Müller and Hein: h in the formula is replaced by :math:`h / \lVert h \rVert`. The
        norms of features often differ much between images, which one covariance for all classes does not describe.
    use_classes : bool, default=True
        Whether each class has its own mean. With False, all training images share one mean and one covariance, for any
        number of classes, and `fit` ignores y.

    Attributes
    ----------
    shrinkage_ : float
        The shrinkage s that was used.
    normalize_ : bool
        Whether the features were normalised in `fit`. Scores use this value.
    mean_ : ndarray of shape (C,)
        Mean of all training features, normalised if `normalize_`, which is subtracted before whitening.
    whitening_ : ndarray of shape (C, r)
        Matrix A with A Aᵀ = Σ⁺; r is the numerical rank of Σ, or C with shrinkage.
    whitened_means_ : ndarray of shape (K', r)
        :math:`A^\top (\mu_k - \mathrm{mean})` of the K' classes that have training images, in the order of classes; K'
        is 1 with ``use_classes=False``.
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit".

    See Also
    --------
    RelativeMahalanobis : The distance relative to that from a single Gaussian for all images.
    Residual : Distance from a principal space, which needs no classes.

    Notes
    -----
    `fit` needs the classes y, 0..K-1. With K = 1 (a background representation) y may be None, and all images are one
    class. A class without training images is left out. With ``use_classes=False`` y is never needed. Such a score suits
    features of a network that was not trained on these classes.

    With ``normalize=True``, features that are all 0 stay 0, as in :class:`KNN`, and have a finite score. The authors'
    code gives NaN for them. Since norms do not count, `fit` raises ValueError if the features of each class differ in
    their norm alone.

    This is the score of the last layer. It leaves out the paper's input perturbation and its logistic regression over
    layers, which is trained on OOD images. Some libraries use half of the distance, or scale Σ by n; the ranking of
    images is the same.

    The pseudo-inverse ignores directions in which training features do not vary within classes beyond rounding
    errors. So with few images (n - K < C), the score does not change when an image moves out of the span of the
    training features. If n is about C, the smallest variances are far too small, and training images score thousands
    of times higher than new images. Use ``shrinkage="auto"`` in both cases: oracle approximating shrinkage (Chen et
    al., 2010), computed from C, n - K' and Σ only. `fit` raises ValueError if features do not vary in any direction;
    a single training image never varies.

    All computations are in float64. `fit` reads the features twice, in batches; besides a batch, it holds C x C and
    K x C numbers. Scoring multiplies the features once by the C x r matrix A; the distances to the K means are then a
    product with K x r numbers.

    References
    ----------
    Lee et al., *A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks*,
    NeurIPS 2018, arXiv 1807.03888. Müller and Hein, *Mahalanobis++: Improving OOD Detection via Feature
    Normalization*, ICML 2025, arXiv 2505.18032. Chen et al., "Shrinkage Algorithms for MMSE Covariance Estimation",
    IEEE Transactions on Signal Processing 58(10), 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import Mahalanobis, Representation
    >>> rng = np.random.default_rng(0)
    >>> head, y = {"weight": np.eye(2), "bias": np.zeros(2)}, np.arange(100) % 2
    >>> features = rng.normal(size=(100, 2)) + 9 * np.eye(2)[y]
    >>> scorer = Mahalanobis().fit(Representation.from_numpy(features=features, **head), y)
    >>> new = np.array([[9.0, 0.0], [0.0, 9.0], [4.5, 4.5]])
    >>> first, second, between = scorer.score_samples(Representation.from_numpy(features=new, **head))
    >>> bool(between < min(first, second))
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "shrinkage": [Interval(Real, 0, 1, closed="both"), StrOptions({"auto"})],
        "normalize": ["boolean"],
        "use_classes": ["boolean"],
    }

    def __init__(self, shrinkage: float | str = 0.0, *, normalize: bool = False, use_classes: bool = True) -> None:
        self.shrinkage = shrinkage
        self.normalize = normalize
        self.use_classes = use_classes

    def _check_sizes(self, n_features: int, n_classes: int, n_images: int) -> None:
        check_variation(n_images > 1)  # one image is its own class mean

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        n = len(representation)
        labels = check_class_indices(y, representation) if self.use_classes else np.zeros(n, dtype=np.int64)
        normalize = bool(self.normalize)
        means, shares, covariance, mean_square = within_class_moments(representation, labels, normalize=normalize)
        # Each class mean uses up one degree of freedom.
        shrinkage = choose_shrinkage(self.shrinkage, covariance, n - len(means))
        A = whitening(covariance, representation.features.dtype, mean_square, shrinkage)
        # Features and means are centred before whitening, so that a large common mean does not cancel digits.
        mean = shares @ means
        self.shrinkage_ = shrinkage
        self.normalize_ = normalize
        self.mean_ = mean.numpy(force=True)
        self.whitening_ = A.numpy(force=True)
        self.whitened_means_ = ((means - mean) @ A).numpy(force=True)

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        mean, A, whitened_means = (
            double_like(array, representation.features) for array in (self.mean_, self.whitening_, self.whitened_means_)
        )
        # Models that were saved before `normalize` was added lack the attribute.
        rows_of = feature_rows(getattr(self, "normalize_", False))
        for batch in representation.batches():
            yield -nearest_squared_distance((rows_of(batch.features) - mean) @ A, whitened_means)
