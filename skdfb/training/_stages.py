"""The first stage, shared by the detector and the mask generators: get a trained classifier."""

import copy
import os
from typing import Any

import numpy.typing as npt
import torch
from torch import nn

from skdfb.images import Images
from skdfb.networks import DenseClassifier
from skdfb.utils import isolated_rng

__all__ = ["build_classifier", "take_over"]


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


def take_over(estimator: Any, classes: npt.NDArray[Any]) -> DenseClassifier:
    """Return a copy of the trained classifier that an estimator was given as ``backbone``.

    Raises
    ------
    ValueError
        If it does not have one output a class, or if other parameters ask for what it has settled.
    """
    network: DenseClassifier = estimator.backbone
    own = network.preprocessor.image_size
    if estimator.checkpoint_path is not None or estimator.image_size not in (None, own):
        raise ValueError(
            f"checkpoint_path={estimator.checkpoint_path!r} and image_size={estimator.image_size} are given beside a "
            f"DenseClassifier as backbone, which has its weights and its size, {own}; leave both None."
        )
    if network.num_classes != len(classes):
        raise ValueError(
            f"backbone is a DenseClassifier with {network.num_classes} outputs, which counts as trained, but y has "
            f"{len(classes)} classes; outputs are wanted in the order of np.unique(y). To train from its weights "
            "instead, pass backbone=network.feature_map.backbone."
        )
    return copy.deepcopy(network)
