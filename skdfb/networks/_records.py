"""Records of backbones: the architecture of a saved model, by name and options."""

import copy
import itertools
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from skdfb.networks._feature_map import FeatureMap
from skdfb.networks._published import is_published
from skdfb.networks._timm import READING_OPTIONS, create_backbone, creation_arguments, preprocessor_of
from skdfb.utils import evaluation_mode

__all__ = ["backbone_record", "built_backbone", "freeze_weights", "frozen_weights"]

_TRAINING_SETTINGS = ("p", "drop_prob", "momentum")  # of dropout, stochastic depth and batch normalisation


def backbone_record(backbone: nn.Module) -> dict[str, Any] | None:
    """Return the arguments of :func:`create_backbone` that build a module like this one; None if there are none.

    The arguments are tried: a model that was changed after its creation, or that timm created with other options,
    cannot be built by name.
    """
    # Wrong arguments are worse than none: a file would restore another network without an error.
    arguments = creation_arguments(backbone)
    if arguments is None:
        return None
    try:
        # On the CPU, because results on a GPU are not bit for bit the same, and the twin's tables are on the CPU.
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
    """Return the module itself if it is on the CPU, else a copy that is."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    return module if all(tensor.device.type == "cpu" for tensor in tensors) else copy.deepcopy(module).cpu()


def _warn_of_lost(backbone: nn.Module, twin: nn.Module) -> None:
    """Warn of settings that a backbone built by name lacks, and that change nothing but a training."""
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
            f"the backbone is stored by its name, without {len(lost)} settings that only matter in training, such as "
            f"{lost[0]}. To store them, create the backbone by create_backbone(name, ...) with these options.",
            UserWarning,
            stacklevel=2,
        )


def built_backbone(arguments: dict[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    """Build a timm model without its classifier, with these weights; no file is read, and nothing is downloaded.

    The weights of a classifier, which feature maps do not need, are left out.

    Raises
    ------
    ValueError
        If the weights are not those of such a model, or if an option would read weights from elsewhere.
    """
    # Such a name would have a folder or the hub read; a saved model names the architecture.
    if is_published(str(arguments["name"])):
        raise ValueError(f"backbone={arguments['name']!r} is no timm model: expected the name of an architecture.")
    reading = sorted(READING_OPTIONS & set(arguments["options"]))
    if reading:
        raise ValueError(
            f"the options {reading} would have weights read from elsewhere: expected options of the architecture only."
        )
    options = {**arguments["options"], "pretrained": False, "image_size": arguments["image_size"], "random_state": 0}
    # First on the meta device, which takes no memory: a file may name a network of any size.
    with torch.device("meta"):
        backbone = create_backbone(arguments["name"], **options)
    expected = backbone.state_dict()
    missing = [key for key in expected if key not in weights or weights[key].shape != expected[key].shape]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(expected)} weights are missing or have another shape: {missing[0]!r}."
        )
    # Some backbones compute tables at creation that are not in the state dict. These need real memory.
    if any(buffer.is_meta for name, buffer in backbone.named_buffers() if name not in expected):
        backbone = create_backbone(arguments["name"], **options)
    backbone.load_state_dict({key: weights[key] for key in expected}, assign=True)
    _cast_tables(backbone, set(expected))
    return backbone.eval()


def frozen_weights(module: nn.Module) -> list[str]:
    """Return the names of the weights that trainings do not change."""
    return [name for name, parameter in module.named_parameters() if not parameter.requires_grad]


def freeze_weights(module: nn.Module, names: Iterable[str]) -> None:
    """Freeze the weights of these names, and no others."""
    frozen = set(names)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in frozen)


def _cast_tables(backbone: nn.Module, stored: set[str]) -> None:
    """Convert the tables that a backbone computes at creation to the dtype of its weights, as ``.to(dtype)`` does."""
    dtypes = {parameter.dtype for parameter in backbone.parameters() if parameter.is_floating_point()}
    if len(dtypes) != 1:  # mixed precision: no dtype is the right one for all tables
        return
    (dtype,) = dtypes
    for name, buffer in backbone.named_buffers():
        if name not in stored and buffer.is_floating_point():
            buffer.data = buffer.to(dtype)


@torch.no_grad()
def _same_map(backbone: nn.Module, twin: nn.Module, image_size: int | None) -> bool:
    """Return whether two backbones with equal weights give equal feature maps of a random image."""
    preprocessor = preprocessor_of(backbone, image_size)
    size = preprocessor.image_size
    parameter = next(backbone.parameters(), torch.zeros(1))
    shape = (1, preprocessor.n_channels, size, size)
    trial = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(parameter)
    with evaluation_mode(backbone):
        first, second = (FeatureMap(module, size, "")(trial) for module in (backbone, twin))
    return torch.equal(first, second)
