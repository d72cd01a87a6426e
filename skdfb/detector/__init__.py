"""The detectors: on images, and on features."""

from skdfb.detector._dfb import DFBDetector
from skdfb.detector._features import FeatureDetector

__all__ = ["DFBDetector", "FeatureDetector"]
