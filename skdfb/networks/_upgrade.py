"""The backbone in files of format 1 as it is now; detectors and mask generators share it."""

import warnings
from typing import Any

from skdfb.networks._timm import create_backbone

__all__ = ["upgrade_backbone"]


def upgrade_backbone(state: dict[str, Any]) -> None:
    """Turn ``pretrained`` and ``checkpoint_path``, once parameters beside ``backbone``, into a backbone, in place."""
    pretrained, path = state.pop("pretrained", True), state.pop("checkpoint_path", None)
    name = state.get("backbone")
    if not isinstance(name, str):
        return
    if path is not None:
        # A file must not choose which other files are read, so the weights cannot be loaded here.
        warnings.warn(
            f"This model was to be fitted from the weights in checkpoint_path={str(path)!r}. Its scores do not change, "
            f"but a new fit would start from timm's pre-trained weights. Before a new fit, set "
            f"backbone=create_backbone({name!r}, checkpoint_path=...).",
            stacklevel=2,
        )
    elif not pretrained:
        # A name alone now stands for pre-trained weights.
        state["backbone"] = create_backbone(name, pretrained=False, random_state=0)
