"""Views of whole image sets, in memory or, past a budget, in an unnamed file."""

import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from skdfb.detector._views import BACKGROUND, ViewBatch, Views
from skdfb.images import Images, Indices
from skdfb.scorers import Representation, activations_needed

__all__ = ["ViewMap", "collect"]

MEMORY_BUDGET = 2**30  # bytes an array may take before it goes to a file

# Representations of the same images by the name of the view.
ViewMap = Mapping[str, Representation]


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamedRepresentation(Representation):
    """Features and logits of a whole image set, whose activations are made anew for each round of :meth:`batches`.

    So maps and layers of no more than a batch of images exist at a time.
    """

    views: Views
    view: str
    images: Images
    scorer: Any

    def batches(self, batch_size: int | None = None) -> Iterator[Representation]:  # type: ignore[override]
        """Yield batches with the activations that the scorer asks for; their size is the forward pass's."""
        return self.views.stream(self.images, self.view, self.scorer)

    def __getitem__(self, index: Any) -> Self:
        rows = np.arange(len(self))[index]
        return replace(super().__getitem__(index), images=self.images.subset(rows))


def collect(views: Views, images: Images, wanted: Collection[str], scorer: Any = None) -> dict[str, Representation]:
    """Run the networks over all images once, and return the ``wanted`` views.

    The foreground ``scorer`` may ask for perturbed images, and for activations. Features and logits end on the CPU,
    features as float32 (float64 for a float64 network). Activations are not kept.
    """
    stores: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]] = {}
    last: dict[str, Representation] = {}

    def represent(batch: ViewBatch) -> tuple[Indices, dict[str, Representation]]:
        return batch.indices, {view: views.represent(batch, view, scorer) for view in wanted}

    for indices, parts in views.over(images, wanted, represent, scorer):
        last = parts
        for view, part in parts.items():
            if view not in stores:
                stores[view] = _store(len(images), part.features), _store(len(images), part.logits)
            stores[view][0][indices] = part.features.numpy()
            stores[view][1][indices] = part.logits.numpy()
    collected = {
        view: replace(
            last[view], features=torch.from_numpy(features), logits=torch.from_numpy(logits), activations=None
        )
        for view, (features, logits) in stores.items()
    }
    if not activations_needed(scorer):
        return collected
    return {
        view: part if view == BACKGROUND else _streamed(part, views, view, images, scorer)
        for view, part in collected.items()
    }


def _streamed(part: Representation, views: Views, view: str, images: Images, scorer: Any) -> StreamedRepresentation:
    kept = {field.name: getattr(part, field.name) for field in fields(Representation)}
    return StreamedRepresentation(**kept, views=views, view=view, images=images, scorer=scorer)


def _store(n_images: int, like: torch.Tensor) -> npt.NDArray[Any]:
    """Return an empty array (n_images, width); a large one is mapped to a file that is gone when it is."""
    dtype = like.numpy().dtype
    shape = (n_images, like.shape[1])
    if n_images * like.shape[1] * dtype.itemsize <= MEMORY_BUDGET:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(prefix="skdfb-") as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
