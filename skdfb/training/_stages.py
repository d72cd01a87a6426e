"""The networks before each stage, for the detector and the mask generators."""

import copy
from collections.abc import Callable
from typing import Any

import numpy.typing as npt
from torch import nn

from skdfb.images import Images
from skdfb.networks import DenseClassifier
from skdfb.networks._records import freeze_weights, frozen_weights
from skdfb.networks._unwrap import unwrapped
from skdfb.training._class_order import ORDERED, in_order_of
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

    A name gives a timm model with its pre-trained weights. A module is copied, so the user's module does not change. If
    a module has no input size of its own, the size of the images is used, provided that all images have the same size.
    ``seed`` fixes the random initial weights.
    """
    if isinstance(backbone, nn.Module):
        backbone = copy.deepcopy(unwrapped(backbone))
    fallback = max(images.size) if images.size is not None else None
    # Weights are drawn on the CPU, so they do not depend on the device of the training.
    with isolated_rng(seed):
        network = DenseClassifier(backbone, n_classes, image_size=image_size, fallback_size=fallback)
    ORDERED.add(network)
    return network


def take_over(estimator: Any, classes: npt.NDArray[Any]) -> DenseClassifier:
    """Return a copy of the trained classifier that was passed to an estimator as its ``backbone``.

    Raises
    ------
    ValueError
        If it does not have one output per class, if its ``classes`` do not name each class of y, or if the
        ``image_size`` of the estimator differs from its own.
    """
    network: DenseClassifier = estimator.backbone
    # Its weights were trained for this size; another size would silently change its features.
    own = network.preprocessor.image_size
    if estimator.image_size not in (None, own):
        raise ValueError(
            f"image_size={estimator.image_size} is given beside a DenseClassifier as backbone, which takes images of "
            f"{own} pixels: expected image_size=None or {own}; leave image_size=None."
        )
    if network.classes is None and network.num_classes != len(classes):
        raise ValueError(
            f"backbone is a DenseClassifier with {network.num_classes} outputs, which counts as trained, but y has "
            f"{len(classes)} classes: expected one output per class, in the order of np.unique(y). If y lacks some "
            "classes of the network, give DenseClassifier(..., classes=[...]) the labels of all outputs: others "
            "than those of y are dropped. To train from its weights, pass backbone=network.feature_map.backbone."
        )
    # A copy: the dense stage and the device of the fit must not change the network of the user.
    network = copy.deepcopy(network)
    if network.classes is not None:
        in_order_of(network, classes)
    ORDERED.add(network)
    return network


def start_dense_network(
    classifier: DenseClassifier, trainer: Trainer, build: Callable[[], DenseClassifier]
) -> DenseClassifier:
    """Return the dense network before its training: a copy of the classifier with an added background output.

    ``build`` returns the untrained classifier, which is the start if ``trainer.dense_start`` is "pretrained".
    """
    if trainer.dense_start == "classifier":
        return classifier.with_background()
    # Built again, not kept from before the first stage: a second copy would take memory during all of that stage.
    network = build().with_background().to(classifier.device)
    # Both networks share the trunk.
    freeze_weights(network, frozen_weights(classifier))
    return network


def check_dense_start(backbone: str | nn.Module, dense_trainer: Trainer | None) -> None:
    """Check that the weights that the dense network starts from are available.

    Raises
    ------
    ValueError
        If the dense network should start from the pre-trained backbone, but a trained classifier was given.
    """
    # A trained classifier no longer has the weights that its own training started from.
    pretrained = dense_trainer is not None and dense_trainer.dense_start == "pretrained"
    if pretrained and isinstance(backbone, DenseClassifier):
        raise ValueError(
            "dense_trainer has dense_start='pretrained', but backbone is a DenseClassifier, which counts as trained: "
            "expected dense_start='classifier'; set it, or pass the backbone from before the training."
        )
