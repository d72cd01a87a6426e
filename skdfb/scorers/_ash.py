"""ASH: energy of pruned activations."""

from numbers import Real
from typing import Any, ClassVar, Literal

import torch
from sklearn.utils._param_validation import StrOptions
from torch import Tensor

from skdfb._constraints import Interval
from skdfb.scorers._base import wide
from skdfb.scorers._representation import Representation
from skdfb.scorers._shaped_energy import ShapedEnergy, map_chunks, prune, sharpening

# The paper's values for ImageNet.
_PERCENTILES = {"s": 90, "b": 65, "p": 60}


class ASH(ShapedEnergy):
    r"""Activation shaping: energy after removing the small activations of each image.

    .. math::

        S(x) = \log \sum_k e^{z_k}, \qquad z = W a' + b, \qquad
        a'_j = \begin{cases} f(a)_j & a_j \ge t \\ 0 & a_j < t \end{cases}

    where a are the activations of image x, t is their `percentile`-th percentile, W and b are the head, and f is one
    of

    - "s": :math:`a_j \exp(s_1 / s_2)`, with s₁ the sum of the activations before pruning and s₂ that after it;
    - "b": :math:`s_1 / n`, with n the number of remaining activations that are not 0;
    - "p": :math:`a_j`, unchanged.

    Higher is more in-distribution. `fit` only records the sizes.

    Parameters
    ----------
    variant : {"s", "b", "p"}, default="s"
        The function f of the remaining activations.
    percentile : float, default=None
        Percentage of activations to remove, 0 <= percentile < 100. None uses the paper's values for ImageNet: 90 for
        "s", 65 for "b", 60 for "p". For CIFAR, its code uses up to 95 for "s".
    on_maps : bool, default=False
        If True, the activations are the whole feature map of an image, C x h x w, which is averaged over the places
        after pruning. If False, they are the C features.

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
    SCALE : Uses the factor of variant "s" without pruning.
    ReAct : Clips the largest features instead.

    Notes
    -----
    Of n activations, the ``n - round(n * percentile / 100)`` largest remain, at least one. Activations equal to the
    smallest of them also remain, so no score depends on the order of the features. The authors' code, and libraries
    based on it, remove some of the equal activations arbitrarily, and in their variant "b" zeros also get a value.

    Activations may be negative. For "s" with s₂ > 0, the ratio s₁ / s₂ is at most n divided by the number of remaining
    activations. With s₂ <= 0, this bound replaces the ratio. It is cut at 300, so that nothing overflows. If s₁ / s₂ is
    far below 0, only the bias remains.

    References
    ----------
    Djurisic et al., *Extremely Simple Activation Shaping for Out-of-Distribution Detection*, ICLR 2023, arXiv
    2209.09858.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import ASH, Representation
    >>> features = np.array([[4.0, 1.0, 0.0], [2.0, 2.0, 1.0]])
    >>> representation = Representation.from_numpy(features=features, weight=np.eye(2, 3), bias=np.zeros(2))
    >>> ASH(variant="p").fit(representation).score_samples(representation).round(3)
    array([4.018, 2.693])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "variant": [StrOptions({"s", "b", "p"})],
        "percentile": [Interval(Real, 0, 100, closed="left"), None],
        "on_maps": ["boolean"],
    }

    def __init__(
        self, variant: Literal["s", "b", "p"] = "s", percentile: float | None = None, on_maps: bool = False
    ) -> None:
        self.variant = variant
        self.percentile = percentile
        self.on_maps = on_maps

    @property
    def needs_activations(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the activations to supply: ("feature_map",) with `on_maps`, else none."""
        return ("feature_map",) if self.on_maps else ()

    def _shape(self, batch: Representation) -> tuple[Tensor, Tensor | float]:
        if not self.on_maps:
            return self._shape_rows(wide(batch.features))
        shaped = [self._shape_rows(maps.flatten(1)) for maps in map_chunks(batch)]
        # A batch without images has no maps; its features have the right shape.
        if not shaped:
            return wide(batch.features), 1.0
        C = batch.n_features
        pooled = torch.cat([rows.view(len(rows), C, -1).mean(dim=2) for rows, _ in shaped])  # (m, C * h * w) to (m, C)
        # Variant "s" has a factor per image, (m, 1); the others have the number 1.
        factors = [factor for _, factor in shaped if isinstance(factor, Tensor)]
        return pooled, torch.cat(factors) if factors else 1.0

    def _shape_rows(self, activations: Tensor) -> tuple[Tensor, Tensor | float]:
        """Return a' for activations with one row per image, and the factor by which variant "s" multiplies it."""
        percentile = _PERCENTILES[self.variant] if self.percentile is None else self.percentile
        pruned = prune(activations, percentile)
        if self.variant == "s":
            return pruned, sharpening(activations, percentile, pruned)
        if self.variant == "b":
            remaining = pruned != 0
            count = remaining.sum(dim=1, keepdim=True).clamp(min=1)
            return remaining * (activations.sum(dim=1, keepdim=True) / count), 1.0
        return pruned, 1.0
