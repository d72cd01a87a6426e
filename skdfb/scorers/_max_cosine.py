"""MaxCosine: largest cosine between the features and the weight of a class."""

from collections.abc import Iterator

from torch import Tensor

from skdfb.scorers._base import BaseScorer, as_double
from skdfb.scorers._max_norm import directions_and_norms
from skdfb.scorers._representation import Representation


class MaxCosine(BaseScorer):
    r"""Largest cosine between the features and a row of the head's weight, one of two factors of the largest logit.

    .. math::

        S(x) = \max_k \cos(h, w_k), \qquad
        \cos(h, w_k) = \frac{h^\top w_k}{\lVert h \rVert \, \lVert w_k \rVert}

    where h are the C features of image x and :math:`w_k` is row k of the head's weight. Higher is more in-distribution;
    scores lie between -1 and 1. `fit` only records the sizes.

    Attributes
    ----------
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit". The score is bounded but not a probability.

    See Also
    --------
    MaxNorm : The other factor.
    DML : Weighted sum of both.
    MaxLogit : Product of both, with the norms of the head's rows and its bias.

    Notes
    -----
    The cosine with a vector of zeros is 0. The weight is read from the representation that is scored; logits and bias
    are not used.

    References
    ----------
    Zhang and Xiang, *Decoupling MaxLogit for Out-of-Distribution Detection*, CVPR 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import MaxCosine, Representation
    >>> features = np.array([[3.0, 4.0], [10.0, 0.0]])
    >>> representation = Representation.from_numpy(features=features, weight=np.eye(2), bias=np.zeros(2))
    >>> MaxCosine().fit(representation).score_samples(representation)
    array([0.8, 1. ])
    """

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        for cosines, _ in cosines_and_norms(representation):
            yield cosines


def cosines_and_norms(representation: Representation) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield, for each batch, the largest cosines and the norms of the features, each of shape (m,)."""
    # Normalised once for all batches.
    class_directions, _ = directions_and_norms(as_double(representation.weight))  # (K, C)
    for batch in representation.batches():
        directions, norms = directions_and_norms(as_double(batch.features))
        yield (directions @ class_directions.T).amax(dim=1), norms
