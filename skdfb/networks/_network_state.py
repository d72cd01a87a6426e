"""What a network is, in plain types: pickles and skops files hold that, and come back on another machine."""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from skdfb.networks._records import backbone_record, built_backbone
from skdfb.utils import available_device, isolated_rng

__all__ = ["network_state", "restored_network"]

Network = TypeVar("Network", bound=nn.Module)

_BACKBONE = "feature_map.backbone."


def network_state(network: Any) -> dict[str, Any] | None:
    """Return a network over a timm backbone as names, numbers and arrays; None where those do not tell all of it."""
    arguments = backbone_record(network.feature_map.backbone)
    if arguments is None or any(_hooks(module) for module in network.modules()):
        return None
    weights = network.state_dict()
    return {
        "backbone": arguments,
        "preprocessor": network.preprocessor,
        "weights": {name: _as_array(tensor) for name, tensor in weights.items()},
        "bfloat16": [name for name, tensor in weights.items() if tensor.dtype == torch.bfloat16],
        "frozen": [name for name, parameter in network.named_parameters() if not parameter.requires_grad],
        "training": [name for name, module in network.named_modules() if module.training],
        "device": str(network.device),
    }


def restored_network(cls: type[Network], state: dict[str, Any]) -> Network:
    """Return the network of a state; on the CPU where its device is not there."""
    weights = {name: torch.from_numpy(array) for name, array in state["weights"].items()}
    weights |= {name: weights[name].view(torch.bfloat16) for name in state["bfloat16"]}
    of_backbone = {
        name.removeprefix(_BACKBONE): weight for name, weight in weights.items() if name.startswith(_BACKBONE)
    }
    with isolated_rng(0, torch.device("cpu")):  # the weights it draws are replaced
        backbone = built_backbone(state["backbone"], of_backbone)
        network: Any = cls(backbone, len(weights["head.weight"]), image_size=state["preprocessor"].image_size)
    network.preprocessor = state["preprocessor"]
    network.head.load_state_dict({name: weights[f"head.{name}"] for name in ("weight", "bias")}, assign=True)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in set(state["frozen"]))
    for name, module in network.named_modules():
        module.training = name in set(state["training"])
    return network.to(available_device(state["device"]))  # type: ignore[no-any-return]


def _as_array(tensor: Tensor) -> npt.NDArray[Any]:
    tensor = tensor.detach().cpu()
    # NumPy has no bfloat16; such numbers travel as integers.
    array: npt.NDArray[Any] = (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return np.ascontiguousarray(array).reshape(array.shape)


def _hooks(module: nn.Module) -> bool:
    """Tell whether somebody has hung something of their own on a module."""
    return any(value for name, value in vars(module).items() if name.endswith("_hooks"))
