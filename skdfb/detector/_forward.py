"""From images to representations: the one forward pass that everything else reads."""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from skdfb.images import BatchSize, Images, Indices, Preprocessor
from skdfb.networks import DenseClassifier
from skdfb.networks._inputs import run_over
from skdfb.networks._layers import recorded_layers
from skdfb.scorers import Representation, activations_needed
from skdfb.scorers._protocol import perturbation_of
from skdfb.utils import evaluation_mode

__all__ = [
    "ForwardPass",
    "NetworkBatch",
    "represent_background",
    "represent_foreground",
]


Result = TypeVar("Result")


@dataclass(frozen=True)
class NetworkBatch:
    """What a network says of a batch of images, on its device.

    ``images`` are the network's inputs, ``logit_map`` is (b, K + 1, h, w) for a dense network, (b, K, h, w) for a
    classifier. ``layers`` are each layer's channel maxima (b, C_l), empty unless they were asked for.
    """

    images: Tensor
    feature_map: Tensor
    logit_map: Tensor
    layers: Mapping[str, Tensor]


def represent_foreground(
    network: DenseClassifier,
    feature_map: Tensor,
    n_classes: int,
    *,
    pooling: str = "image",
    activations: Mapping[str, Tensor] | None = None,
    input_perturbation: float = 0.0,
) -> Representation:
    r"""Return pooled features and the K class logits; the background logit of a dense network is left out.

    With ``pooling="foreground"`` features are pooled over what is not background,

    .. math:: \frac{\sum_p (1 - p(K \mid p)) F_p}{\sum_p (1 - p(K \mid p))},

    and logits are the head's of these features.
    """
    if pooling == "foreground":
        log_p = _log_probabilities(network.map_head(feature_map))
        features = _pooled(feature_map, log_p[:, :n_classes].logsumexp(1))
    else:
        features = feature_map.mean((2, 3))
    weight, bias = network.head.weight[:n_classes].detach(), network.head.bias[:n_classes].detach()
    return Representation(
        features=features,
        logits=F.linear(features, weight, bias),
        weight=weight,
        bias=bias,
        activations=activations,
        input_perturbation=input_perturbation,
    )


def represent_background(network: DenseClassifier, batch: NetworkBatch) -> Representation:
    r"""Return features pooled over the background probability, and the background logit S_b (Eq. 6).

    .. math:: \frac{\sum_p p(K \mid p) F_p}{\sum_p p(K \mid p)}, \qquad S_b = (W' \, \mathrm{GAP}(F) + b')_K
    """
    features = _pooled(batch.feature_map, _log_probabilities(batch.logit_map)[:, -1])
    weight, bias = network.head.weight[-1:].detach(), network.head.bias[-1:].detach()
    logits = F.linear(batch.feature_map.mean((2, 3)), weight, bias)  # of the GAP features, not of the pooled ones
    return Representation(features=features, logits=logits, weight=weight, bias=bias)


def _log_probabilities(logit_map: Tensor) -> Tensor:
    return logit_map.to(torch.promote_types(logit_map.dtype, torch.float32)).log_softmax(1)


def _pooled(feature_map: Tensor, log_p: Tensor) -> Tensor:
    """Return the mean over places of a map (b, C, h, w), weighted by probabilities (b, h, w): features (b, C).

    They come as logarithms, since all of an image's may be too small for a number of their own.
    """
    weights = log_p.flatten(1).softmax(1).to(feature_map.dtype)  # (b, h * w)
    return torch.einsum("bcp,bp->bc", feature_map.flatten(2), weights)


@dataclass(frozen=True)
class ForwardPass:
    """How a trained network is run over images: batch size and threads; weights and train flags stay as they are."""

    network: DenseClassifier
    n_classes: int
    batch_size: BatchSize
    n_jobs: int | None = None
    pooling: str = "image"

    @property
    def preprocessor(self) -> Preprocessor:
        """Size and normalisation of the network's inputs."""
        return self.network.preprocessor

    @contextmanager
    def ready(self, scorer: Any = None) -> Generator[Callable[[Tensor], NetworkBatch]]:
        """Give a function from inputs to what the network says of them; ``scorer`` may ask for layers."""
        network = self.network
        with evaluation_mode(network), self._recorded_layers(scorer) as layers:

            @torch.no_grad()
            def look(inputs: Tensor) -> NetworkBatch:
                feature_map = network.feature_map(inputs)
                return NetworkBatch(inputs, feature_map, network.map_head(feature_map), dict(layers))

            yield look

    def over_inputs(self, images: Images, process: Callable[[Indices, Tensor], Result]) -> Iterator[Result]:
        """Yield ``process(indices, inputs)`` of all images in order, a batch at a time; see :func:`run_over`."""
        return run_over(self.network, images, self.batch_size, self.n_jobs, process)

    def over(self, images: Images, process: Callable[[NetworkBatch], Result]) -> Iterator[Result]:
        """Yield ``process`` of what the network says, in order, a batch at a time."""
        with self.ready() as look:
            yield from self.over_inputs(images, lambda _, inputs: process(look(inputs)))

    @torch.no_grad()
    def foreground(self, batch: NetworkBatch, scorer: Any = None) -> Representation:
        """Return the foreground representation, with what ``scorer`` asks for."""
        magnitude = perturbation_of(scorer)
        feature_map, layers = batch.feature_map, batch.layers
        if magnitude:
            images = self._perturb(batch.images, scorer.perturbation_objective, magnitude)
            with self._recorded_layers(scorer) as layers:
                feature_map = self.network.feature_map(images)
        needed = activations_needed(scorer)
        activations = dict(layers) if "layers" in needed else {}
        if "feature_map" in needed:
            activations["feature_map"] = feature_map
        return represent_foreground(
            self.network,
            feature_map,
            self.n_classes,
            pooling=self.pooling,
            activations=activations or None,
            input_perturbation=magnitude,
        )

    def _recorded_layers(self, scorer: Any) -> AbstractContextManager[dict[str, Tensor]]:
        return recorded_layers(self.network) if "layers" in activations_needed(scorer) else nullcontext({})

    def _perturb(self, images: Tensor, objective: Callable[[Tensor], Tensor], magnitude: float) -> Tensor:
        """Move each pixel by ``magnitude`` (in 0..1) to where the objective rises."""
        with torch.inference_mode(False):  # gradients, also where the caller has switched them off
            images = images.detach().clone().requires_grad_()
            feature_map = self.network.feature_map(images)
            logits = represent_foreground(self.network, feature_map, self.n_classes, pooling=self.pooling).logits
            (gradient,) = torch.autograd.grad(objective(logits).sum(), images)
        step: Tensor = gradient.sign() * magnitude / self.preprocessor.channel_std(images)
        return (images + step).detach()
