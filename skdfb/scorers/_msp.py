"""Maximum softmax probability."""

from collections.abc import Iterator

from torch import Tensor

from skdfb.scorers._base import BaseScorer, logit_batches
from skdfb.scorers._protocol import ScorerOutput
from skdfb.scorers._representation import Representation
from skdfb.scorers._softmax import row_by_row


class MSP(BaseScorer):
    r"""Maximum softmax probability, as its logarithm.

    .. math:: S(x) = \max_k \log p_k, \qquad p = \mathrm{softmax}(z)

    where z are the K logits of image x. Higher is more in-distribution; scores lie between -log K and 0. `fit` only
    records the sizes.

    Attributes
    ----------
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`, at least 2.
    output : str
        "log_probability": Eq. 7 of DFB uses the exponential of the score (see
        :class:`~skdfb.fusion.TemperatureFusion`).

    See Also
    --------
    ODIN : The same score at a high temperature, on perturbed images.
    MaxLogit : The largest logit, not normalised.

    Notes
    -----
    For confident images the probability itself rounds to 1 (in float32, from a margin of about 17 between the two
    largest logits), and equal scores cannot be ranked. The logarithm is computed in float64 as
    :math:`-\log(1 + \sum_{j \ne k} e^{z_j - z_k})`, where :math:`z_k` is the largest logit. So scores stay distinct up
    to margins of about 700.

    References
    ----------
    Hendrycks and Gimpel, *A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural
    Networks*, ICLR 2017, arXiv 1610.02136.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import MSP, Representation
    >>> features = np.array([[4.0, 0.0], [1.0, 1.0]])
    >>> representation = Representation.from_numpy(features=features, weight=np.eye(2), bias=np.zeros(2))
    >>> scores = MSP().fit(representation).score_samples(representation)
    >>> np.exp(scores).round(3)
    array([0.982, 0.5  ])
    """

    _min_classes = 2
    output: ScorerOutput = "log_probability"

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        for batch in logit_batches(representation):
            # The log of the largest probability is -log_normaliser, as the largest shifted logit is 0.
            yield row_by_row(batch.logits, lambda softmax: -softmax.log_normaliser[:, 0])
