"""Checks on unusual data: finite scores, or a ValueError with a message."""

from dataclasses import replace
from typing import Any

import numpy as np

from skdfb.testing._scorers._data import Data, new_images, training_data
from skdfb.testing._scorers._demands import demand_finite_or_refused


def check_scorer_class_without_images(name: str, scorer: Any) -> None:
    """Check a class without training images."""
    representation, y = training_data(scorer)
    assert y is not None
    # Class indices keep their gap: the classifier still has 4 outputs.
    rows = np.flatnonzero(y != 1)
    data = Data(representation[rows], y[rows])
    demand_finite_or_refused(name, scorer, data, "no image of class 1 of 4", new_images(scorer))


def check_scorer_constant_features(name: str, scorer: Any) -> None:
    """Check training images with equal features."""
    data = training_data(scorer, kind="constant")
    demand_finite_or_refused(name, scorer, data, "training images with the same features", new_images(scorer))


def check_scorer_signed_features(name: str, scorer: Any) -> None:
    """Check features of a network that does not end in a ReLU."""
    data, new = training_data(scorer, kind="signed"), new_images(scorer, kind="signed")
    demand_finite_or_refused(name, scorer, data, "features of both signs", new)


def check_scorer_fewer_images_than_features(name: str, scorer: Any) -> None:
    """Check fewer training images than features, where covariances have no inverse."""
    demand_finite_or_refused(
        name, scorer, training_data(scorer, n=5), "5 training images of 8 features", new_images(scorer)
    )


def check_scorer_one_image(name: str, scorer: Any) -> None:
    """Check one training image."""
    demand_finite_or_refused(name, scorer, training_data(scorer, n=1), "1 training image", new_images(scorer))


def check_scorer_one_feature(name: str, scorer: Any) -> None:
    """Check C = 1."""
    demand_finite_or_refused(name, scorer, training_data(scorer, C=1), "images of 1 feature")


def check_scorer_two_classes(name: str, scorer: Any) -> None:
    """Check K = 2."""
    demand_finite_or_refused(name, scorer, training_data(scorer, K=2), "images of 2 classes")


def check_scorer_one_class(name: str, scorer: Any) -> None:
    """Check K = 1: the background representation, with labels of zeros or without labels."""
    data = training_data(scorer, K=1)
    demand_finite_or_refused(name, scorer, data, "a background representation (1 class) and zeros for y")
    # A detector passes None where there are no classes.
    unlabelled = data._replace(y=None)
    demand_finite_or_refused(name, scorer, unlabelled, "a background representation (1 class) and None for y")


def check_scorer_unusual_images(name: str, scorer: Any) -> None:
    """Check new images far from the training images."""
    images = new_images(scorer)
    # The logits follow the features, as in a network.
    for given, factor in (("new images whose features are all 0", 0.0), ("new images with huge features", 1e6)):
        features = factor * images.features
        activations = {layer: factor * tensor for layer, tensor in (images.activations or {}).items()} or None
        logits = features @ images.weight.T + images.bias
        unusual = replace(images, features=features, logits=logits, activations=activations)
        demand_finite_or_refused(name, scorer, training_data(scorer), given, unusual)


def check_scorer_no_images(name: str, scorer: Any) -> None:
    """Check that zero images are scored or refused."""
    demand_finite_or_refused(name, scorer, training_data(scorer), "0 images to score", new_images(scorer)[:0])
