"""Training of classifiers and dense networks."""

from skdfb.training._stages import build_classifier, check_trained_classifier
from skdfb.training._trainer import Trainer

__all__ = ["Trainer", "build_classifier", "check_trained_classifier"]
