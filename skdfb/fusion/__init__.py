"""Ways to join the scores of foreground and background into one; higher is more in-distribution."""

from skdfb.fusion._protocol import Fusion
from skdfb.fusion._tail_probability import TailProbabilityFusion
from skdfb.fusion._temperature import TemperatureFusion

__all__ = ["Fusion", "TailProbabilityFusion", "TemperatureFusion"]
