"""ReAct: the energy after clipping large features."""

import math
from collections.abc import Iterator
from numbers import Real
from typing import Any, ClassVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from skdfb._constraints import Interval
from skdfb.scorers._base import wide
from skdfb.scorers._representation import Representation
from skdfb.scorers._shaped_energy import ShapedEnergy

# Bits that one pass over the features counts. It divides the size of every floating-point type.
_DIGIT_BITS = 16
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class ReAct(ShapedEnergy):
    r"""Rectified activations: the energy after clipping large features.

    .. math:: S(x) = \log \sum_k e^{z_k}, \qquad z = W \min(h, c) + b

    where h are the C features of image x, W and b are the weight and the bias of the head, and the threshold c is the
    `percentile`-th percentile of all features of all training images, n C numbers. OOD images often have a few features
    far above c, which increase the energy. Higher is more in-distribution.

    Parameters
    ----------
    percentile : float, default=90
        Percentile in (0, 100]. At 100, only features larger than all training features are clipped.

    Attributes
    ----------
    threshold_ : float
        The threshold c.
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit".

    See Also
    --------
    Energy : The energy without clipping.
    ASH : Keeps the largest features of an image and drops the others.

    Notes
    -----
    The threshold equals ``np.percentile(features, percentile)``, which interpolates linearly between two order
    statistics. The order statistics are exact. They are found by counting the leading 16 bits of all features, then
    the next 16 bits of the features with the right leading bits, and so on. This takes one pass over the features per
    16 bits of their type (two for float32) and holds 65,536 counts in memory. Other libraries hold and sort all n C
    numbers.

    References
    ----------
    Sun et al., *ReAct: Out-of-distribution Detection With Rectified Activations*, NeurIPS 2021, arXiv 2111.12797.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import ReAct, Representation
    >>> head = {"weight": np.eye(2), "bias": np.zeros(2)}
    >>> features = np.random.default_rng(0).uniform(size=(100, 2))
    >>> scorer = ReAct().fit(Representation.from_numpy(features=features, **head))
    >>> bool(scorer.threshold_ == np.percentile(features, 90))
    True
    >>> new = np.array([[1.0, 0.0], [100.0, 0.0]])
    >>> scores = scorer.score_samples(Representation.from_numpy(features=new, **head))
    >>> bool(scores[0] == scores[1])
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {"percentile": [Interval(Real, 0, 100, closed="right")]}

    def __init__(self, percentile: float = 90) -> None:
        self.percentile = percentile

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        self.threshold_ = _feature_percentile(representation, self.percentile)

    def _shape(self, batch: Representation) -> tuple[Tensor, Tensor | float]:
        return wide(batch.features).clamp(max=self.threshold_), 1.0


def _feature_percentile(representation: Representation, percentile: float) -> float:
    """Return the percentile of all features, as np.percentile does."""
    last = len(representation) * representation.n_features - 1
    position = percentile / 100 * last
    lower_rank = min(math.floor(position), last)
    lower, upper = _order_statistics(representation, (lower_rank, min(lower_rank + 1, last)))
    fraction = position - lower_rank
    # NumPy interpolates from the nearer end, too. So the results are equal to the last bit.
    return lower + (upper - lower) * fraction if fraction < 0.5 else upper - (upper - lower) * (1 - fraction)


def _order_statistics(representation: Representation, ranks: tuple[int, ...]) -> list[float]:
    """Return the features with these ranks (0 is the smallest), by radix selection."""
    dtype = representation.features.dtype
    n_bits = 8 * dtype.itemsize
    # For each rank, the leading bits found so far, and the rank among the features with these bits.
    prefixes, remaining = [0] * len(ranks), list(ranks)
    for shift in range(n_bits - _DIGIT_BITS, -1, -_DIGIT_BITS):
        counts = _digit_counts(representation, shift, n_bits, set(prefixes))
        for i, prefix in enumerate(prefixes):
            below = counts[prefix].cumsum(0)
            # The first digit up to which there are more features than the rank.
            digit = int(torch.searchsorted(below, remaining[i], right=True))
            remaining[i] -= int(below[digit - 1]) if digit else 0
            prefixes[i] = (prefix << _DIGIT_BITS) | digit
    return [_value_of_key(key, dtype) for key in prefixes]


def _digit_counts(representation: Representation, shift: int, n_bits: int, prefixes: set[int]) -> dict[int, Tensor]:
    """Count the 16-bit digits above `shift` of the keys that begin with each prefix."""
    counts: dict[int, Tensor] = dict.fromkeys(prefixes, torch.zeros(1, dtype=torch.int64))
    # In the first pass no leading bits are known: the mask is 0 and all keys are counted.
    mask = 2 ** (n_bits - shift - _DIGIT_BITS) - 1
    for keys in _ordered_keys(representation):
        digits = (keys >> shift) & (2**_DIGIT_BITS - 1)
        for prefix in prefixes:
            chosen = digits[((keys >> (shift + _DIGIT_BITS)) & mask) == prefix] if mask else digits
            counts[prefix] = counts[prefix] + torch.bincount(chosen, minlength=2**_DIGIT_BITS).cpu()
    return counts


def _ordered_keys(representation: Representation) -> Iterator[Tensor]:
    """Yield the features of each batch as integers whose bits, read as unsigned, have the order of the features."""
    for batch in representation.batches():
        features = batch.features.detach()
        if not torch.isfinite(torch.stack(features.aminmax())).all():
            raise ValueError(
                "representation.features hold NaN or infinity: expected finite numbers; leave out such images, or "
                "compute them in a wider floating-point type."
            )
        bits = (features.cpu() if features.device.type == "mps" else features).view(_INTEGERS[features.itemsize])
        # The sign bit of positive numbers is set, and all bits of negative numbers are flipped.
        keys = bits ^ ((bits >> (8 * bits.itemsize - 1)) | torch.iinfo(bits.dtype).min)
        yield keys.flatten().to(torch.promote_types(keys.dtype, torch.int32))


def _value_of_key(key: int, dtype: torch.dtype) -> float:
    """Return the feature with this key: the inverse of `_ordered_keys`."""
    n_bits = 8 * dtype.itemsize
    sign = 2 ** (n_bits - 1)
    bits = key ^ sign if key & sign else key ^ (2**n_bits - 1)
    # The integer types that torch can view as floats are signed.
    signed = bits - 2**n_bits if bits & sign else bits
    return float(torch.tensor(signed, dtype=_INTEGERS[dtype.itemsize]).view(dtype).double())
