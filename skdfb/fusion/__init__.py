"""Rules that join the scores of several parts into one score per image; higher is more in-distribution."""

from skdfb._registry import register_class, register_classes
from skdfb.fusion._protocol import Fusion
from skdfb.fusion._tail_probability import TailProbabilityFusion
from skdfb.fusion._temperature import TemperatureFusion
from skdfb.utils import TailProbability

__all__ = ["Fusion", "TailProbabilityFusion", "TemperatureFusion"]

register_classes(__name__)
register_class(TailProbability)  # a part of fitted fusions and of scorers
