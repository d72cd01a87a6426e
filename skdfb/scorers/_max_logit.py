"""Maximum logit."""

from collections.abc import Iterator

from torch import Tensor

from skdfb.scorers._base import BaseScorer, as_double, logit_batches
from skdfb.scorers._representation import Representation


class MaxLogit(BaseScorer):
    r"""Maximum logit.

    .. math:: S(x) = \max_k z_k

    where z are the K logits of image x. Higher is more in-distribution. `fit` only records the sizes.

    Attributes
    ----------
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit".

    See Also
    --------
    Energy : A smooth maximum of the logits.

    References
    ----------
    Hendrycks et al., *Scaling Out-of-Distribution Detection for Real-World Settings*, ICML 2022, arXiv 1911.11132.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import MaxLogit, Representation
    >>> features = np.array([[4.0, 0.0], [1.0, 1.0]])
    >>> representation = Representation.from_numpy(features=features, weight=np.eye(2), bias=np.zeros(2))
    >>> MaxLogit().fit(representation).score_samples(representation)
    array([4., 1.])
    """

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        for batch in logit_batches(representation):
            # Only the maximum is converted: in float64 it is the same number.
            yield as_double(batch.logits.amax(dim=1))
