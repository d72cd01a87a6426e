"""DML: decoupled largest logit."""

from collections.abc import Iterator
from numbers import Real
from typing import Any, ClassVar

from numpy.typing import ArrayLike
from torch import Tensor

from skdfb._constraints import Interval
from skdfb.scorers._base import BaseScorer
from skdfb.scorers._max_cosine import cosines_and_norms
from skdfb.scorers._representation import Representation


class DML(BaseScorer):
    r"""Decoupled largest logit: weighted sum of the largest cosine and the norm of the features.

    .. math:: S(x) = \lambda \max_k \cos(h, w_k) + \lVert h \rVert

    where h are the C features of image x, :math:`w_k` is row k of the head's weight and λ is `cosine_weight`. Higher is
    more in-distribution.

    Parameters
    ----------
    cosine_weight : float, default=None
        Weight λ >= 0 of the cosine, on the scale of the norms. None uses the λ that gives both parts the same mean size
        over the training images i, :math:`\lambda = \sum_i \lVert h_i \rVert / \sum_i |\max_k \cos(h_i, w_k)|`, or 1
        if all these cosines are 0.

    Attributes
    ----------
    cosine_weight_ : float
        The weight λ that is used.
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit".

    See Also
    --------
    MaxCosine : The first part.
    MaxNorm : The second part.
    MaxLogit : Their product, with the norms of the head's rows and its bias.

    Notes
    -----
    Cosines lie between -1 and 1, and norms have the scale of the features, so no fixed λ suits all networks. None
    follows the authors' first evaluation of DML+ (https://github.com/Z-ZHHH/CVPR23-DML), which divides each part by its
    sum over in-distribution test images before it adds the parts. Here the sums are over training images, so that a
    score does not depend on the other images that are scored. The authors' later code
    (https://github.com/HAIV-Lab/DML) weights the cosine three times as much; for this, set `cosine_weight` to three
    times `cosine_weight_`. The readme of that code puts λ on the norm instead, which with 1 / λ gives the same ranking.

    The cosine with a vector of zeros is 0. DML+ computes the two parts from two networks trained for them: fit
    :class:`MaxCosine` on one and :class:`MaxNorm` on the other.

    References
    ----------
    Zhang and Xiang, *Decoupling MaxLogit for Out-of-Distribution Detection*, CVPR 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import DML, Representation
    >>> features = np.array([[3.0, 4.0], [1.0, 0.0]])
    >>> representation = Representation.from_numpy(features=features, weight=np.eye(2), bias=np.zeros(2))
    >>> DML(cosine_weight=10.0).fit(representation).score_samples(representation)
    array([13., 11.])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "cosine_weight": [Interval(Real, 0, None, closed="left"), None]
    }

    def __init__(self, cosine_weight: float | None = None) -> None:
        self.cosine_weight = cosine_weight

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        given = self.cosine_weight
        self.cosine_weight_ = _balancing_weight(representation) if given is None else float(given)

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        for cosines, norms in cosines_and_norms(representation):
            yield self.cosine_weight_ * cosines + norms


def _balancing_weight(representation: Representation) -> float:
    """Return the λ at which both parts have the same mean size."""
    cosine_sum = norm_sum = 0.0
    for cosines, norms in cosines_and_norms(representation):
        cosine_sum += float(cosines.abs().sum())
        norm_sum += float(norms.sum())
    # The numbers of images in both means cancel.
    return norm_sum / cosine_sum if cosine_sum > 0 else 1.0
