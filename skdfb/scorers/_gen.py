"""GEN: generalised entropy of the softmax."""

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, ClassVar

from torch import Tensor

from skdfb._constraints import Interval
from skdfb.scorers._base import BaseScorer, logit_batches
from skdfb.scorers._protocol import ScorerOutput
from skdfb.scorers._representation import Representation
from skdfb.scorers._softmax import Softmax, row_by_row


class GEN(BaseScorer):
    r"""Negative generalised entropy of the largest softmax probabilities.

    .. math:: S(x) = -\sum_{m=1}^{M} p_{(m)}^\gamma \, (1 - p_{(m)})^\gamma, \qquad p = \mathrm{softmax}(z)

    where z are the K logits of image x, :math:`p_{(1)} \ge p_{(2)} \ge \dots` are the sorted probabilities, γ is
    `gamma` and M is the smaller of `n_top` and K. Higher is more in-distribution; scores lie between
    :math:`-M / 4^\gamma` and 0. `fit` only records the sizes.

    Parameters
    ----------
    gamma : float, default=0.1
        Exponent γ > 0. The paper uses values below 1, which give small deviations from 0 and 1 the most weight.
    n_top : int, default=100
        Number M >= 1 of largest probabilities in the sum; if there are fewer classes, all of them. With many classes,
        the smallest probabilities are noise.

    Attributes
    ----------
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`, at least 2.
    output : str
        "probability".

    See Also
    --------
    Entropy : Shannon's entropy.
    MSP : The largest probability only.

    Notes
    -----
    Each term is the exponential of γ (log p + log(1 - p)), in float64. For the largest probability, log(1 - p) is the
    log-sum-exp of the other logits minus that of all logits, which is exact even if p rounds to 1. With γ = 0.1, scores
    stay distinct up to margins of about 7,000 between the two largest logits. Some libraries average the terms, which
    divides all scores by M.

    References
    ----------
    Liu et al., *GEN: Pushing the Limits of Softmax-Based Out-of-Distribution Detection*, CVPR 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import GEN, Representation
    >>> features = np.array([[4.0, 0.0], [1.0, 1.0]])
    >>> representation = Representation.from_numpy(features=features, weight=np.eye(2), bias=np.zeros(2))
    >>> GEN().fit(representation).score_samples(representation).round(3)
    array([-1.336, -1.741])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "gamma": [Interval(Real, 0, None, closed="neither")],
        "n_top": [Interval(Integral, 1, None, closed="left")],
    }
    _min_classes = 2
    output: ScorerOutput = "probability"

    def __init__(self, gamma: float = 0.1, n_top: int = 100) -> None:
        self.gamma = gamma
        self.n_top = n_top

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        M = min(self.n_top, representation.n_classes)
        for batch in logit_batches(representation):
            yield row_by_row(batch.logits, lambda softmax: self._negative_sum(softmax, M))

    def _negative_sum(self, softmax: Softmax, M: int) -> Tensor:
        log_terms = self.gamma * (softmax.log_p() + softmax.log_complements())  # (m, K)
        if log_terms.shape[1] > M:
            # The largest terms belong to the largest probabilities: p (1 - p) ranks the probabilities of an image like
            # p, since they sum to 1.
            log_terms = log_terms.topk(M, dim=1).values
        return -log_terms.exp_().sum(dim=1)
