"""The energy of logits that are computed from modified features or a modified head."""

import math
from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from skdfb.scorers._base import BaseScorer, activation, product, wide
from skdfb.scorers._representation import Representation
from skdfb.scorers._softmax import energy

# Numbers of the feature maps that are held in memory at once.
_MAP_NUMBERS = 2**23
# exp(300) is about 1e130. In float64 its product with any float32 features and weights does not overflow.
_LARGEST_EXPONENT = 300.0


class ShapedEnergy(BaseScorer):
    """Base of the scorers that modify the features or the head and compute the energy of the new logits.

    A subclass implements `_shape`. If it modifies the head, it also implements `_weight`.
    """

    @abstractmethod
    def _shape(self, batch: Representation) -> tuple[Tensor, Tensor | float]:
        """Return the modified features of a batch, (m, C), and a factor per image, (m, 1) in float64, or 1.

        The factor is returned separately because it may exceed the range of float32. Never write to the batch.
        """

    def _weight(self, representation: Representation) -> Tensor:
        """Return the weight of the head, (K, C)."""
        return wide(representation.weight)

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        W, b = self._weight(representation), wide(representation.bias)
        for batch in representation.batches():
            h, factor = self._shape(batch)
            # In the type of the features, like the logits of the network.
            logits = factor * product(h, W.T.to(h.dtype)) + b.to(h.dtype)
            yield nan_where_broken(energy(logits), batch)


def nan_where_broken(scores: Tensor, batch: Representation) -> Tensor:
    """Return the scores, or NaN for images whose logits are NaN or infinite.

    The scores do not read these logits. NaN makes `score_samples` refuse such images, as for all other scorers.
    """
    finite = torch.isfinite(batch.logits).all(dim=1).to(scores.device)
    return torch.where(finite, scores, torch.nan)


def n_kept(n: int, percentile: float) -> int:
    """Return the number of n activations that are above a percentile, at least 1."""
    return max(1, n - round(n * percentile / 100))


def prune(activations: Tensor, percentile: float) -> Tensor:
    """Return a copy of activations (m, n) in which the values below the percentile of their row are 0.

    Values equal to the percentile and NaN are kept.
    """
    n = activations.shape[1]
    # The smallest value that is kept; `kthvalue` counts from 1.
    threshold = activations.kthvalue(n - n_kept(n, percentile) + 1, dim=1, keepdim=True).values
    return activations.masked_fill(activations < threshold, 0.0)


def sharpening(activations: Tensor, percentile: float, pruned: Tensor) -> Tensor:
    """Return exp(sum before pruning / sum after pruning) of each row, (m, 1) in float64, always finite.

    If the sum after pruning is positive, the ratio is at most n divided by the number of values kept, because the
    largest values are kept. If the sum is not positive, which needs negative activations, this bound replaces the
    ratio.
    """
    n = activations.shape[1]
    before, after = (rows.sum(dim=1, keepdim=True).double() for rows in (activations, pruned))
    # Clamping to the bound also corrects a ratio that rounding has made too large.
    bound = min(n / n_kept(n, percentile), _LARGEST_EXPONENT)
    return torch.where(after > 0, (before / after).clamp(max=bound), bound).exp()


def map_chunks(batch: Representation) -> Iterator[Tensor]:
    """Yield the feature maps of a batch, (m, C, h * w), in float32 or float64, a few images at a time."""
    feature_map = activation(batch, "feature_map")
    C = batch.n_features
    if feature_map.ndim != 4 or feature_map.shape[1] != C or 0 in feature_map.shape[1:]:
        raise ValueError(
            f"activations['feature_map'] has shape {tuple(feature_map.shape)}: expected (n, {C}, h, w), the map, "
            f"channels first, whose mean over the places gives the {C} features."
        )
    # Maps are much larger than features, so a batch of features may be too many maps for the memory.
    n_images = max(1, _MAP_NUMBERS // math.prod(feature_map.shape[1:]))
    for start in range(0, len(feature_map), n_images):
        yield wide(feature_map[start : start + n_images]).flatten(2)
