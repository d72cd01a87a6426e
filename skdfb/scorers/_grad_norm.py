"""GradNorm: gradient of the last layer's weight, in closed form."""

from collections.abc import Iterator
from numbers import Real
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor

from skdfb.scorers._base import BaseScorer, as_double
from skdfb.scorers._representation import Representation


class GradNorm(BaseScorer):
    r"""L1 norm of the last layer's gradient of the divergence between uniform and softmax.

    .. math::

        S(x) = \Bigl\lVert \frac{\partial}{\partial W} \mathrm{KL}(u \,\Vert\, p) \Bigr\rVert_1
             = \frac{1}{T} \, \lVert h \rVert_1 \sum_k \Bigl| \frac{1}{K} - p_k \Bigr|, \qquad
        p = \mathrm{softmax}(z / T), \qquad z = W h + b

    where h are the C features and z the K logits of image x, W and b are the head, u is the uniform distribution over
    the K classes and T is `temperature`. Higher is more in-distribution; the smallest value is 0, where all logits are
    equal. `fit` only records the sizes.

    Parameters
    ----------
    temperature : float, default=1.0
        T > 0.

    Attributes
    ----------
    n_features_in_ : int
        Number of features C seen in `fit`.
    n_classes_ : int
        Number of classes K seen in `fit`, at least 2.
    output : str
        "logit".

    See Also
    --------
    MaxNorm : The norm of the features alone.

    Notes
    -----
    The gradient with respect to the logits is (p - 1/K) / T, and each image's gradient with respect to W is the outer
    product of that and h; so the norm is a product of two, and nothing is propagated back. Only W counts, not b. The
    authors' code and libraries after it sum the cross-entropy over the classes, instead of taking its mean, which gives
    K times this score.

    K p - 1 is computed from exp(z) - 1, so that it does not cancel to 0 where the logits are nearly equal.

    References
    ----------
    Huang et al., *On the Importance of Gradients for Detecting Distributional Shifts in the Wild*, NeurIPS 2021,
    arXiv 2110.00218.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import GradNorm, Representation
    >>> features = np.array([[4.0, 0.0], [1.0, 1.0]])
    >>> representation = Representation.from_numpy(features=features, weight=np.eye(2), bias=np.zeros(2))
    >>> GradNorm().fit(representation).score_samples(representation).round(3)
    array([3.856, 0.   ])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "temperature": [Interval(Real, 0, None, closed="neither")]
    }
    _min_classes = 2

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        for batch in representation.batches():
            h = as_double(batch.features)
            yield h.abs().sum(dim=1) / self.temperature * _distance_to_uniform(batch.logits, self.temperature)


def _distance_to_uniform(logits: Tensor, temperature: float) -> Tensor:
    """Return the sum of |1/K - p_k|, shape (m,)."""
    z = as_double(logits)
    e = torch.expm1((z - z.amax(dim=1, keepdim=True)) / temperature)  # p is 1 + e over its sum
    mean = e.mean(dim=1, keepdim=True)
    return ((e - mean) / (1 + mean)).abs().mean(dim=1)
