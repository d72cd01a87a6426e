"""How a backbone is built again: what a saved model says of its architecture."""

import copy
import itertools
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from skdfb.networks._feature_map import FeatureMap
from skdfb.networks._timm import READING_OPTIONS, create_backbone, creation_arguments, preprocessor_of
from skdfb.utils import evaluation_mode

__all__ = ["backbone_record", "built_backbone", "freeze_weights", "frozen_weights"]

_TRAINING_SETTINGS = ("p", "drop_prob", "momentum")  # of dropout, stochastic depth and batch normalisation


def backbone_record(backbone: nn.Module) -> dict[str, Any] | None:
    """Return the arguments of :func:`create_backbone` that build a module like this one; None where none are known.

    Whether they do is tried: a model that was changed after its creation, or created by timm with options of its
    own, is none that can be built by name.
    """
    arguments = creation_arguments(backbone)
    if arguments is None:
        return None
    try:
        # On the CPU: rounding on a GPU differs from time to time, and tables of the twin lie on the CPU.
        original = _on_cpu(backbone)
        twin = built_backbone(arguments, original.state_dict())
        same = _same_map(original, twin, arguments["image_size"])
    except (ValueError, RuntimeError, TypeError):
        return None
    if not same:
        return None
    _warn_of_lost(original, twin)
    return copy.deepcopy(arguments)


def _on_cpu(module: nn.Module) -> nn.Module:
    """Return a module, or a copy of it on the CPU where it is elsewhere."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    return module if all(tensor.device.type == "cpu" for tensor in tensors) else copy.deepcopy(module).cpu()


def _warn_of_lost(backbone: nn.Module, twin: nn.Module) -> None:
    """Tell which settings a backbone built by name lacks that only training shows."""
    others = dict(twin.named_modules())
    lost = [
        f"{name}.{setting}={value}"
        for name, module in backbone.named_modules()
        for setting in _TRAINING_SETTINGS
        if isinstance(value := getattr(module, setting, None), float)
        and value != getattr(others.get(name), setting, 0.0)
    ]
    if lost:
        warnings.warn(
            f"the backbone is stored by its name, without {len(lost)} settings that matter to training alone, such as "
            f"{lost[0]}. To have them stored, make it by create_backbone(name, ...) with such options.",
            UserWarning,
            stacklevel=2,
        )


def built_backbone(arguments: dict[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    """Build a timm model without its classifier, from no file and no network, and give it these weights.

    Weights of a classifier, which feature maps do not need, are left out.

    Raises
    ------
    ValueError
        If the weights are not those of such a model, or if its options ask for weights from elsewhere.
    """
    reading = sorted(READING_OPTIONS & set(arguments["options"]))
    if reading:
        raise ValueError(f"the options {reading} would have weights read from elsewhere.")
    options = {**arguments["options"], "pretrained": False, "image_size": arguments["image_size"], "random_state": 0}
    # First without memory: a file may name a network of any size.
    with torch.device("meta"):
        backbone = create_backbone(arguments["name"], **options)
    wanted = backbone.state_dict()
    missing = [key for key in wanted if key not in weights or weights[key].shape != wanted[key].shape]
    if missing:
        raise ValueError(f"{len(missing)} of {len(wanted)} weights are missing or have another shape: {missing[0]!r}.")
    if any(buffer.is_meta for name, buffer in backbone.named_buffers() if name not in wanted):
        backbone = create_backbone(arguments["name"], **options)  # tables that it computes for itself
    backbone.load_state_dict({key: weights[key] for key in wanted}, assign=True)
    _cast_tables(backbone, set(wanted))
    return backbone.eval()


def frozen_weights(module: nn.Module) -> list[str]:
    """Return the names of weights that no training is to change."""
    return [name for name, parameter in module.named_parameters() if not parameter.requires_grad]


def freeze_weights(module: nn.Module, names: Iterable[str]) -> None:
    """Let trainings change all weights but these."""
    frozen = set(names)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in frozen)


def _cast_tables(backbone: nn.Module, stored: set[str]) -> None:
    """Bring the tables that a backbone computes for itself to the precision of its weights, as ``.to(dtype)`` does."""
    dtypes = {parameter.dtype for parameter in backbone.parameters() if parameter.is_floating_point()}
    if len(dtypes) != 1:
        return
    (dtype,) = dtypes
    for name, buffer in backbone.named_buffers():
        if name not in stored and buffer.is_floating_point():
            buffer.data = buffer.to(dtype)


@torch.no_grad()
def _same_map(backbone: nn.Module, twin: nn.Module, image_size: int | None) -> bool:
    """Tell whether two backbones of equal weights give equal maps."""
    size = preprocessor_of(backbone, image_size).image_size
    parameter = next(backbone.parameters(), torch.zeros(1))
    trial = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(parameter)
    with evaluation_mode(backbone):
        first, second = (FeatureMap(module, size, "")(trial) for module in (backbone, twin))
    return torch.equal(first, second)
