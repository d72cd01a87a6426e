"""The detectors: on images, and on features."""

from skdfb._registry import register_classes
from skdfb.detector import _upgrade as _upgrade
from skdfb.detector._dfb import DFBDetector
from skdfb.detector._features import FeatureDetector
from skdfb.detector._frozen import FrozenDetector

__all__ = ["DFBDetector", "FeatureDetector", "FrozenDetector"]

register_classes(__name__)
