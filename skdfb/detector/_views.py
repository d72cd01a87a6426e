"""The views of images, computed by the two networks in one pass over the images."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from skdfb.detector._represent import represent
from skdfb.images import BatchSize, Images, Indices
from skdfb.networks import DenseClassifier
from skdfb.networks._inputs import run_over
from skdfb.scorers import Representation
from skdfb.scorers._needs import NO_NEEDS, ScorerNeeds
from skdfb.scoring._parts import CLASSIFIER
from skdfb.utils import evaluation_mode

__all__ = ["NetworkViews", "ViewRequest"]

MEMORY_BUDGET = 2**30  # bytes that an array may take before it goes to a file


class ViewRequest(NamedTuple):
    """A view, and what its scorers need beyond features and logits."""

    view: str
    needs: ScorerNeeds = NO_NEEDS


@dataclass(frozen=True)
class NetworkViews:
    """Computes views of images with the classifier and the dense network.

    Both networks take the same inputs, so each image is read once. Weights and train flags stay as they are.
    """

    classifier: DenseClassifier
    dense: DenseClassifier
    n_classes: int
    batch_size: BatchSize
    n_jobs: int | None = None

    def batches(
        self, images: Images, requests: Mapping[str, ViewRequest]
    ) -> Iterator[tuple[Indices, dict[str, Representation]]]:
        """Yield the indices of each batch and its representations by the keys of ``requests``, on the CPU."""
        networks = {key: self._network_of(request.view) for key, request in requests.items()}
        # Requests that record layers come first: the feature map they compute serves the other requests, too.
        order = sorted(requests, key=lambda key: "layers" not in requests[key].needs.activations)

        def represent_batch(indices: Indices, inputs: Tensor) -> tuple[Indices, dict[str, Representation]]:
            maps: dict[int, Tensor] = {}  # by network: one forward pass per batch
            found = {}
            # Under the caller's autocast, features would be computed in half precision.
            with torch.autocast(inputs.device.type, enabled=False):
                for key in order:
                    (view, needs), network = requests[key], networks[key]
                    known = maps.get(id(network))
                    found[key], feature_map = represent(network, view, self.n_classes, inputs, needs, known)
                    # The map of perturbed inputs is of no use for other requests, whose inputs are as they are.
                    if not needs.perturbation:
                        maps[id(network)] = feature_map
            # In the order of the requests again.
            return indices, {key: found[key] for key in requests}

        # Only networks that are needed, each once: a view of the classifier alone must not touch the dense network.
        with ExitStack() as stack:
            for network in {id(network): network for network in networks.values()}.values():
                stack.enter_context(evaluation_mode(network))
            yield from run_over(self.dense, images, self.batch_size, self.n_jobs, represent_batch)

    def collect(self, images: Images, requests: Mapping[str, ViewRequest]) -> dict[str, Representation]:
        """Return the requested views of a whole image set after one pass over it.

        Features and logits are on the CPU, as float32 (float64 for a float64 network); large arrays are mapped to
        files. Activations are not kept: :meth:`StreamedRepresentation.batches` computes them again.
        """
        # 1. Features (n, C) and logits (n, K) of each view, filled batch by batch.
        stores: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]] = {}
        last: dict[str, Representation] = {}
        for indices, last in self.batches(images, requests):
            for key, part in last.items():
                if key not in stores:
                    stores[key] = _store(len(images), part.features), _store(len(images), part.logits)
                stores[key][0][indices] = part.features.numpy()
                stores[key][1][indices] = part.logits.numpy()

        # 2. A representation of each view, with weight and bias of the last batch: they are the same in all.
        collected = {}
        for key, (features, logits) in stores.items():
            collected[key] = replace(
                last[key], features=torch.from_numpy(features), logits=torch.from_numpy(logits), activations=None
            )
            # Maps and layers of all images would not fit into the memory.
            if requests[key].needs.activations:
                kept = {field.name: getattr(collected[key], field.name) for field in fields(Representation)}
                collected[key] = StreamedRepresentation(**kept, source=self, images=images, request=requests[key])
        return collected

    def _network_of(self, view: str) -> DenseClassifier:
        return self.classifier if view == CLASSIFIER else self.dense


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamedRepresentation(Representation):
    """Features and logits of a whole image set; activations are computed again in each round of :meth:`batches`.

    So maps and layers of at most one batch of images exist at a time.
    """

    source: NetworkViews
    images: Images
    request: ViewRequest

    def batches(self, batch_size: int | None = None) -> Iterator[Representation]:  # type: ignore[override]
        """Yield batches with the activations that the scorers need; the forward pass sets their size."""
        for _, views in self.source.batches(self.images, {"": self.request}):
            yield views[""]

    def __getitem__(self, index: Any) -> Self:
        rows = np.arange(len(self))[index]
        return replace(super().__getitem__(index), images=self.images.subset(rows))


def _store(n_images: int, like: Tensor) -> npt.NDArray[Any]:
    """Return an empty array (n_images, width); a large one is mapped to a file that is deleted with it."""
    dtype = like.numpy().dtype
    shape = (n_images, like.shape[1])
    if n_images * like.shape[1] * dtype.itemsize <= MEMORY_BUDGET:
        return np.empty(shape, dtype)
    # The file has no name, so no later clean-up is needed, also if the process is killed.
    with tempfile.TemporaryFile(prefix="skdfb-") as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
