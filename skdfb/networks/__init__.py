"""Backbones with a linear head at every place, their class activation maps, and the refinement of such maps."""

from skdfb._registry import register_class, register_classes
from skdfb.images import Preprocessor
from skdfb.networks._affinity import refine_by_affinity
from skdfb.networks._attention_maps import attention_maps
from skdfb.networks._dense_classifier import DenseClassifier
from skdfb.networks._timm import create_backbone

__all__ = ["DenseClassifier", "attention_maps", "create_backbone", "refine_by_affinity"]

register_classes(__name__)
register_class(Preprocessor)  # a part of each network
