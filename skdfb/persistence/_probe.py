"""A trial of a saved model: its outputs for random noise, which are compared after loading.

The digest of a file shows damage to the file. The trial shows what a digest cannot: code that computes something else
now, such as a custom class that has changed, or a function in ``customs`` that builds another network.
"""

import math
from typing import Any

import numpy as np

from skdfb.images import as_images
from skdfb.scorers import Representation

__all__ = ["TrialOutputs", "same_outputs", "trial_outputs"]

TrialOutputs = dict[str, list[float]]

_N, _SIDE, _MOST_VALUES = 2, 32, 2**26
_TOLERANCE = 1e-2  # processors round differently; a wrong weight changes more


def trial_outputs(model: Any) -> TrialOutputs | None:
    """Return the outputs of a fitted model for noise, by name; None for a model that is not fitted or cannot score."""
    # The same noise when a model is saved and when it is loaded.
    rng = np.random.default_rng(0)
    # Read from a file when a model is loaded: noise of that size must not fill the memory.
    if not getattr(model, "n_features_in_", 0) <= _MOST_VALUES:
        raise ValueError(f"n_features_in_ is {model.n_features_in_}: expected at most {_MOST_VALUES}")
    # A fusion takes scores of parts, a detector or mask generator takes images.
    if hasattr(model, "part_names_"):
        return {"scores": _numbers(model.combine({name: rng.normal(size=_N) for name in model.part_names_}))}
    if hasattr(model, "image_shape"):
        return _outputs_for_images(model, _noise_images(model, rng))
    if not hasattr(model, "n_features_in_") or not hasattr(model, "score_samples"):
        return None
    # A FeatureDetector takes features, a scorer takes features and the last layer.
    features = rng.normal(size=(_N, model.n_features_in_))
    if hasattr(model, "calibrator_"):
        return {"scores": _numbers(model.score_samples(features))}
    weight, bias = rng.normal(size=(model.n_classes_, model.n_features_in_)), np.zeros(model.n_classes_)
    noise = Representation.from_numpy(features=features, weight=weight, bias=bias)
    return {"scores": _numbers(model.score_samples(noise))}


def _outputs_for_images(model: Any, images: Any) -> TrialOutputs:
    # Mask generators have no scores. The mean of each map is enough: (n, H, W) -> (n,)
    if not hasattr(model, "score_samples"):
        return {"maps": _numbers(model.attention_maps(images).mean((1, 2)))}
    features = np.asarray(model.transform(images), dtype=np.float64)  # (n, C)
    # Scores alone are not enough: an untrained head gives every network the same scores. Three weighted sums of the
    # features take little space in the file.
    sums = features @ np.cos(np.outer(np.arange(features.shape[1]), np.arange(3)))
    return {"scores": _numbers(model.score_samples(images)), "features": _numbers(sums)}


def _numbers(values: Any) -> list[float]:
    return [float(value) for value in np.ravel(values)]


def _noise_images(model: Any, rng: np.random.Generator) -> Any:
    """Return noise that the model can read: images, or rows of numbers in the range of the data."""
    if hasattr(model, "value_range_") and model.image_shape is None:
        low, high = model.value_range_
        return low + (high - low) * rng.random((_N, model.n_features_in_))
    n_channels = getattr(model, "_n_channels_", 3)  # older files have none
    shape = (_SIDE, _SIDE, n_channels) if model.image_shape is None else tuple(model.image_shape)
    if math.prod(shape) > _MOST_VALUES:  # as for n_features_in_
        raise ValueError(f"an image has {math.prod(shape)} values: expected at most {_MOST_VALUES}")
    noise = rng.integers(0, 256, (_N, *shape), dtype=np.uint8)
    images = as_images(noise, n_channels=n_channels)
    images.pixel_formats = frozenset()  # not to be compared with the kind of arrays that the model was fitted on
    return images


def same_outputs(first: TrialOutputs, second: TrialOutputs) -> bool:
    """Return whether the outputs of two trials are equal up to rounding."""
    return set(first) == set(second) and all(_close(first[name], second[name]) for name in first)


def _close(first: list[float], second: list[float]) -> bool:
    # Scores near 0 may be differences of large numbers: the tolerance is relative to the largest value.
    margin = _TOLERANCE * max((abs(value) for value in second), default=0.0)
    return len(first) == len(second) and bool(np.allclose(first, second, rtol=_TOLERANCE, atol=margin))
