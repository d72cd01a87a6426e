"""FDBD: distance of the features to the decision boundaries."""

from collections.abc import Iterator

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from skdfb.scorers._base import BaseScorer, as_double, double_like
from skdfb.scorers._moments import feature_mean
from skdfb.scorers._representation import Representation


class FDBD(BaseScorer):
    r"""Fast decision boundary based detector: mean distance of the features to the boundaries of the predicted class.

    .. math::

        S(x) = \frac{1}{K - 1} \sum_{j \ne c}
        \frac{z_c - z_j}{\lVert w_c - w_j \rVert \, \lVert h - \mu \rVert}, \qquad c = \arg\max_k z_k

    where h are the C features and z the K logits of image x, :math:`w_k` is row k of the head's weight and μ is the
    mean of the training features. Without :math:`\lVert h - \mu \rVert`, each term is the distance from h to the
    nearest point at which class j has the same logit as the predicted class c. Higher is more in-distribution; the
    smallest value is 0.

    Attributes
    ----------
    mean_ : ndarray of shape (C,)
        The mean μ of the training features.
    boundary_weights_ : ndarray of shape (K, K)
        Factors of z_c - z_j: :math:`1 / ((K - 1) \lVert w_c - w_j \rVert)`, and 0 on the diagonal.
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit".

    See Also
    --------
    NCI : How closely the features align with the weight of the predicted class.

    Notes
    -----
    There is no boundary between classes with the same weight. Such pairs are left out, and K - 1 is replaced by the
    number of boundaries of class c. `fit` raises ValueError if all classes have the same weight. If h = μ, the formula
    divides by 0, and the score is 0. The authors' code sums over the classes instead of averaging; OpenOOD also offers
    the norm of h instead of :math:`\lVert h - \mu \rVert`.

    `fit` needs no classes and reads the features once. Besides a batch, it holds K x K numbers and the K x C weight of
    the head.

    References
    ----------
    Liu and Qin, *Fast Decision Boundary based Out-of-Distribution Detector*, ICML 2024, arXiv 2312.11536.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import FDBD, Representation
    >>> features = np.array([[4.0, 0.0], [0.0, 4.0], [2.0, 1.0]])
    >>> representation = Representation.from_numpy(features=features, weight=np.eye(2), bias=np.zeros(2))
    >>> FDBD().fit(representation).score_samples(representation).round(3)
    array([1.086, 0.92 , 1.061])
    """

    _min_classes = 2

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        mean = feature_mean(representation)
        weight = as_double(representation.weight)
        # Without matrix products: their rounding errors would give equal weights a distance above 0.
        distances = torch.cdist(weight, weight, compute_mode="donot_use_mm_for_euclid_dist")
        boundaries = distances > 0
        if not boundaries.any():
            raise ValueError(
                "representation.weight has the same row for every class, so there are no decision boundaries: expected "
                "the head of a trained classifier, of shape (K, C)."
            )
        # Averaged over the boundaries that a class has, which are K - 1 if all weights differ.
        counts = boundaries.sum(dim=1, keepdim=True)
        boundary_weights = torch.where(boundaries, 1 / (counts * distances), 0.0)
        self.mean_ = mean.numpy(force=True)
        self.boundary_weights_ = boundary_weights.numpy(force=True)

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        mean = double_like(self.mean_, representation.features)
        boundary_weights = double_like(self.boundary_weights_, representation.features)
        for batch in representation.batches():
            z = as_double(batch.logits)
            largest, c = z.max(dim=1, keepdim=True)
            distance = ((largest - z) * boundary_weights[c[:, 0]]).sum(dim=1)
            norm = torch.linalg.vector_norm(as_double(batch.features) - mean, dim=1)
            # At the mean, 0 * distance is 0, but stays NaN for NaN logits, so that such images raise an error.
            yield torch.where(norm == 0, 0.0 * distance, distance / norm)
