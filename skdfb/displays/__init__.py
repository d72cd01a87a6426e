"""Plots of scores, curves, masks, features and trainings; they need matplotlib (``pip install skdfb[plot]``)."""

from skdfb.displays._curves import OODCurveDisplay
from skdfb.displays._embeddings import FeatureEmbeddingDisplay
from skdfb.displays._masks import MaskDisplay
from skdfb.displays._rejections import RejectionDisplay
from skdfb.displays._scores import ScoreHistogramDisplay
from skdfb.displays._segmentations import SegmentationDisplay
from skdfb.displays._temperatures import TemperatureDisplay
from skdfb.displays._trainings import TrainingDisplay

__all__ = [
    "FeatureEmbeddingDisplay",
    "MaskDisplay",
    "OODCurveDisplay",
    "RejectionDisplay",
    "ScoreHistogramDisplay",
    "SegmentationDisplay",
    "TemperatureDisplay",
    "TrainingDisplay",
]
