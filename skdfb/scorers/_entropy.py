"""Entropy of the softmax."""

from collections.abc import Iterator

import torch
from torch import Tensor

from skdfb.scorers._base import BaseScorer, logit_batches
from skdfb.scorers._protocol import ScorerOutput
from skdfb.scorers._representation import Representation
from skdfb.scorers._softmax import Softmax, row_by_row


class Entropy(BaseScorer):
    r"""Negative Shannon entropy of the softmax.

    .. math:: S(x) = \sum_k p_k \log p_k, \qquad p = \mathrm{softmax}(z)

    where z are the K logits of image x and 0 log 0 = 0. Higher is more in-distribution: 0 for a certain prediction,
    -log K if all classes are equally likely. `fit` only records the sizes.

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
    GEN : An entropy that gives small probabilities more weight.
    MSP : The largest probability only.

    Notes
    -----
    The score is computed in float64 from the logarithms of the probabilities. That of the largest probability is -log(1
    + sum of the others relative to it). So scores of confident images stay distinct up to margins of about 700 between
    the two largest logits. Libraries that clip probabilities give all such images the same score.

    References
    ----------
    Lakshminarayanan et al., *Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles*, NeurIPS 2017,
    arXiv 1612.01474 (predictive entropy on unknown classes).

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import Entropy, Representation
    >>> features = np.array([[4.0, 0.0], [1.0, 1.0]])
    >>> representation = Representation.from_numpy(features=features, weight=np.eye(2), bias=np.zeros(2))
    >>> Entropy().fit(representation).score_samples(representation).round(3)
    array([-0.09 , -0.693])
    """

    _min_classes = 2
    output: ScorerOutput = "probability"

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        for batch in logit_batches(representation):
            yield row_by_row(batch.logits, _negative_entropy)


def _negative_entropy(softmax: Softmax) -> Tensor:
    """Return sum p log p of each row."""
    # log p is the shifted logit minus the log of the normaliser. Both terms are at most 0, so nothing cancels.
    # The clamp turns 0 * -inf, which is NaN, into 0.
    total = (softmax.exponentials * softmax.shifted.clamp(min=torch.finfo(softmax.shifted.dtype).min)).sum(dim=1)
    return total / (1 + softmax.others[:, 0]) - softmax.log_normaliser[:, 0]
