"""The first stage, shared by the detector and the mask generators: get a trained classifier."""

import copy
import os
from typing import Any

import numpy.typing as npt
import torch
from torch import nn

from skdfb.networks import DenseClassifier
from skdfb.utils import Images, isolated_rng

__all__ = ["build_classifier", "check_trained_classifier"]


def build_classifier(
    backbone: str | nn.Module,
    n_classes: int,
    images: Images,
    *,
    pretrained: bool,
    checkpoint_path: str | os.PathLike[str] | None,
    image_size: int | None,
    seed: int,
) -> DenseClassifier:
    """Return an untrained classifier around ``backbone``; a module is copied, so that the user's stays as it is.

    Modules that name no input size of their own get the images', where all share one. ``seed`` fixes random weights.
    """
    if isinstance(backbone, nn.Module):
        backbone = copy.deepcopy(backbone)
    fallback = max(images.size) if images.size is not None else None
    with isolated_rng(seed, torch.device("cpu")):
        return DenseClassifier(
            backbone,
            n_classes,
            pretrained=pretrained,
            checkpoint_path=checkpoint_path,
            image_size=image_size,
            fallback_size=fallback,
        )


def check_trained_classifier(network: DenseClassifier, classes: npt.NDArray[Any], name: str = "backbone") -> None:
    """Refuse a trained classifier that does not have one output a class."""
    if network.num_classes != len(classes):
        raise ValueError(
            f"{name} is a DenseClassifier with {network.num_classes} outputs, which counts as trained, but y has "
            f"{len(classes)} classes; outputs are wanted in the order of np.unique(y). To train from its weights "
            f"instead, pass {name}=network.feature_map.backbone."
        )
