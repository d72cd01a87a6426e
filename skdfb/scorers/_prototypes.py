"""Prototypes: the similarity to several directions per class."""

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from skdfb._constraints import RANDOM_STATE, Interval
from skdfb.scorers._base import BaseScorer, check_class_indices, double_like
from skdfb.scorers._clusters import best_class, cluster_classes
from skdfb.scorers._moments import labelled_batches
from skdfb.scorers._neighbours import unit_rows
from skdfb.scorers._representation import Representation


class Prototypes(BaseScorer):
    r"""Several prototypes per class: the log-likelihood of a mixture of directions, of the most likely class.

    .. math:: S(x) = \max_k \log \sum_j w_{kj} \, e^{p_{kj} \cdot z / \tau}, \qquad z = h / \lVert h \rVert

    where h are the C features of image x, :math:`p_{kj}` are the prototypes of class k, of length 1, :math:`w_{kj}` is
    the share of the images of the class that are nearest to prototype j, and τ is `temperature`. Up to a constant, the
    score is the log-likelihood under a mixture of von Mises-Fisher distributions with concentration 1 / τ. Higher is
    more in-distribution; scores lie between -1 / τ and 1 / τ. With one class (a background representation) one mixture
    is fitted to all images, and `y` is not needed.

    Parameters
    ----------
    n_prototypes : int, default=6
        Number of prototypes per class, at least 1. A class with fewer different images has fewer prototypes.
    temperature : float, default=0.1
        Temperature τ > 0. As τ tends to 0, the score multiplied by τ tends to the largest cosine with any prototype.
    samples_per_class : int, default=5000
        Number of images per class, at least 1, that k-means runs on. They are drawn at random, and their features are
        held in float64 at once. The other images then join the nearest prototype of their class. None takes all
        images.
    random_state : int, RandomState instance or None, default=0
        Seed for drawing these images and the starts of k-means. None gives other draws in each `fit`.

    Attributes
    ----------
    prototypes_ : ndarray of shape (M, C)
        All prototypes, in the order of their classes.
    weights_ : ndarray of shape (M,)
        Share of each prototype in its class.
    prototype_classes_ : ndarray of shape (M,)
        Class of each prototype.
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit".

    See Also
    --------
    ClassGaussianMixture : Several centres per class, with Mahalanobis distances.
    KNN : All training images as prototypes.

    Notes
    -----
    The mixture of von Mises-Fisher distributions for each class, the six prototypes and the temperature come from
    PALM. PALM trains the network to increase this likelihood. It assigns images to prototypes by Sinkhorn's algorithm
    and updates the prototypes by moving averages. It then uses other scores, such as the Mahalanobis distance, on the
    trained network. This scorer only uses the mixture, on the features of any trained network: spherical k-means (the
    best of 16 starts) finds the prototypes, and the likelihood is the score. (With soft assignments at this
    temperature, all prototypes of a class would become equal unless the network was trained to spread them.)

    Classes without images have no prototypes. An image whose features are all 0 has no direction; its score is
    log Σ w = 0. The order of the training images matters only if a class has more than `samples_per_class` images.

    References
    ----------
    After Lu et al., *Learning with Mixture of Prototypes for Out-of-Distribution Detection*, ICLR 2024,
    arXiv 2402.02653.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import Prototypes, Representation
    >>> head = {"weight": np.eye(2), "bias": np.zeros(2)}
    >>> features = np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [-2.0, 0.0]])
    >>> y = np.array([0, 0, 0, 0, 1, 1])  # class 0 has two directions
    >>> scorer = Prototypes(n_prototypes=2).fit(Representation.from_numpy(features=features, **head), y)
    >>> new = np.array([[5.0, 0.0], [-5.0, 0.0], [0.0, -5.0]])
    >>> scorer.score_samples(Representation.from_numpy(features=new, **head)).round(2)
    array([ 9.31, 10.  ,  0.  ])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_prototypes": [Interval(Integral, 1, None, closed="left")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "samples_per_class": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": RANDOM_STATE,
    }

    def __init__(
        self,
        n_prototypes: int = 6,
        temperature: float = 0.1,
        samples_per_class: int | None = 5000,
        random_state: int | RandomState | None = 0,
    ) -> None:
        self.n_prototypes = n_prototypes
        self.temperature = temperature
        self.samples_per_class = samples_per_class
        self.random_state = random_state

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        labels = check_class_indices(y, representation)
        members, classes = cluster_classes(
            representation,
            labels,
            unit_rows,
            lambda n_images: min(self.n_prototypes, n_images),
            samples_per_class=self.samples_per_class,
            random_state=self.random_state,
            spherical=True,
        )
        # k-means used a sample of the images; the prototypes are the means over all images.
        prototypes = _directions(representation, members, len(classes))
        self.prototypes_ = prototypes.numpy(force=True)
        # Images of the prototype divided by images of its class.
        self.weights_ = np.bincount(members) / np.bincount(labels)[classes]
        self.prototype_classes_ = classes

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        prototypes = double_like(self.prototypes_, representation.features)
        weights = double_like(self.weights_, representation.features)
        for batch in representation.batches():
            # Both factors have rows of length 1.
            cosines = unit_rows(batch.features) @ prototypes.T  # (m, M)
            # Logarithms of the terms of each mixture, so that no exponential overflows at a low temperature.
            yield best_class(weights.log() + cosines / self.temperature, self.prototype_classes_)


def _directions(representation: Representation, groups: NDArray[np.int64], n_groups: int) -> Tensor:
    """Return the mean direction of the features of each group, (M, C), of length 1, or 0 if they cancel out."""
    # Created with the first batch, which determines the device.
    sums: Tensor | None = None
    for batch, batch_groups in labelled_batches(representation, groups):
        z = unit_rows(batch.features)
        sums = z.new_zeros(n_groups, z.shape[1]) if sums is None else sums
        sums.index_add_(0, batch_groups.to(z.device), z)
    assert sums is not None, "there is at least one image"
    # A single NaN or infinity makes the sum NaN.
    if not torch.isfinite(sums).all():
        raise ValueError(
            "representation.features hold NaN or infinity: expected finite numbers; leave out such images, or compute "
            "them in a wider floating-point type."
        )
    return unit_rows(sums)
