"""Rules that join the scores of several parts into one score per image; higher is more in-distribution."""

from typing import Any

from skdfb._registry import register_class, register_classes, register_upgrade
from skdfb.fusion._protocol import Fusion
from skdfb.fusion._tail_probability import TailProbabilityFusion
from skdfb.fusion._temperature import TemperatureFusion
from skdfb.utils import TailProbability

__all__ = ["Fusion", "TailProbabilityFusion", "TemperatureFusion"]

register_classes(__name__)
register_class(TailProbability)  # a part of fitted fusions and of scorers


def _upgrade_temperature(state: dict[str, Any]) -> dict[str, Any]:
    """Give a fitted fusion of format 1 the temperatures of its fit, which were not kept apart."""
    fitted = ("temperature", "probability_temperature") if "part_names_" in state else ()
    return state | {f"{name}_": float(state[name]) for name in fitted}


register_upgrade("TemperatureFusion", 1, _upgrade_temperature)
