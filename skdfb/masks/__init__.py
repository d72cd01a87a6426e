"""Masks of foreground and background as transformers, usable without a detector."""

from skdfb._registry import register_classes
from skdfb.masks import _upgrade as _upgrade
from skdfb.masks._affinity import AffinityMaskGenerator
from skdfb.masks._cam import CAMMaskGenerator
from skdfb.masks._dense import DenseMaskGenerator
from skdfb.masks._normalized_cut import NormalizedCutMaskGenerator

__all__ = ["AffinityMaskGenerator", "CAMMaskGenerator", "DenseMaskGenerator", "NormalizedCutMaskGenerator"]

register_classes(__name__)
