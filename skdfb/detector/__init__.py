"""The detectors: on images, and on features."""

from skdfb._registry import register_class, register_classes
from skdfb.detector import _upgrade as _upgrade
from skdfb.detector._dfb import DFBDetector
from skdfb.detector._explanation import Explanation
from skdfb.detector._features import FeatureDetector
from skdfb.detector._frozen import FrozenDetector
from skdfb.detector._reference import ReferenceImages
from skdfb.detector._stream import ImageScore

__all__ = ["DFBDetector", "Explanation", "FeatureDetector", "FrozenDetector", "ImageScore"]

register_classes(__name__)
register_class(ReferenceImages)  # a part of fitted detectors
