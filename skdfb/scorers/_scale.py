"""SCALE: the energy of features that are scaled by their own shape."""

from numbers import Real
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval
from torch import Tensor

from skdfb.scorers._base import wide
from skdfb.scorers._representation import Representation
from skdfb.scorers._shaped_energy import ShapedEnergy, prune, sharpening


class SCALE(ShapedEnergy):
    r"""Scaled activations: the energy of all features, times a factor of each image.

    .. math::

        S(x) = \log \sum_k e^{z_k}, \qquad z = W h e^{r} + b, \qquad
        r = \frac{\sum_j h_j}{\sum_{j : h_j \ge t} h_j}

    where h are the C features of image x, t is their own `percentile`-th percentile, and W and b are the head. Images
    whose features are concentrated in a few have a small r, others a large one. Higher is more in-distribution. It
    learns nothing: `fit` only records the sizes.

    Parameters
    ----------
    percentile : float, default=85
        0 <= percentile < 100, the share of features that the denominator leaves out.

    Attributes
    ----------
    n_features_in_ : int
        Number of features C seen in `fit`.
    n_classes_ : int
        Number of classes K seen in `fit`.
    output : str
        "logit".

    See Also
    --------
    ASH : With variant "s", drops the features below t, too.

    Notes
    -----
    The denominator holds the ``C - round(C * percentile / 100)`` largest features, at least one, and those that tie
    with the smallest of them. Without negative features, r lies between 1 and C over that number. With negative ones it
    may be anything below, and that bound stands in for it where the denominator is not positive; above 300 it is cut,
    so that nothing overflows.

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
        h = wide(batch.features)
        return h, sharpening(h, self.percentile, prune(h, self.percentile))
