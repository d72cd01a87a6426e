"""What a detector's parameters stand for where they are None."""

from collections.abc import Callable
from typing import Any

from skdfb.fusion import TailProbabilityFusion, TemperatureFusion
from skdfb.masks import CAMMaskGenerator
from skdfb.scorers import BackgroundLogit, Mahalanobis, ViM
from skdfb.training import Trainer

__all__ = ["PAPER_IMAGE_SIZE", "RECIPES"]

PAPER_IMAGE_SIZE = 128

Recipe = dict[str, Callable[[], Any]]

_PAPER: Recipe = {
    "scorer": ViM,
    "background_scorer": BackgroundLogit,
    "fusion": TemperatureFusion,
    "mask_generator": CAMMaskGenerator,
    "classifier_trainer": Trainer.paper_classifier,
    "dense_trainer": Trainer.paper_dense,
}
_DEFAULT: Recipe = _PAPER | {
    "background_scorer": lambda: [BackgroundLogit(), Mahalanobis(shrinkage="auto")],
    "fusion": TailProbabilityFusion,
    "classifier_trainer": Trainer,
    "dense_trainer": Trainer,
}

RECIPES = {"default": _DEFAULT, "paper": _PAPER}
