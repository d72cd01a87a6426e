"""Feature maps of the layers of a backbone, recorded during forward passes."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from skdfb.networks._dense_classifier import DenseClassifier
from skdfb.networks._feature_map import tokens_to_nchw
from skdfb.networks._layers import backbone_layers, channels_are_last, spatial_output
from skdfb.utils import evaluation_mode

__all__ = ["LAST_LAYER", "choose_layer", "layer_map_sizes", "recorded_map"]

LAST_LAYER = "feature_map"  # the feature map that the head takes
_LEAST_SIDE = 8
_SQUARE = torch.Size((1, 1))  # the proportions of the inputs, which tell the grid of tokens


def choose_layer(network: DenseClassifier, layer: str) -> str:
    """Return the name of a layer that gives feature maps.

    "auto" is the deepest layer with at least 8 x 8 places, or the deepest of those with the most places if there is no
    such layer.

    Raises
    ------
    ValueError
        If the network has no such layer.
    """
    sizes = layer_map_sizes(network)
    if layer == "auto":
        deepest_first = list(sizes)[::-1]
        large = [name for name in deepest_first if min(sizes[name]) >= _LEAST_SIDE]
        # max returns the first of equals, which is the deepest.
        return large[0] if large else max(deepest_first, key=lambda name: min(sizes[name]))
    if layer not in sizes:
        known = ", ".join(f"{name!r} ({height} x {width})" for name, (height, width) in sizes.items())
        raise ValueError(
            f"layer={layer!r}: expected 'auto' or the name of a layer of the network that gives a feature map: {known}."
        )
    return layer


def layer_map_sizes(network: DenseClassifier) -> dict[str, tuple[int, int]]:
    """Return height and width of the feature map of each layer that gives one, by name, in the order of the layers.

    The layers are timm's levels of features, or the children of any other module. The last one is "feature_map", the
    map that the head takes.
    """
    side = network.preprocessor.image_size
    trial = torch.zeros(1, network.preprocessor.n_channels, side, side, dtype=network.dtype, device=network.device)
    names = list(backbone_layers(network.feature_map.backbone))
    with torch.no_grad(), evaluation_mode(network), _recorded_maps(network, names) as maps:
        last = network.feature_map(trial)
        sizes = {name: (maps[name].shape[2], maps[name].shape[3]) for name in names if name in maps}
    return sizes | {LAST_LAYER: (last.shape[2], last.shape[3])}


@contextmanager
def recorded_map(network: DenseClassifier, layer: str) -> Iterator[dict[str, Tensor]]:
    """Record the feature maps of a layer.

    Yields a mapping from its name to the map (n, C, h, w), which each forward pass fills anew. The hook is removed at
    the end. Forward passes in other threads are not recorded.
    """
    with _recorded_maps(network, [layer]) as maps:
        yield maps


@contextmanager
def _recorded_maps(network: DenseClassifier, names: list[str]) -> Iterator[dict[str, Tensor]]:
    backbone = network.feature_map.backbone
    layers = backbone_layers(backbone) | {LAST_LAYER: (network.feature_map, network.num_features)}
    n_prefix = int(getattr(backbone, "num_prefix_tokens", 0))
    maps: dict[str, Tensor] = {}
    hooks = [layers[name][0].register_forward_hook(_recorder(maps, name, layers[name][1], n_prefix)) for name in names]
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


def _recorder(maps: dict[str, Tensor], name: str, width: int | None, n_prefix: int) -> Callable[..., None]:
    thread = threading.get_ident()

    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        if threading.get_ident() != thread:  # another thread's forward pass through the same network
            return
        found = spatial_output(output, width)
        if found is not None and found.ndim == 3:
            found = tokens_to_nchw(found, n_prefix, _SQUARE)
        elif found is not None and channels_are_last(found, width):
            found = found.permute(0, 3, 1, 2)
        if found is not None:
            maps[name] = found.detach()

    return record
