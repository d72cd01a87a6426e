"""A linear head in closed form, for features that have none."""

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from skdfb.scorers._moments import oracle_shrinkage, whitening, within_class_moments
from skdfb.scorers._representation import Representation

__all__ = ["discriminant_head"]


def discriminant_head(
    representation: Representation, labels: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    r"""Return weight (K, C) and bias (K,) of a linear discriminant analysis of the features.

    .. math:: W_k = \Sigma^{-1} (\mu_k - \mu), \qquad
        b_k = \log \pi_k - \tfrac12 (\mu_k - \mu)^\top \Sigma^{-1} (\mu_k - \mu) - W_k^\top \mu

    with the mean :math:`\mu_k` and the share :math:`\pi_k` of class k, the mean :math:`\mu` of all images, and the
    covariance :math:`\Sigma` within classes, shrunk as in :class:`Mahalanobis`. The softmax of the logits is the
    probability of the classes if the features of each class are normally distributed with this covariance. A class
    without images has the weight 0, and the bias of the rarest class.

    Raises
    ------
    ValueError
        If the features do not vary within classes.
    """
    means, shares, covariance, mean_square = within_class_moments(representation, labels)
    shrinkage = oracle_shrinkage(covariance, max(1, len(representation) - len(means)))
    A = whitening(covariance, representation.features.dtype, mean_square, shrinkage)
    centre = shares @ means
    centred = (means - centre) @ A  # (K', r)
    W = centred @ A.T
    b = shares.log() - centred.square().sum(1) / 2 - W @ centre
    present = np.unique(labels)
    weight = W.new_zeros(representation.n_classes, W.shape[1])
    bias = b.min().repeat(representation.n_classes)
    weight[present], bias[present] = W, b
    return _as_stored(weight, representation.features), _as_stored(bias, representation.features)


def _as_stored(tensor: Tensor, features: Tensor) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = tensor.to(features.dtype).numpy(force=True)
    return array
