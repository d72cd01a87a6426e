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

__all__ = ["build_classifier", "start_dense_network", "take_over"]


def build_classifier(
    backbone: str | nn.Module,
    n_classes: int,
    images: Images,
    *,
    image_size: int | None,
    seed: int,
) -> DenseClassifier:
    """Return an untrained classifier around ``backbone``.

    A name stands for timm's pre-trained weights. A module is copied, so that the user's module does not change. If a
    module has no input size and all images have the same size, the input size is that of the images. ``seed`` fixes the
    random weights of the construction.
    """
    if isinstance(backbone, nn.Module):
        backbone = copy.deepcopy(backbone)
    fallback = max(images.size) if images.size is not None else None
    # Weights are drawn on the CPU, so that they are the same on every device.
    with isolated_rng(seed, torch.device("cpu")):
        return DenseClassifier(backbone, n_classes, image_size=image_size, fallback_size=fallback)


def take_over(estimator: Any, classes: npt.NDArray[Any]) -> DenseClassifier:
    """Return a copy of the trained classifier that is the ``backbone`` of an estimator.

    Raises
    ------
    ValueError
        If it does not have one output per class, or if the estimator's ``image_size`` differs from the classifier's.
    """
    network: DenseClassifier = estimator.backbone
    own = network.preprocessor.image_size
    if estimator.image_size not in (None, own):
        raise ValueError(
            f"image_size={estimator.image_size} is given, but backbone is a DenseClassifier for images of {own} "
            f"pixels: expected image_size=None or {own}; leave image_size=None."
        )
    if network.num_classes != len(classes):
        raise ValueError(
            f"backbone is a DenseClassifier with {network.num_classes} outputs, which counts as trained, but y has "
            f"{len(classes)} classes: expected one output per class, in the order of np.unique(y). To train from its "
            "weights, pass backbone=network.feature_map.backbone."
        )
    return copy.deepcopy(network)


def start_dense_network(
    classifier: DenseClassifier, trainer: Trainer, build: Callable[[], DenseClassifier] | None
) -> DenseClassifier:
    """Return the dense network before its training, with an output for the background.

    It starts from the trained classifier, or from the backbone before any training, as ``dense_start`` of the trainer
    says. ``build`` returns the untrained classifier; it is None if the user passed a trained one.

    Raises
    ------
    ValueError
        If the trainer starts from the backbone before training, but the user passed a trained classifier, whose weights
        before training are not known.
    """
    if trainer.dense_start == "classifier":
        return classifier.with_background()
    if build is None:
        raise ValueError(
            "dense_trainer has dense_start='pretrained', but backbone is a DenseClassifier, which counts as trained: "
            "expected dense_start='classifier', or a backbone before training."
        )
    # The same seed as for the classifier, so these are exactly the weights that its training started from.
    return build().with_background().to(classifier.device)
