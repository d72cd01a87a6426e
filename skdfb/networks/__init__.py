"""Backbones with a linear head at every place, and their class activation maps."""

from skdfb.networks._attention_maps import attention_maps
from skdfb.networks._dense_classifier import DenseClassifier
from skdfb.networks._timm import create_backbone

__all__ = ["DenseClassifier", "attention_maps", "create_backbone"]
