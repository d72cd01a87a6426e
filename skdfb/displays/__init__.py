"""Plots of scores, masks and segmentations; they need matplotlib (``pip install skdfb[plot]``)."""

from skdfb.displays._masks import MaskDisplay
from skdfb.displays._scores import ScoreHistogramDisplay

__all__ = ["MaskDisplay", "ScoreHistogramDisplay"]
