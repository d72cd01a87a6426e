"""Representations of whole image sets, in memory or, past a budget, in an unnamed file."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from skdfb.detector._forward import ForwardPass, represent_background
from skdfb.scorers import Representation, activations_needed
from skdfb.utils import Images

__all__ = ["RepresentationPair", "collect", "to_cpu"]

MEMORY_BUDGET = 2**30  # bytes an array may take before it goes to a file


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamedRepresentation(Representation):
    """Features and logits of a whole image set, whose activations are made anew for each round of :meth:`batches`.

    So maps and layers of no more than a batch of images exist at a time.
    """

    forward: ForwardPass
    images: Images
    scorer: Any

    def batches(self, batch_size: int | None = None) -> Iterator[Representation]:  # type: ignore[override]
        """Yield batches with the activations that the scorer asks for; their size is the forward pass's."""
        for batch in self.forward.batches(self.images, self.scorer):
            yield to_cpu(self.forward.foreground(batch, self.scorer))

    def __getitem__(self, index: Any) -> Self:
        rows = np.arange(len(self))[index]
        return replace(super().__getitem__(index), images=self.images.subset(rows))


# Foreground and background representation of the same images.
RepresentationPair = tuple[Representation, Representation]


def collect(forward: ForwardPass, images: Images, scorer: Any = None) -> RepresentationPair:
    """Run the network over all images; ``scorer`` may ask for perturbed ones, and for activations.

    Features and logits end on the CPU, features as float32 (float64 for a float64 network). Activations are not kept.
    """
    n_images = len(images)
    stores: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = []
    last: RepresentationPair | None = None
    for indices, pair in _pairs(forward, images, scorer):
        for place, part in enumerate(pair):
            if len(stores) == place:
                stores.append((_store(n_images, part.features), _store(n_images, part.logits)))
            stores[place][0][indices] = part.features.numpy()
            stores[place][1][indices] = part.logits.numpy()
        last = pair
    assert last is not None, "there is at least one image"
    foreground, background = (
        replace(part, features=torch.from_numpy(features), logits=torch.from_numpy(logits), activations=None)
        for part, (features, logits) in zip(last, stores, strict=True)
    )
    if activations_needed(scorer):
        kept = {field.name: getattr(foreground, field.name) for field in fields(Representation)}
        foreground = StreamedRepresentation(**kept, forward=forward, images=images, scorer=scorer)
    return foreground, background


def to_cpu(part: Representation) -> Representation:
    """Return a representation on the CPU, in at least float32: NumPy knows no bfloat16."""
    wide = torch.promote_types(part.features.dtype, torch.float32)
    activations = part.activations
    if activations is not None:
        activations = {name: tensor.to("cpu", wide) for name, tensor in activations.items()}
    return Representation(
        features=part.features.to("cpu", wide),
        logits=part.logits.to("cpu", wide),
        weight=part.weight.to("cpu", wide),
        bias=part.bias.to("cpu", wide),
        activations=activations,
        input_perturbation=part.input_perturbation,
    )


def _pairs(
    forward: ForwardPass, images: Images, scorer: Any
) -> Iterator[tuple[npt.NDArray[np.intp], RepresentationPair]]:
    for batch in forward.batches(images):
        foreground = forward.foreground(batch, scorer)
        yield batch.indices, (to_cpu(foreground), to_cpu(represent_background(forward.network, batch)))


def _store(n_images: int, like: torch.Tensor) -> npt.NDArray[Any]:
    """Return an empty array (n_images, width); a large one is mapped to a file that is gone when it is."""
    dtype = like.numpy().dtype
    shape = (n_images, like.shape[1])
    if n_images * like.shape[1] * dtype.itemsize <= MEMORY_BUDGET:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(prefix="skdfb-") as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
