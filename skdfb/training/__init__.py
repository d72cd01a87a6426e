"""Training of classifiers and dense networks."""

from skdfb.training._trainer import Trainer

__all__ = ["Trainer"]
