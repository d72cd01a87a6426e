"""The detector."""

from skdfb.detector._dfb import DFBDetector

__all__ = ["DFBDetector"]
