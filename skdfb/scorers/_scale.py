"""SCALE: the energy of features that are scaled by a factor of each image."""

from numbers import Real
from typing import Any, ClassVar

from torch import Tensor

from skdfb._constraints import Interval
from skdfb.scorers._base import wide
from skdfb.scorers._representation import Representation
from skdfb.scorers._shaped_energy import ShapedEnergy, prune, sharpening


class SCALE(ShapedEnergy):
    r"""Scaled activations: the energy after multiplying all features of an image by one factor.

    .. math::

        S(x) = \log \sum_k e^{z_k}, \qquad z = W h e^{r} + b, \qquad
        r = \frac{\sum_j h_j}{\sum_{j : h_j \ge t} h_j}

    where h are the C features of image x, t is the `percentile`-th percentile of these C features, and W and b are the
    weight and the bias of the head. If a few features hold most of the sum, r is small; otherwise it is large. Higher
    is more in-distribution. `fit` only records the sizes.

    Parameters
    ----------
    percentile : float, default=85
        Share of features that the denominator leaves out, in percent, in [0, 100).

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
    ASH : With variant "s", also drops the features below t.

    Notes
    -----
    The denominator holds the ``C - round(C * percentile / 100)`` largest features, at least one, and all features that
    are equal to the smallest of them. Without negative features, r lies between 1 and C divided by that number. With
    negative features, r can be smaller than 1; if the denominator is not positive, r is set to that upper bound. r is
    at most 300, so that the exponential does not overflow.

    References
    ----------
    Xu et al., *Scaling for Training Time and Post-hoc Out-of-distribution Detection Enhancement*, ICLR 2024, arXiv
    2310.00227.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import SCALE, Representation
    >>> features = np.array([[4.0, 0.0], [2.0, 2.0]])
    >>> representation = Representation.from_numpy(features=features, weight=np.eye(2), bias=np.zeros(2))
    >>> SCALE(percentile=50).fit(representation).score_samples(representation).round(3)
    array([10.873,  6.13 ])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {"percentile": [Interval(Real, 0, 100, closed="left")]}

    def __init__(self, percentile: float = 85) -> None:
        self.percentile = percentile

    def _shape(self, batch: Representation) -> tuple[Tensor, Tensor | float]:
        h = wide(batch.features)  # (m, C)
        # The factor is kept apart from the features, since it may exceed the range of float32.
        return h, sharpening(h, self.percentile, prune(h, self.percentile))
