"""GradNorm: gradient with respect to the weight of the last layer, in closed form."""

from collections.abc import Iterator
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from skdfb._constraints import Interval
from skdfb.scorers._base import BaseScorer, as_double
from skdfb.scorers._representation import Representation


class GradNorm(BaseScorer):
    r"""L1 norm of the gradient, with respect to the head's weight, of the divergence of the softmax from uniform.

    .. math::

        S(x) = \Bigl\lVert \frac{\partial}{\partial W} \mathrm{KL}(u \,\Vert\, p) \Bigr\rVert_1
             = \frac{1}{T} \, \lVert h \rVert_1 \sum_k \Bigl| \frac{1}{K} - p_k \Bigr|, \qquad
        p = \mathrm{softmax}(z / T), \qquad z = W h + b

    where h are the C features and z the K logits of image x, W and b are the head, u is the uniform distribution over
    the K classes and T is `temperature`. Higher is more in-distribution; the smallest value is 0, if all logits are
    equal. `fit` only records the sizes.

    Parameters
    ----------
    temperature : float, default=1.0
        Temperature T > 0.

    Attributes
    ----------
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`, at least 2.
    output : str
        "logit".

    See Also
    --------
    MaxNorm : The norm of the features only.

    Notes
    -----
    The gradient with respect to the logits is (p - 1/K) / T. The gradient with respect to W is the outer product of
    this and h, so its norm is the product of both norms, and no backward pass is needed. The gradient with respect to b
    does not count. The authors' code and libraries based on it sum the cross-entropy over the classes instead of
    averaging it, which gives K times this score.

    K p - 1 is computed from exp(z) - 1, so that it does not cancel to 0 if the logits are nearly equal.

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
    # p = (1 + e) / Σ (1 + e), so K p - 1 = (e - mean) / (1 + mean), which is accurate for small e.
    e = torch.expm1((z - z.amax(dim=1, keepdim=True)) / temperature)
    mean = e.mean(dim=1, keepdim=True)
    return ((e - mean) / (1 + mean)).abs().mean(dim=1)
