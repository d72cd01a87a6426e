"""The state of a network in plain types, for skops, whose files hold no tensors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from skdfb.networks._feature_map import FeatureMap
from skdfb.networks._records import backbone_record, built_backbone, freeze_weights, frozen_weights
from skdfb.utils import available_device, isolated_rng

__all__ = ["network_state", "restored_network"]

_BACKBONE = "feature_map.backbone."
_PARTS = {"feature_map": FeatureMap, "head": nn.Linear}
_OWN_ATTRIBUTES = {"classes", "preprocessor"}


def network_state(network: Any) -> dict[str, Any] | None:
    """Return a network with a timm backbone as names, numbers and arrays; None if these do not describe all of it."""
    if not _is_plain(network):
        return None
    arguments = backbone_record(network.feature_map.backbone)
    if arguments is None:
        return None
    weights = network.state_dict()
    return {
        "backbone": arguments,
        "preprocessor": network.preprocessor,
        "classes": network.classes,
        "weights": {name: _as_array(tensor) for name, tensor in weights.items()},
        "bfloat16": [name for name, tensor in weights.items() if tensor.dtype == torch.bfloat16],
        "frozen": frozen_weights(network),
        "training": [name for name, module in network.named_modules() if module.training],
        "device": str(network.device),
    }


def restored_network(state: dict[str, Any], network_class: Callable[..., Any]) -> nn.Module:
    """Return the network of a state, made by its class; it lies on the CPU if this machine lacks its device."""
    weights = {name: torch.tensor(array) for name, array in state["weights"].items()}
    # bfloat16 weights are stored as int16, see _as_array.
    weights |= {name: weights[name].view(torch.bfloat16) for name in state["bfloat16"]}
    of_backbone = {
        name.removeprefix(_BACKBONE): weight for name, weight in weights.items() if name.startswith(_BACKBONE)
    }
    preprocessor = state["preprocessor"]
    # The random weights are replaced, but drawing them would change the caller's random numbers.
    with isolated_rng(0):
        backbone = built_backbone(state["backbone"], of_backbone)
        n_classes, options = len(weights["head.weight"]), {"classes": state.get("classes")}
        network: nn.Module = network_class(backbone, n_classes, image_size=preprocessor.image_size, **options)
    network.preprocessor = preprocessor
    network.get_submodule("head").load_state_dict(
        {name: weights[f"head.{name}"] for name in ("weight", "bias")}, assign=True
    )
    # Neither frozen weights nor train flags are in a state dict.
    freeze_weights(network, state["frozen"])
    for name, module in network.named_modules():
        module.training = name in set(state["training"])
    return network.to(available_device(state["device"]))


def _is_plain(network: nn.Module) -> bool:
    """Return whether a network has the parts that its class gives it and nothing else, no hooks for example."""
    attributes = set(vars(network)) - set(vars(nn.Module()))
    parts = {name: type(module) for name, module in network.named_children()}
    has_hooks = any(
        value for module in network.modules() for name, value in vars(module).items() if name.endswith("_hooks")
    )
    # The class by its module's name: that module imports this one.
    return (
        type(network).__module__ == "skdfb.networks._dense_classifier"
        and attributes == _OWN_ATTRIBUTES
        and parts == _PARTS
        and network.get_submodule("head").bias is not None
        and not has_hooks
    )


def _as_array(tensor: Tensor) -> npt.NDArray[Any]:
    tensor = tensor.detach().cpu()
    # NumPy has no bfloat16: the same bits are stored as integers.
    array: npt.NDArray[Any] = (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return np.ascontiguousarray(array).reshape(array.shape)
