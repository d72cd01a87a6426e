"""DICE: energy of a sparse head."""

from numbers import Real
from typing import Any, ClassVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from skdfb._constraints import Interval
from skdfb.scorers._base import as_double, double_like, wide
from skdfb.scorers._moments import feature_mean
from skdfb.scorers._representation import Representation
from skdfb.scorers._shaped_energy import ShapedEnergy


class DICE(ShapedEnergy):
    r"""Directed sparsification: energy of the logits computed from the weights that contribute most.

    .. math::

        S(x) = \log \sum_k e^{z_k}, \qquad z = (M \odot W) h + b, \qquad
        M_{kj} = \begin{cases} 1 & V_{kj} \ge t \\ 0 & V_{kj} < t \end{cases}, \qquad
        V_{kj} = W_{kj} \, \frac{1}{n} \sum_i h_{ij}

    where h are the C features of image x, W and b are the head, the sum runs over the n training images i, and t is
    such that the share `sparsity` of all K C contributions V lies below it. Weights that contribute little for training
    images mainly add noise to the logits. Higher is more in-distribution.

    Parameters
    ----------
    sparsity : float, default=0.9
        Share of weights to remove, the paper's p, 0 <= sparsity < 1 (not a percentage). The paper uses 0.9 for CIFAR,
        its code 0.7 for ImageNet.

    Attributes
    ----------
    weight_ : ndarray of shape (K, C)
        The sparse weight M ⊙ W: 0 where a weight is removed.
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit".

    See Also
    --------
    Energy : The score with all weights.
    ASH : Removes activations of each image instead of weights.

    Notes
    -----
    The ``K C - round(K C sparsity)`` largest contributions remain, at least one, and all that equal the smallest of
    them. They are ranked over all classes together, so a class may keep no weight; its logit is then the bias. The mean
    is taken over the training images of all classes.

    References
    ----------
    Sun and Li, *DICE: Leveraging Sparsification for Out-of-Distribution Detection*, ECCV 2022, arXiv 2111.09805.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import DICE, Representation
    >>> features = np.array([[4.0, 0.1, 1.0], [3.0, 0.1, 2.0]])
    >>> weight = np.array([[1.0, -1.0, 0.0], [0.0, 1.0, 1.0]])
    >>> representation = Representation.from_numpy(features=features, weight=weight, bias=np.zeros(2))
    >>> DICE(sparsity=2 / 3).fit(representation).weight_
    array([[1., 0., 0.],
           [0., 0., 1.]])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {"sparsity": [Interval(Real, 0, 1, closed="left")]}

    def __init__(self, sparsity: float = 0.9) -> None:
        self.sparsity = sparsity

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        W = as_double(representation.weight)
        contributions = W * feature_mean(representation)
        if not torch.isfinite(contributions).all():
            raise ValueError(
                "representation.features or weight hold NaN or infinity, or are too large to multiply: expected finite "
                "numbers; compute them in a wider floating-point type, or leave out such images."
            )
        # At least one weight remains.
        n_dropped = min(round(W.numel() * self.sparsity), W.numel() - 1)
        threshold = contributions.flatten().kthvalue(n_dropped + 1).values
        self.weight_ = W.masked_fill(contributions < threshold, 0.0).numpy(force=True)

    def _weight(self, representation: Representation) -> Tensor:
        return double_like(self.weight_, representation.weight)

    def _shape(self, batch: Representation) -> tuple[Tensor, Tensor | float]:
        return wide(batch.features), 1.0
