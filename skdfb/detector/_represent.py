"""From a batch of network inputs to the representation of one view."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from skdfb.images import Preprocessor
from skdfb.networks import DenseClassifier
from skdfb.networks._layers import recorded_layers
from skdfb.scorers import Representation
from skdfb.scorers._needs import NO_NEEDS, ScorerNeeds
from skdfb.scoring._parts import BACKGROUND, FOREGROUND

__all__ = ["represent", "representation_of_layer", "representation_of_map"]


@torch.no_grad()
def represent(
    network: DenseClassifier,
    view: str,
    n_classes: int,
    inputs: Tensor,
    needs: ScorerNeeds = NO_NEEDS,
    feature_map: Tensor | None = None,
) -> tuple[Representation, Tensor]:
    """Return a view of inputs (b, 3, S, S), and the feature map (b, C, h, w) that it is made of.

    A known ``feature_map`` of these inputs saves the forward pass, unless the scorers need perturbed inputs or layers.
    """
    record = "layers" in needs.activations
    if needs.perturbation:
        inputs = _perturbed(network, view, n_classes, inputs, needs)
    layers: Mapping[str, Tensor] = {}
    # Layers are recorded by hooks during a forward pass, so a known map is of no use for them.
    if feature_map is None or needs.perturbation or record:
        recording: AbstractContextManager[Mapping[str, Tensor]] = (
            recorded_layers(network) if record else nullcontext({})
        )
        with recording as recorded:
            feature_map = network.feature_map(inputs)
            layers = dict(recorded)
    activations = dict(layers)
    if "feature_map" in needs.activations:
        activations["feature_map"] = feature_map
    representation = representation_of_map(
        network, view, n_classes, feature_map, activations=activations, input_perturbation=needs.perturbation
    )
    return representation, feature_map


def representation_of_map(
    network: DenseClassifier,
    view: str,
    n_classes: int,
    feature_map: Tensor,
    *,
    activations: Mapping[str, Tensor] | None = None,
    input_perturbation: float = 0.0,
) -> Representation:
    r"""Return the representation of a view from the feature map F of its network.

    ``"classifier"``, ``"dense"`` and ``"pretrained"`` have the features GAP(F) and the K class logits of the head. The
    other two pool the features over the places p, weighted by the probability of the background class K or of any
    other class:

    .. math:: \text{foreground: } \frac{\sum_p (1 - p(K \mid p)) F_p}{\sum_p (1 - p(K \mid p))}, \qquad
        \text{background: } \frac{\sum_p p(K \mid p) F_p}{\sum_p p(K \mid p)}

    The foreground view has the class logits of these features. The only logit of the background view is the background
    logit of the whole image, :math:`S_b = (W' \mathrm{GAP}(F) + b')_K` (Eq. 6).
    """
    # The head of the dense network has the background in row K; that of the classifier ends before.
    rows = slice(n_classes, None) if view == BACKGROUND else slice(0, n_classes)
    weight, bias = network.head.weight[rows].detach(), network.head.bias[rows].detach()
    mean = feature_map.mean((2, 3))  # (b, C)
    features = mean
    if view in (FOREGROUND, BACKGROUND):
        logit_map = network.map_head(feature_map)  # (b, K + 1, h, w)
        # In at least float32: half precision has too few digits for a sum of exponentials.
        log_p = logit_map.to(torch.promote_types(logit_map.dtype, torch.float32)).log_softmax(1)
        # For the foreground the sum over the K classes, not 1 - p(K), which may round to 0.
        features = _pooled(feature_map, log_p[:, rows].logsumexp(1))
    return Representation(
        features=features,
        logits=F.linear(mean if view == BACKGROUND else features, weight, bias),
        weight=weight,
        bias=bias,
        activations=activations or None,
        input_perturbation=input_perturbation,
    )


def representation_of_layer(features: Tensor, n_classes: int) -> Representation:
    """Return the representation of the features (b, C) of a layer, with a head of zeros."""
    weight, bias = features.new_zeros(n_classes, features.shape[1]), features.new_zeros(n_classes)
    logits = features.new_zeros(len(features), n_classes)
    return Representation(features=features, logits=logits, weight=weight, bias=bias)


def _pooled(feature_map: Tensor, log_p: Tensor) -> Tensor:
    """Return the mean over places of a map (b, C, h, w), weighted by probabilities (b, h, w): features (b, C).

    The probabilities come as logarithms, since all of an image's may be too small for floating-point numbers.
    """
    # A softmax over the places normalises without leaving the logarithms.
    weights = log_p.flatten(1).softmax(1).to(feature_map.dtype)  # (b, h * w)
    return torch.einsum("bcp,bp->bc", feature_map.flatten(2), weights)


def _perturbed(network: DenseClassifier, view: str, n_classes: int, inputs: Tensor, needs: ScorerNeeds) -> Tensor:
    """Move each pixel by the magnitude of the perturbation (in 0..1) to where the scorer's objective rises."""
    assert needs.objective is not None
    with torch.inference_mode(False):  # gradients, also if the caller has switched them off
        images = inputs.detach().clone().requires_grad_()
        logits = representation_of_map(network, view, n_classes, network.feature_map(images)).logits
        (gradient,) = torch.autograd.grad(needs.objective(logits).sum(), images)
    # Inputs are normalised: a step in 0..1 is divided by the standard deviation of its channel.
    preprocessor: Preprocessor = network.preprocessor
    step: Tensor = gradient.sign() * needs.perturbation / preprocessor.channel_std(images)
    return (images + step).detach()
