"""Representations of whole image sets, in memory or, past a budget, in an unnamed file."""

import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from skdfb.detector._forward import ForwardPass, represent_background
from skdfb.scorers import Representation
from skdfb.utils import Images

__all__ = ["RepresentationPair", "collect"]

MEMORY_BUDGET = 2**30  # bytes an array may take before it goes to a file

# Foreground and background representation of the same images.
RepresentationPair = tuple[Representation, Representation]


def collect(forward: ForwardPass, images: Images, scorer: Any = None) -> RepresentationPair:
    """Run the network over all images; ``scorer`` may ask for perturbed ones.

    Features and logits end on the CPU, features as float32 (float64 for a float64 network).
    """
    n_images = len(images)
    stores: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = []
    last: RepresentationPair | None = None
    for indices, pair in _pairs(forward, images, scorer):
        for place, part in enumerate(pair):
            if len(stores) == place:
                stores.append((_store(n_images, part.features), _store(n_images, part.logits)))
            stores[place][0][indices] = part.features.cpu().numpy()
            stores[place][1][indices] = part.logits.cpu().numpy()
        last = pair
    assert last is not None, "there is at least one image"
    foreground, background = (
        Representation(
            features=torch.from_numpy(features),
            logits=torch.from_numpy(logits),
            weight=part.weight.cpu(),
            bias=part.bias.cpu(),
            input_perturbation=part.input_perturbation,
        )
        for part, (features, logits) in zip(last, stores, strict=True)
    )
    return foreground, background


def _pairs(
    forward: ForwardPass, images: Images, scorer: Any
) -> Iterator[tuple[npt.NDArray[np.intp], RepresentationPair]]:
    for batch in forward.batches(images):
        yield batch.indices, (forward.foreground(batch, scorer), represent_background(forward.network, batch))


def _store(n_images: int, like: torch.Tensor) -> npt.NDArray[Any]:
    """Return an empty array (n_images, width); a large one is mapped to a file that is gone when it is."""
    dtype = np.float64 if like.dtype == torch.float64 else np.float32
    shape = (n_images, like.shape[1])
    if n_images * like.shape[1] * np.dtype(dtype).itemsize <= MEMORY_BUDGET:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(prefix="skdfb-") as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
