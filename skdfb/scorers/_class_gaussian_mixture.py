"""Class Gaussian mixtures: Mahalanobis distances to several centres per class."""

from collections.abc import Iterator
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.random import RandomState
from numpy.typing import ArrayLike
from torch import Tensor

from skdfb._constraints import RANDOM_STATE, Interval
from skdfb.scorers._base import BaseScorer, as_double, check_class_indices, double_like
from skdfb.scorers._clusters import best_class, cluster_classes
from skdfb.scorers._moments import check_variation, class_means, second_moment, whitening
from skdfb.scorers._representation import Representation


class ClassGaussianMixture(BaseScorer):
    r"""A mixture of Gaussians for each class, with one covariance for all of them.

    .. math::

        S(x) = -\min_k D_k(x), \qquad
        D_k(x) = -2 \log \sum_{j} w_{kj} \, e^{-d_{kj}(x) / 2}, \qquad
        d_{kj}(x) = (h - \mu_{kj})^\top \Sigma^{+} (h - \mu_{kj})

    where h are the C features of image x, :math:`\mu_{kj}` is the mean of component j of class k, :math:`w_{kj}` is its
    share of the images of the class, :math:`\Sigma` is the covariance about these means, pooled over all components,
    and :math:`\Sigma^{+}` is the pseudo-inverse of it. :math:`D_k` combines the squared Mahalanobis distances to the
    components of class k; up to a constant it is -2 times the log-likelihood. Higher is more in-distribution; the
    largest score is 0. With one class (a background representation), all images share one mixture, and `y` is not
    needed.

    Parameters
    ----------
    n_components : int, default=2
        Number of Gaussians per class, at least 1. A class gets fewer if it has fewer than two images for each of them,
        or fewer distinct images. With 1, the score is that of :class:`Mahalanobis`.
    samples_per_class : int, default=5000
        Largest number of images per class that k-means uses, at least 1. They are drawn at random; all other images
        then join the nearest component of their class. So many features are held in float64 at once. None uses all
        images.
    random_state : int, RandomState instance or None, default=0
        Seed for drawing these images and the starts of k-means. None draws differently in each `fit`.

    Attributes
    ----------
    means_ : ndarray of shape (M, C)
        Means of all M components, sorted by class.
    weights_ : ndarray of shape (M,)
        Share of the images of the class that each component has.
    component_classes_ : ndarray of shape (M,)
        Class of each component.
    whitening_ : ndarray of shape (C, r)
        Matrix A with A Aᵀ the pseudo-inverse of the pooled covariance, whose rank is r.
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit".

    See Also
    --------
    Mahalanobis : One Gaussian per class.
    Prototypes : Several directions per class.

    Notes
    -----
    HVCM projects the features to groups of attributes and trains the network together with a mixture of Gaussians for
    each category over these groups. Its score is the smallest weighted sum, over the categories, of the halved squared
    Mahalanobis distances of the groups. This scorer applies the idea to the features of any trained network: the
    components are found after training, over the whole feature, and combined by their likelihood.

    k-means with 16 starts finds the components among the features of each class. The features are not whitened for
    it: whitened by the covariance within classes, the gaps between components would be no wider than the noise. A
    separate covariance would be singular for each component that has no more images than features. So one covariance
    is pooled over all components, about their own means. If there are fewer images than features it is singular, and
    directions in which no component varies do not count. `fit` raises ValueError if no component varies at all; a
    single training image never does. Classes without images have no components.

    `fit` reads the features four times. Besides `samples_per_class` features, it holds M x C and C x C numbers. The
    order of training images matters only if a class has more than `samples_per_class`.

    References
    ----------
    After Li et al., *Hierarchical Visual Categories Modeling: A Joint Representation Learning and Density Estimation
    Framework for Out-of-Distribution Detection*, ICCV 2023, arXiv 2408.15580.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import ClassGaussianMixture, Representation
    >>> head = {"weight": np.eye(2), "bias": np.zeros(2)}
    >>> rng = np.random.default_rng(0)
    >>> middles = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 4.0], [8.0, 4.0]])
    >>> features = np.repeat(middles, 50, axis=0) + 0.3 * rng.normal(size=(200, 2))
    >>> y = np.repeat([0, 0, 1, 1], 50)  # each class is two groups of images
    >>> scorer = ClassGaussianMixture().fit(Representation.from_numpy(features=features, **head), y)
    >>> new = np.array([[8.0, 0.0], [4.0, 0.0]])  # in a group of class 0 and half-way between its groups
    >>> near, between = scorer.score_samples(Representation.from_numpy(features=new, **head))
    >>> bool(near > -2 and between < -100)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "samples_per_class": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": RANDOM_STATE,
    }

    def __init__(
        self,
        n_components: int = 2,
        samples_per_class: int | None = 5000,
        random_state: int | RandomState | None = 0,
    ) -> None:
        self.n_components = n_components
        self.samples_per_class = samples_per_class
        self.random_state = random_state

    def _check_sizes(self, n_features: int, n_classes: int, n_images: int) -> None:
        check_variation(n_images > 1)  # one image is the mean of its component

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        labels = check_class_indices(y, representation)
        components, classes = cluster_classes(
            representation,
            labels,
            as_double,
            # A component of one image would add nothing to the covariance.
            lambda n_images: max(1, min(self.n_components, n_images // 2)),
            samples_per_class=self.samples_per_class,
            random_state=self.random_state,
        )
        means, counts = class_means(representation, components, len(classes))
        covariance = second_moment(representation, means, components)
        mean_square = covariance.diagonal().mean() + (counts.double() @ means.square()).mean() / len(components)
        A = whitening(covariance, representation.features.dtype, mean_square)
        self.means_ = means.numpy(force=True)
        self.weights_ = np.bincount(components) / np.bincount(labels)[classes]
        self.component_classes_ = classes
        self.whitening_ = A.contiguous().numpy(force=True)

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        means, A, weights = (
            double_like(statistic, representation.features)
            for statistic in (self.means_, self.whitening_, self.weights_)
        )
        # Centred before whitening, so that a large common mean does not cancel digits.
        origin = means.mean(dim=0)
        centres = (means - origin) @ A  # (M, r)
        for batch in representation.batches():
            squared = _squared_distances((as_double(batch.features) - origin) @ A, centres)  # (m, M)
            # -min_k D_k is the largest over k of 2 log Σ_j exp(log w_kj - d_kj / 2).
            yield 2 * best_class(weights.log() - squared / 2, self.component_classes_)


def _squared_distances(rows: Tensor, centres: Tensor) -> Tensor:
    """Return the squared distance of each row to each centre, (m, M)."""
    squared = rows.square().sum(dim=1, keepdim=True) - 2 * rows @ centres.T + centres.square().sum(dim=1)
    nearest = squared.argmin(dim=1, keepdim=True)
    # The three terms cancel far from the origin, so the smallest distance is computed again from the difference.
    exact = (rows - centres[nearest[:, 0]]).square().sum(dim=1, keepdim=True)
    return squared.clamp(min=0.0).scatter(1, nearest, exact)
