"""How a backbone is built again: what a saved model says of its architecture."""

from typing import Any

import torch
from torch import Tensor, nn

from skdfb.networks._feature_map import FeatureMap
from skdfb.networks._timm import create_backbone, creation_arguments, preprocessor_of
from skdfb.utils import evaluation_mode

__all__ = ["backbone_record", "built_backbone"]


def backbone_record(backbone: nn.Module) -> dict[str, Any] | None:
    """Return the arguments of :func:`create_backbone` that build a module like this one; None where none are known.

    Whether they do is tried: a model that was changed after its creation, or created by timm with options of its
    own, is none that can be built by name.
    """
    arguments = creation_arguments(backbone)
    if arguments is None:
        return None
    try:
        twin = built_backbone(arguments, backbone.state_dict())
    except (ValueError, RuntimeError, TypeError):
        return None
    return arguments if _same_map(backbone, twin, arguments["image_size"]) else None


def built_backbone(arguments: dict[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    """Build a timm model without its classifier, from no file and no network, and give it these weights.

    Weights of a classifier, which feature maps do not need, are left out.
    """
    options = {"pretrained": False, "image_size": arguments["image_size"], **arguments["options"]}
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
    return backbone.eval()


@torch.no_grad()
def _same_map(backbone: nn.Module, twin: nn.Module, image_size: int | None) -> bool:
    """Tell whether two backbones of equal weights give equal maps."""
    size = preprocessor_of(backbone, image_size).image_size
    parameter = next(backbone.parameters(), torch.zeros(1))
    trial = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(parameter)
    with evaluation_mode(backbone):
        first, second = (FeatureMap(module, size, "")(trial) for module in (backbone, twin))
    return torch.equal(first, second)
