"""The views of images, computed by the two networks in one pass over the images."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from skdfb._transfers import Download, one_behind
from skdfb.detector._pretrained import with_head
from skdfb.detector._represent import represent, representation_of_layer
from skdfb.images import BatchSize, Images, Indices
from skdfb.networks import DenseClassifier
from skdfb.networks._inputs import run_over
from skdfb.networks._shared_trunk import SharedTrunk
from skdfb.networks._stages import recorded_stages
from skdfb.scorers import Representation
from skdfb.scorers._needs import NO_NEEDS, ScorerNeeds
from skdfb.scorers._views_on_cpu import ViewsOnCPU
from skdfb.scoring._parts import CLASSIFIER, DENSE, PRETRAINED, split_view
from skdfb.utils import evaluation_mode, share_of, temporary_array

__all__ = ["NetworkViews", "Start", "ViewRequest"]

Result = TypeVar("Result")

# Called with the views of a batch on the device. It adds what it needs of them to the download, and returns a function
# that makes the result from the copies. A GPU computes the next batch meanwhile.
Start = Callable[[dict[str, Representation], Download], Callable[[], Result]]


class ViewRequest(NamedTuple):
    """A view, and what its scorers need beyond features and logits."""

    view: str
    needs: ScorerNeeds = NO_NEEDS


@dataclass(frozen=True)
class NetworkViews:
    """Computes views of images with the networks of a detector.

    All networks take the same inputs, so each image is read once, and each network runs once for all views of it. First
    stages that networks have in common run once for all of them. Weights and train flags stay as they are.

    Parameters
    ----------
    networks : mapping of str to DenseClassifier
        The networks by the names of their views: ``"classifier"``, and, where a detector has them, ``"dense"`` and
        ``"pretrained"``.
    n_classes : int
        Number of classes K.
    batch_size : BatchSize
        Images per forward pass.
    n_jobs : int or None, default=None
        Threads that read images.
    heads : mapping of str to (ndarray, ndarray), default={}
        Weight (K, C) and bias (K,) by the name of the view, for views that have no head of their own.
    """

    networks: Mapping[str, DenseClassifier]
    n_classes: int
    batch_size: BatchSize
    n_jobs: int | None = None
    heads: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]] = field(default_factory=dict)

    @property
    def main(self) -> DenseClassifier:
        """The dense network; without one, the classifier."""
        return self.networks[DENSE if DENSE in self.networks else CLASSIFIER]

    def batches(
        self, images: Images, requests: Mapping[str, ViewRequest]
    ) -> Iterator[tuple[Indices, dict[str, Representation]]]:
        """Yield the indices of each batch and its representations by the keys of ``requests``, on the CPU."""
        return self.run(images, requests, ViewsOnCPU().start)

    def run(
        self, images: Images, requests: Mapping[str, ViewRequest], start: Start[Result]
    ) -> Iterator[tuple[Indices, Result]]:
        """Yield the indices of each batch, and what ``start`` makes of its views on the device; see :data:`Start`."""
        networks = {key: self.network_of(request.view) for key, request in requests.items()}
        # A layer to record may be one that would be skipped, so networks with such a request run all their stages.
        whole = {networks[key] for key, request in requests.items() if _records_layers(request)}
        ordered = sorted(dict.fromkeys(networks.values()), key=lambda network: network not in whole)
        trunk = SharedTrunk(ordered[0], [network for network in ordered[1:] if network not in whole])

        def start_batch(indices: Indices, inputs: Tensor) -> tuple[Indices, Callable[[], Result]]:
            # Under the caller's autocast, features would be computed in half precision.
            with torch.autocast(inputs.device.type, enabled=False):
                found: dict[str, Representation] = {}
                for network in ordered:
                    own = {key: request for key, request in requests.items() if networks[key] is network}
                    found |= self._views_of_network(network, own, inputs, trunk)
                # In the order of the requests again.
                views = {key: with_head(found[key], self.heads.get(requests[key].view)) for key in requests}
                download = Download()
                finish = start(views, download)
            download.send()
            return indices, finish

        # Only networks that are needed, each once: a view of the classifier alone must not touch the dense network.
        with ExitStack() as stack:
            for network in ordered:
                stack.enter_context(evaluation_mode(network))
            batches = run_over(self.main, images, self.batch_size, self.n_jobs, start_batch)
            for indices, finish in one_behind(batches, self.main.device):
                result = finish()
                del finish  # it holds what the copies were made of
                yield indices, result

    def _views_of_network(
        self, network: DenseClassifier, requests: Mapping[str, ViewRequest], inputs: Tensor, trunk: SharedTrunk
    ) -> dict[str, Representation]:
        """Return the views of a network, from one forward pass over the inputs as they are."""
        layers = {key: layer for key, request in requests.items() if (layer := split_view(request.view)[1])}
        perturbed = {key for key, request in requests.items() if request.needs.perturbation}
        found: dict[str, Representation] = {}
        # 1. The inputs as they are. Requests that record activations of layers come first, because the feature map that
        # they compute serves the other requests, too.
        whole = requests.keys() - layers.keys() - perturbed
        known: Tensor | None = None
        recording = recorded_stages(network.feature_map.backbone, list(layers.values()))
        with trunk.forward_pass(network), recording as means:
            for key in sorted(whole, key=lambda key: "layers" not in requests[key].needs.activations):
                view, needs = requests[key]
                found[key], known = represent(network, view, self.n_classes, inputs, needs, known)
            if layers and known is None:
                with torch.no_grad():
                    network.feature_map(inputs)
            found |= {key: representation_of_layer(means[layer], self.n_classes) for key, layer in layers.items()}

        # 2. Perturbed inputs, each with a pass of its own.
        for key in perturbed:
            view, needs = requests[key]
            found[key], _ = represent(network, view, self.n_classes, inputs, needs)
        return found

    def collect(self, images: Images, requests: Mapping[str, ViewRequest]) -> dict[str, Representation]:
        """Return the requested views of a whole image set after one pass over it.

        Features and logits are on the CPU, as float32 (float64 for a float64 network); large arrays are mapped to
        files. Activations are not kept: :meth:`StreamedRepresentation.batches` computes them again.
        """
        # 1. Features (n, C) and logits (n, K) of each view, filled batch by batch. Launched processes share the images.
        stores: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]] = {}
        last: dict[str, Representation] = {}
        share = share_of(len(images))
        for places, last in self.batches(images if share.is_whole else images.subset(share.rows), requests):
            rows = share.rows[places]
            for key, part in last.items():
                if key not in stores:
                    stores[key] = _store(len(images), part.features), _store(len(images), part.logits)
                stores[key][0][rows] = part.features.numpy()
                stores[key][1][rows] = part.logits.numpy()
        for array in chain.from_iterable(stores.values()):
            share.complete(array)

        # 2. A representation of each view, with weight and bias of the last batch: they are the same in all.
        collected = {}
        for key, (features, logits) in stores.items():
            collected[key] = replace(
                last[key], features=torch.from_numpy(features), logits=torch.from_numpy(logits), activations=None
            )
            # Maps and layers of all images would not fit into the memory.
            if requests[key].needs.activations:
                kept = {entry.name: getattr(collected[key], entry.name) for entry in fields(Representation)}
                collected[key] = StreamedRepresentation(**kept, source=self, images=images, request=requests[key])
        return collected

    def network_of(self, view: str) -> DenseClassifier:
        """Return the network that computes a view; foreground and background are views of the dense network.

        Raises
        ------
        ValueError
            If it is the network before its training, which was not kept.
        """
        name, _ = split_view(view)
        if name == PRETRAINED and name not in self.networks:
            raise ValueError(
                f"there is no view {view!r}: the network before its training was not kept, since no part of fit was on "
                "it; fit with a part on the view 'pretrained'."
            )
        return self.networks.get(name, self.main)


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


def _records_layers(request: ViewRequest) -> bool:
    return bool(split_view(request.view)[1]) or "layers" in request.needs.activations


def _store(n_images: int, like: Tensor) -> npt.NDArray[Any]:
    """Return an array for rows like these of all images."""
    return temporary_array((n_images, like.shape[1]), like.numpy().dtype)
