"""ASH: the energy of pruned activations."""

from numbers import Real
from typing import Any, ClassVar, Literal

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from skdfb.scorers._base import wide
from skdfb.scorers._representation import Representation
from skdfb.scorers._shaped_energy import ShapedEnergy, map_chunks, prune, sharpening

_PERCENTILES = {"s": 90, "b": 65, "p": 60}


class ASH(ShapedEnergy):
    r"""Activation shaping: the energy after each image's small activations were dropped.

    .. math::

        S(x) = \log \sum_k e^{z_k}, \qquad z = W a' + b, \qquad
        a'_j = \begin{cases} f(a)_j & a_j \ge t \\ 0 & a_j < t \end{cases}

    where a are the activations of image x, t is their own `percentile`-th percentile, W and b are the head, and f is
    one of

    - "s": :math:`a_j \exp(s_1 / s_2)`, with s₁ the sum of the activations before the pruning and s₂ that after it;
    - "b": :math:`s_1 / n`, with n the number of activations that are left and not 0;
    - "p": :math:`a_j`, as it was.

    Higher is more in-distribution. It learns nothing: `fit` only records the sizes.

    Parameters
    ----------
    variant : {"s", "b", "p"}, default="s"
        What becomes of the activations that are left.
    percentile : float, default=None
        0 <= percentile < 100, the share of activations to drop. None takes the paper's for ImageNet: 90 for "s", 65
        for "b", 60 for "p". For CIFAR its code has up to 95 for "s".
    on_maps : bool, default=False
        Whether the activations are the whole feature map of an image, C x h x w, averaged over the places
        after the pruning, or the C features.

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
    SCALE : The factor of variant "s" without the pruning.
    ReAct : Clips the largest features instead.

    Notes
    -----
    Of n activations, the ``n - round(n * percentile / 100)`` largest are left, at least one. Ties with the
    smallest of those are left, too, so no score depends on the order of the features (the authors' code, and
    libraries after it, drop some of the tied ones arbitrarily, and their variant "b" fills zeros).

    Activations may be negative. For "s", s₁ / s₂ is at most n over the number that is left wherever s₂ > 0; this
    bound also stands in for the ratio where s₂ <= 0, and above 300 it is cut, so that nothing overflows. Where s₁ / s₂
    is far below 0, nothing but the bias is left.

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
        """("feature_map",) with `on_maps`, else nothing."""
        return ("feature_map",) if self.on_maps else ()

    def _shape(self, batch: Representation) -> tuple[Tensor, Tensor | float]:
        if not self.on_maps:
            return self._shape_rows(wide(batch.features))
        shaped = [self._shape_rows(maps.flatten(1)) for maps in map_chunks(batch)]
        if not shaped:
            return wide(batch.features), 1.0
        C = batch.n_features
        pooled = torch.cat([rows.view(len(rows), C, -1).mean(dim=2) for rows, _ in shaped])  # (m, C * h * w) to (m, C)
        return pooled, torch.cat([torch.as_tensor(factor).expand(len(rows), 1) for rows, factor in shaped])

    def _shape_rows(self, activations: Tensor) -> tuple[Tensor, Tensor | float]:
        """Return a' of the activations, one row an image, and the factor that variant s multiplies it by."""
        percentile = _PERCENTILES[self.variant] if self.percentile is None else self.percentile
        pruned = prune(activations, percentile)
        if self.variant == "s":
            return pruned, sharpening(activations, percentile, pruned)
        if self.variant == "b":
            left = pruned != 0
            return left * (activations.sum(dim=1, keepdim=True) / left.sum(dim=1, keepdim=True).clamp(min=1)), 1.0
        return pruned, 1.0
