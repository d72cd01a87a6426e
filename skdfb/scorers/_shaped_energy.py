"""The energy of logits computed anew, from features or a head that a scorer has changed first."""

import math
from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from skdfb.scorers._base import BaseScorer, activation, product, wide
from skdfb.scorers._representation import Representation
from skdfb.scorers._softmax import energy

# Numbers of feature maps that are held at a time.
_MAP_NUMBERS = 2**23
# exp of it leaves float64 room for features and weights of any float32 size.
_LARGEST_EXPONENT = 300.0


class ShapedEnergy(BaseScorer):
    """Base of the scorers that change the features, or the head, and take the energy of what comes out.

    A subclass writes `_shape`, and `_weight` if it changes the head.
    """

    @abstractmethod
    def _shape(self, batch: Representation) -> tuple[Tensor, Tensor | float]:
        """Return the changed features of a batch, (m, C), and a factor for each image's, (m, 1) in float64 or 1.

        The factor is kept apart since it may leave float32's range. Never write to the batch.
        """

    def _weight(self, representation: Representation) -> Tensor:
        """Return the weight of the head, (K, C)."""
        return wide(representation.weight)

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        W, b = self._weight(representation), wide(representation.bias)
        for batch in representation.batches():
            h, factor = self._shape(batch)
            # In the features' type, as the network's own logits are.
            logits = factor * product(h, W.T.to(h.dtype)) + b.to(h.dtype)
            yield nan_where_broken(energy(logits), batch)


def nan_where_broken(scores: Tensor, batch: Representation) -> Tensor:
    """Return NaN for images whose logits are NaN or infinite, though the score does not read them."""
    finite = torch.isfinite(batch.logits).all(dim=1).to(scores.device)
    return torch.where(finite, scores, torch.nan)


def n_kept(n: int, percentile: float) -> int:
    """Return how many of n activations lie above a percentile, at least 1."""
    return max(1, n - round(n * percentile / 100))


def prune(activations: Tensor, percentile: float) -> Tensor:
    """Return a copy of activations (m, n) where each row's values below its percentile are 0; ties and NaN stay."""
    n = activations.shape[1]
    threshold = activations.kthvalue(n - n_kept(n, percentile) + 1, dim=1, keepdim=True).values
    return activations.masked_fill(activations < threshold, 0.0)


def sharpening(activations: Tensor, percentile: float, pruned: Tensor) -> Tensor:
    """Return exp(sum before pruning / sum after) of each row, (m, 1) in float64, finite whatever the signs.

    Where the sum after is positive, the ratio cannot exceed n over the number kept, since the largest are kept. That
    bound stands in where it is not, which takes negative activations.
    """
    n = activations.shape[1]
    before, after = (rows.sum(dim=1, keepdim=True).double() for rows in (activations, pruned))
    bound = min(n / n_kept(n, percentile), _LARGEST_EXPONENT)
    return torch.where(after > 0, (before / after).clamp(max=bound), bound).exp()


def map_chunks(batch: Representation) -> Iterator[Tensor]:
    """Yield the feature maps of a batch, at least float32, (m, C, h * w), few enough at a time to spare the memory."""
    feature_map = activation(batch, "feature_map")
    C = batch.n_features
    if feature_map.ndim != 4 or feature_map.shape[1] != C or 0 in feature_map.shape[1:]:
        raise ValueError(
            f"activations['feature_map'] has shape {tuple(feature_map.shape)}; wanted (n, {C}, h, w): the map, "
            f"channels first, whose mean over the places are the {C} features."
        )
    n_images = max(1, _MAP_NUMBERS // math.prod(feature_map.shape[1:]))
    for start in range(0, len(feature_map), n_images):
        yield wide(feature_map[start : start + n_images]).flatten(2)
