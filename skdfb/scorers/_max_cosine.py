"""MaxCosine: largest cosine between the features and a class's weight."""

from collections.abc import Iterator

from torch import Tensor

from skdfb.scorers._base import BaseScorer, as_double
from skdfb.scorers._max_norm import directions_and_norms
from skdfb.scorers._representation import Representation


class MaxCosine(BaseScorer):
    r"""Largest cosine between the features and a row of the head, one of the two parts of the largest logit.

    .. math::

        S(x) = \max_k \cos(h, w_k), \qquad
        \cos(h, w_k) = \frac{h^\top w_k}{\lVert h \rVert \, \lVert w_k \rVert}

    where h are the C features of image x and :math:`w_k` is row k of the head's weight. Higher is more in-distribution;
    scores lie between -1 and 1. `fit` only records the sizes.

    Attributes
    ----------
    n_features_in_ : int
        Number of features C seen in `fit`.
    n_classes_ : int
        Number of classes K seen in `fit`.
    output : str
        "logit": the score is bounded, but no probability.

    See Also
    --------
    MaxNorm : The other part.
    DML : Both, with a weight.
    MaxLogit : Their product, with the norms of the head's rows and its bias.

    Notes
    -----
    The cosine with a vector of zeros is 0. Neither the logits nor the bias are read; the head is that of the
    representation which is scored.

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
    """Yield the largest cosine and the norm of the features of each image, each of shape (m,), a batch at a time."""
    class_directions, _ = directions_and_norms(as_double(representation.weight))  # (K, C)
    for batch in representation.batches():
        directions, norms = directions_and_norms(as_double(batch.features))
        yield (directions @ class_directions.T).amax(dim=1), norms
