"""DML: decoupled largest logit."""

from collections.abc import Iterator
from numbers import Real
from typing import Any, ClassVar

from numpy.typing import ArrayLike
from sklearn.utils._param_validation import Interval
from torch import Tensor

from skdfb.scorers._base import BaseScorer
from skdfb.scorers._max_cosine import cosines_and_norms
from skdfb.scorers._representation import Representation


class DML(BaseScorer):
    r"""Decoupled largest logit: the largest cosine and the norm of the features, added with a weight.

    .. math:: S(x) = \lambda \max_k \cos(h, w_k) + \lVert h \rVert

    where h are the C features of image x, :math:`w_k` is row k of the head's weight and λ is `cosine_weight`. Higher is
    more in-distribution.

    Parameters
    ----------
    cosine_weight : float, default=None
        λ >= 0, on the scale of the norms. None takes the one that gives both parts the same mean over the training
        images i, :math:`\lambda = \sum_i \lVert h_i \rVert / \sum_i |\max_k \cos(h_i, w_k)|`, or 1 if all these
        cosines are 0.

    Attributes
    ----------
    cosine_weight_ : float
        The λ in use.
    n_features_in_ : int
        Number of features C seen in `fit`.
    n_classes_ : int
        Number of classes K seen in `fit`.
    output : str
        "logit".

    See Also
    --------
    MaxCosine : The first part.
    MaxNorm : The second part.
    MaxLogit : Their product, with the norms of the head's rows and its bias.

    Notes
    -----
    Cosines lie between -1 and 1 and norms on the scale of the features, so no number λ suits all networks. None follows
    the authors' first evaluation of DML+ (https://github.com/Z-ZHHH/CVPR23-DML), which divides each part by its sum
    over in-distribution test images before it adds them up; here these are the training images, so that a score does
    not depend on what else is scored. Their later code (https://github.com/HAIV-Lab/DML) counts the cosine part three
    times: set `cosine_weight` to three times `cosine_weight_` for that. Its readme writes λ on the norm instead, which
    ranks images the same for 1 / λ.

    The cosine with a vector of zeros is 0. DML+ takes the two parts from two networks trained for them: fit
    :class:`MaxCosine` and :class:`MaxNorm` on one each.

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
    return norm_sum / cosine_sum if cosine_sum > 0 else 1.0
