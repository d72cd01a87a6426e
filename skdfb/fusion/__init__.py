"""Rules that join the scores of several parts into one score per image; higher is more in-distribution."""

from skdfb.fusion._protocol import Fusion
from skdfb.fusion._tail_probability import TailProbabilityFusion
from skdfb.fusion._temperature import TemperatureFusion

__all__ = ["Fusion", "TailProbabilityFusion", "TemperatureFusion"]
