"""Maximum of each channel at every layer of a backbone, recorded during forward passes."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from skdfb.networks._dense_classifier import DenseClassifier

__all__ = [
    "backbone_layers",
    "called_children",
    "channel_means",
    "channels_are_last",
    "recorded_layers",
    "spatial_output",
]

LayerMaxima = dict[str, Tensor]


@contextmanager
def recorded_layers(network: DenseClassifier) -> Iterator[LayerMaxima]:
    """Record the maximum over all places of each channel, at each layer of the backbone.

    Yields a mapping from the name of a layer, in the order of the layers, to maxima of shape (n, C_l). Each forward
    pass fills it anew. The layers are timm's levels of features, or the children of any other module. The hooks are
    removed at the end. Forward passes in other threads are not recorded.

    Raises
    ------
    ValueError
        If the backbone has no such layers.
    """
    backbone = network.feature_map.backbone
    layers = backbone_layers(backbone)
    if not layers:
        raise ValueError(
            f"backbone {type(backbone).__name__} has no layers: this scorer expects a timm model, or a module whose "
            "children output feature maps."
        )
    # Hooks reduce each output during the ordinary forward pass, so that no layer's output is kept.
    maxima: LayerMaxima = {}
    n_prefix = int(getattr(backbone, "num_prefix_tokens", 0))
    hooks = [
        module.register_forward_hook(_recorder(maxima, name, width, n_prefix))
        for name, (module, width) in layers.items()
    ]
    try:
        yield maxima
    finally:
        for hook in hooks:
            hook.remove()


def backbone_layers(backbone: nn.Module) -> dict[str, tuple[nn.Module, int | None]]:
    """Return the layers by name, each with its number of channels, or None if that is not known."""
    modules = dict(backbone.named_modules())
    # Some families list no levels, or levels that are not modules: for them, the children are the layers.
    levels = [level for level in getattr(backbone, "feature_info", None) or () if level.get("module") in modules]
    if len(levels) > 1:
        return {level["module"]: (modules[level["module"]], level["num_chs"]) for level in levels}
    return {name: (module, None) for name, module in called_children(backbone)}


def called_children(backbone: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the children by name; in place of a ModuleList, which is never called itself, its items."""
    for name, child in backbone.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((f"{name}.{place}", module) for place, module in called_children(child))
        else:
            yield name, child


def _recorder(maxima: LayerMaxima, name: str, width: int | None, n_prefix: int) -> Callable[..., None]:
    thread = threading.get_ident()

    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        if threading.get_ident() != thread:  # another thread's forward pass through the same network
            return
        reduced = _channel_maxima(output, width, n_prefix)
        if reduced is not None:
            maxima[name] = reduced

    return record


def channel_means(output: object, n_prefix: int) -> Tensor | None:
    """Return means (n, C) of a map (n, C, h, w) or (n, h, w, C) or of tokens (n, t, C); None for anything else."""
    found = spatial_output(output, None)
    if found is None or found.ndim == 3:
        return None if found is None else found[:, n_prefix:].detach().mean(1)
    # Maps are square, so the two equal sides are the places.
    channels_last = found.shape[1] == found.shape[2] != found.shape[3]
    return found.detach().mean((1, 2) if channels_last else (2, 3))


def _channel_maxima(output: Any, width: int | None, n_prefix: int) -> Tensor | None:
    """Return maxima (n, C) of a map (n, C, h, w) or (n, h, w, C) or of tokens (n, t, C); None for anything else."""
    found = spatial_output(output, width)
    if found is None:
        return None
    if found.ndim == 3:
        return found[:, n_prefix:].detach().amax(1)
    return found.detach().amax((1, 2) if channels_are_last(found, width) else (2, 3))


def spatial_output(output: Any, width: int | None) -> Tensor | None:
    """Return the map or the tokens in a layer's output; None if there are none."""
    # Some families output tokens with the size of their grid, others several branches; the last fitting one counts.
    if isinstance(output, (tuple, list)):
        branches = [branch for branch in output if isinstance(branch, Tensor)]
        fitting = [branch for branch in branches if width in branch.shape[1:]] or branches
        # A map before tokens: PiT outputs a map and the class token. max returns the first of equals.
        output = max(fitting[::-1], key=lambda branch: branch.ndim, default=None)
    return output if isinstance(output, Tensor) and output.ndim in (3, 4) else None


def channels_are_last(feature_map: Tensor, width: int | None) -> bool:
    """Return whether a map of four dimensions is (n, h, w, C); the known number of channels tells the layout."""
    return width is not None and feature_map.shape[1] != width and feature_map.shape[3] == width
