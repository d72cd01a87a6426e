"""Representations of a few images, made from random numbers as a network might output them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skdfb.scorers import Representation, activations_needed
from skdfb.scorers._needs import needs_of

Labels = NDArray[np.int64]

# Small, so that few images make several batches. Not a divisor of the number of images.
_BATCH_SIZE = 37
# Enough images for a 50th neighbour, and for 50 images per class.
_N_TRAIN, _N_NEW = 200, 60


@dataclass(frozen=True, eq=False, kw_only=True)
class SmallBatches(Representation):
    """A representation of few images that has several batches."""

    def batches(self, batch_size: int | None = None) -> Iterator[Self]:
        return super().batches(min(batch_size or _BATCH_SIZE, _BATCH_SIZE))


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamedRepresentation(SmallBatches):
    """What a detector passes to `fit` of a scorer that reads activations: only the batches hold them."""

    whole: Representation

    def batches(self, batch_size: int | None = None) -> Iterator[Any]:
        return self.whole.batches(min(batch_size or _BATCH_SIZE, _BATCH_SIZE))

    def __getitem__(self, index: Any) -> Self:
        return replace(super().__getitem__(index), whole=self.whole[index])


class Data(NamedTuple):
    """The arguments of `fit`."""

    representation: Representation
    y: Labels | None


def training_data(
    scorer: Any,
    *,
    seed: int = 0,
    n: int = _N_TRAIN,
    C: int = 8,
    K: int = 4,
    kind: Literal["rectified", "signed", "constant"] = "rectified",
    scale: float = 1.0,
    dtype: type[np.floating[Any]] = np.float32,
) -> Data:
    """Return n images with the activations and the perturbation that the scorer declares, and their labels.

    The network is the same for equal C and K, the images depend on the seed and on n.
    """
    network, images = np.random.default_rng(0), np.random.default_rng([seed, n])
    centres = 1 + 1.5 * network.normal(size=(K, C))
    y = images.permutation(np.arange(n) % K)
    # (n, C, 9): nine places per image, whose mean is the feature.
    places = centres[y][:, :, None] + images.normal(size=(n, C, 1)) + 0.5 * images.normal(size=(n, C, 9))
    if kind == "rectified":
        places = places.clip(min=0)
    elif kind == "constant":
        places = np.ones_like(places)
    features = places.mean(axis=2)  # (n, C)
    # The linear classifier of the nearest centre.
    weight, bias = centres / 4, -np.square(centres).sum(axis=1) / 8
    activations = _activations(activations_needed(scorer), places, network)

    def tensor(array: NDArray[np.float64], factor: float = 1.0) -> Tensor:
        return torch.from_numpy((factor * array).astype(dtype))

    representation = SmallBatches(
        features=tensor(features, scale),
        logits=tensor(features @ weight.T + bias),
        weight=tensor(weight, 1 / scale),
        bias=tensor(bias),
        activations={name: tensor(array, scale) for name, array in activations.items()} or None,
        input_perturbation=needs_of(scorer).perturbation,
    )
    return Data(representation, y)


def _activations(
    needed: tuple[str, ...], places: NDArray[np.float64], network: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    """Return the activations that belong to feature maps of shape (n, C, 9)."""
    n, C, _ = places.shape
    activations = {"feature_map": places.reshape(n, C, 3, 3)} if "feature_map" in needed else {}
    if "layers" in needed:
        maxima = places.max(axis=2)
        activations |= {f"layer{i}": maxima @ np.abs(network.normal(size=(C, 2 + 2 * i))) for i in (1, 2)}
        activations["layer3"] = maxima
    return activations


def new_images(scorer: Any, n: int = _N_NEW, *, seed: int = 1, **options: Any) -> Representation:
    """Return images of the same network that are not training images."""
    return training_data(scorer, seed=seed, n=n, **options).representation
