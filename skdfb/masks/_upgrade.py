"""Mask generators in files of format 1 as they are now."""

from typing import Any

from skdfb._registry import register_upgrade
from skdfb.images._checks import IMAGES_BEFORE_RANGES
from skdfb.networks._upgrade import upgrade_backbone

__all__: list[str] = []


def _upgrade(state: dict[str, Any]) -> dict[str, Any]:
    upgrade_backbone(state)
    fitted = {"image_shape_": state["image_shape"], **IMAGES_BEFORE_RANGES} if "classes_" in state else {}
    return state | fitted


for _name in ("AffinityMaskGenerator", "CAMMaskGenerator", "DenseMaskGenerator"):
    register_upgrade(_name, 1, _upgrade)
