"""The networks before their training, for the detector and the mask generators."""

import copy
from collections.abc import Callable
from typing import Any

import numpy.typing as npt
import torch
from torch import nn

from skdfb.images import Images
from skdfb.networks import DenseClassifier
from skdfb.training._trainer import Trainer
from skdfb.utils import isolated_rng

__all__ = ["build_classifier", "check_dense_start", "start_dense_network", "take_over"]


def build_classifier(
    backbone: str | nn.Module,
    n_classes: int,
    images: Images,
    *,
    image_size: int | None,
    seed: int,
) -> DenseClassifier:
    """Return an untrained classifier around ``backbone``.

    A name stands for timm's pre-trained weights. A module is copied: the user's own does not change. The input size of
    a module without one of its own is that of the images, where all images have the same. ``seed`` fixes the random
    numbers of the construction.
    """
    if isinstance(backbone, nn.Module):
        backbone = copy.deepcopy(backbone)
    fallback = max(images.size) if images.size is not None else None
    with isolated_rng(seed, torch.device("cpu")):
        return DenseClassifier(backbone, n_classes, image_size=image_size, fallback_size=fallback)


def take_over(estimator: Any, classes: npt.NDArray[Any]) -> DenseClassifier:
    """Return a copy of the trained classifier that an estimator has as its ``backbone``.

    Raises
    ------
    ValueError
        If it does not have one output per class, or if the estimator's ``image_size`` is another than the classifier's.
    """
    network: DenseClassifier = estimator.backbone
    own = network.preprocessor.image_size
    if estimator.image_size not in (None, own):
        raise ValueError(
            f"image_size={estimator.image_size} is given beside a DenseClassifier as backbone, which takes images of "
            f"{own} pixels: expected image_size=None or {own}; leave image_size=None."
        )
    if network.num_classes != len(classes):
        raise ValueError(
            f"backbone is a DenseClassifier with {network.num_classes} outputs, which counts as trained, but y has "
            f"{len(classes)} classes: expected one output per class, in the order of np.unique(y). To train from its "
            "weights instead, pass backbone=network.feature_map.backbone."
        )
    return copy.deepcopy(network)


def start_dense_network(
    classifier: DenseClassifier, trainer: Trainer, build: Callable[[], DenseClassifier]
) -> DenseClassifier:
    """Return the dense network before its training: the classifier, or the backbone before any, with a background.

    ``build`` returns the untrained classifier.
    """
    if trainer.dense_start == "classifier":
        return classifier.with_background()
    return build().with_background().to(classifier.device)


def check_dense_start(backbone: str | nn.Module, dense_trainer: Trainer | None) -> None:
    """Refuse to start the dense network before a training of which nothing is known.

    Raises
    ------
    ValueError
        If the dense network should start from the pre-trained backbone, but the classifier is given as trained.
    """
    pretrained = dense_trainer is not None and dense_trainer.dense_start == "pretrained"
    if pretrained and isinstance(backbone, DenseClassifier):
        raise ValueError(
            "dense_trainer has dense_start='pretrained', but backbone is a DenseClassifier, which counts as trained: "
            "expected dense_start='classifier'; or pass the backbone before training."
        )
