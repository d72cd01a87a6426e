"""Training of classifiers and dense networks."""

from skdfb._registry import register_classes
from skdfb.training._trainer import Trainer

__all__ = ["Trainer"]

register_classes(__name__)
