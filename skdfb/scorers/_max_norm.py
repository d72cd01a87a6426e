"""MaxNorm: norm of the features."""

from collections.abc import Iterator

import torch
from torch import Tensor

from skdfb.scorers._base import BaseScorer, as_double
from skdfb.scorers._representation import Representation


class MaxNorm(BaseScorer):
    r"""Norm of the features, one of two factors of the largest logit.

    .. math:: S(x) = \lVert h \rVert

    where h are the C features of image x. Higher is more in-distribution; the smallest value is 0. `fit` only records
    the sizes.

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
    MaxCosine : The other factor.
    DML : Weighted sum of both.

    Notes
    -----
    A logit without its bias is :math:`\cos(h, w_k) \, \lVert h \rVert \, \lVert w_k \rVert`. The norm of h is the same
    for all classes, so no maximum is needed. Logits and head are not used.

    References
    ----------
    Zhang and Xiang, *Decoupling MaxLogit for Out-of-Distribution Detection*, CVPR 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import MaxNorm, Representation
    >>> features = np.array([[3.0, 4.0], [1.0, 0.0]])
    >>> representation = Representation.from_numpy(features=features, weight=np.eye(2), bias=np.zeros(2))
    >>> MaxNorm().fit(representation).score_samples(representation)
    array([5., 1.])
    """

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        for batch in representation.batches():
            _, norms = directions_and_norms(as_double(batch.features))
            yield norms


def directions_and_norms(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return float64 rows scaled to length 1, (n, C), and their norms (n,); rows of zeros stay zeros."""
    largest = rows.abs().amax(dim=1, keepdim=True)
    # With a largest entry of 1, squares neither overflow nor underflow, and the norm is at least 1.
    scaled = rows / torch.where(largest == 0, 1.0, largest)
    norms = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled / norms.clamp(min=1), (largest * norms)[:, 0]
