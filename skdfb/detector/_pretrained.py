"""What pre-training knew: the parts that score it, and heads for features that have none."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from skdfb.networks import DenseClassifier
from skdfb.networks._layers import backbone_layers
from skdfb.networks._stages import has_trained_weights, last_modules, recorded_stages, trunk_stages
from skdfb.scorers import Mahalanobis, RelativeMahalanobis, Representation
from skdfb.scorers._base import product, wide_type
from skdfb.scorers._discriminant import discriminant_head
from skdfb.scorers._fitted_tensors import fitted_tensor
from skdfb.scoring._parts import CLASSIFIER, DENSE, PRETRAINED, Part, split_view
from skdfb.utils import evaluation_mode

__all__ = ["fitted_heads", "pretrained_parts", "view_widths", "with_head"]

# Stages of the trunk that are scored without a pre-trained network, counted from the trunk's end.
_N_STAGES = 2


def pretrained_parts(network: DenseClassifier, scorer: Any, *, keeps_pretrained: bool) -> list[Part]:
    """Return the parts that are scored beside the foreground if the network has a pre-trained trunk; else none.

    These are the foreground scorer on the classifier, the features of the network before its training, and the last
    stage of the trunk. Without that network, two stages and the last level of the dense network stand in for it.
    """
    backbone = network.feature_map.backbone
    stages = trunk_stages(backbone) if has_trained_weights(backbone) else ()
    # Random weights, and networks without a trunk, need no trial pass.
    if not stages:
        return []
    last = [layer for layer in list(backbone_layers(backbone))[-1:] if layer not in stages]
    # Some families have stages that are no single module: nothing can be recorded there.
    widths = _layer_widths(network, [*last, *stages])
    trunk = [stage for stage in stages if stage in widths][::-1]
    if not trunk:
        return []
    absolute, relative = Mahalanobis(shrinkage="auto", normalize=True), RelativeMahalanobis("auto", normalize=True)
    parts = [Part("foreground_classifier", CLASSIFIER, scorer)]
    if keeps_pretrained:
        parts += [Part("pretrained_relative", PRETRAINED, relative), Part(PRETRAINED, PRETRAINED, absolute)]
    else:
        parts += [Part(_named(f"dense_{layer}"), f"{DENSE}.{layer}", absolute) for layer in last if layer in widths]
    trunk = trunk[: 1 if keeps_pretrained else _N_STAGES]
    return parts + [Part(_named(f"{PRETRAINED}_{stage}"), f"{DENSE}.{stage}", absolute) for stage in trunk]


def _named(text: str) -> str:
    # Names of parts are names of parameters.
    return text.replace(".", "_")


def view_widths(networks: Mapping[str, DenseClassifier], views: Sequence[str]) -> dict[str, int]:
    """Return the number of features of each view.

    Raises
    ------
    ValueError
        If a network has no such layer, or if the layer outputs no feature map.
    """
    widths = {}
    for view in views:
        name, layer = split_view(view)
        network = networks.get(name) or networks[DENSE]
        if not layer:
            widths[view] = network.num_features
            continue
        backbone = network.feature_map.backbone
        found = _layer_widths(network, [layer]) if layer in dict(backbone.named_modules()) else {}
        if layer not in found:
            stages = ", ".join(f"{name}.{stage}" for stage in last_modules(backbone))
            raise ValueError(
                f"there is no view {view!r}: expected a module of the backbone whose output is a feature map, such as "
                f"the ends of its stages: {stages}."
            )
        widths[view] = found[layer]
    return widths


@torch.no_grad()
def _layer_widths(network: DenseClassifier, layers: Sequence[str]) -> dict[str, int]:
    """Return the number of channels of each layer that outputs a feature map for a trial image."""
    size = network.preprocessor.image_size
    trial = torch.zeros(1, network.preprocessor.n_channels, size, size, dtype=network.dtype, device=network.device)
    with evaluation_mode(network), recorded_stages(network.feature_map.backbone, layers) as means:
        network.feature_map(trial)
        return {layer: mean.shape[1] for layer, mean in means.items()}


def fitted_heads(
    views: Mapping[str, Representation], labels: npt.NDArray[np.intp]
) -> dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Return weight (K, C) and bias (K,) for each view that has no head of its own."""
    return {
        view: discriminant_head(representation, labels)
        for view, representation in views.items()
        if split_view(view)[1] or view == PRETRAINED
    }


def with_head(representation: Representation, head: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None) -> Representation:
    """Return a representation with another head and its logits; as it is for None."""
    if head is None:
        return representation
    # In half precision, the head would be rounded.
    features = representation.features.to(wide_type(representation.features))
    weight, bias = (fitted_tensor(array, features.device, features.dtype) for array in head)
    logits = product(features, weight.T) + bias
    return replace(representation, features=features, logits=logits, weight=weight, bias=bias)
