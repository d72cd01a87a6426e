"""A trial that a saved model carries with it: what it said of some noise, to be compared after loading."""

from typing import Any

import numpy as np
import numpy.typing as npt

from skdfb.scorers import Representation

__all__ = ["same_answers", "trial_answers"]

Answers = dict[str, list[float]]

_N, _SIDE, _MOST_VALUES = 2, 32, 2**26
_TOLERANCE = 1e-2  # other processors round otherwise; a wrong weight changes more


def trial_answers(model: Any) -> Answers | None:
    """Return what a fitted model says of noise, by name; None where it is not fitted or takes something else."""
    rng = np.random.default_rng(0)
    if not getattr(model, "n_features_in_", 0) <= _MOST_VALUES:
        raise ValueError(f"n_features_in_ is {model.n_features_in_}")
    if hasattr(model, "part_names_"):
        return {"scores": _numbers(model.combine({name: rng.normal(size=_N) for name in model.part_names_}))}
    if hasattr(model, "image_shape"):
        return _answers_to_images(model, _noise_images(model, rng))
    if not hasattr(model, "n_features_in_") or not hasattr(model, "score_samples"):
        return None
    features = rng.normal(size=(_N, model.n_features_in_))
    if hasattr(model, "calibrator_"):
        return {"scores": _numbers(model.score_samples(features))}
    weight, bias = rng.normal(size=(model.n_classes_, model.n_features_in_)), np.zeros(model.n_classes_)
    noise = Representation.from_numpy(features=features, weight=weight, bias=bias)
    return {"scores": _numbers(model.score_samples(noise))}


def _answers_to_images(model: Any, images: npt.NDArray[Any]) -> Answers:
    if not hasattr(model, "score_samples"):
        return {"maps": _numbers(model.attention_maps(images).mean((1, 2)))}
    features = np.asarray(model.transform(images), dtype=np.float64)  # (n, C)
    # Of many features a few sums: an untrained head gives every network the same scores.
    sums = features @ np.cos(np.outer(np.arange(features.shape[1]), np.arange(3)))
    return {"scores": _numbers(model.score_samples(images)), "features": _numbers(sums)}


def _numbers(values: Any) -> list[float]:
    return [float(value) for value in np.ravel(values)]


def _noise_images(model: Any, rng: np.random.Generator) -> npt.NDArray[Any]:
    """Return noise in the form that the model was fitted on: images, or rows of numbers."""
    if model.image_shape is not None:
        shape: tuple[int, ...] = (model.n_features_in_,)
    elif hasattr(model, "value_range_"):
        low, high = model.value_range_
        rows: npt.NDArray[Any] = low + (high - low) * rng.random((_N, model.n_features_in_))
        return rows
    else:
        shape = (_SIDE, _SIDE, 3)
    return rng.integers(0, 256, (_N, *shape), dtype=np.uint8)


def same_answers(first: Answers, second: Answers) -> bool:
    """Tell whether two models said the same but for rounding."""
    return set(first) == set(second) and all(_close(first[name], second[name]) for name in first)


def _close(first: list[float], second: list[float]) -> bool:
    margin = _TOLERANCE * max((abs(value) for value in second), default=0.0)
    return len(first) == len(second) and bool(np.allclose(first, second, rtol=_TOLERANCE, atol=margin))
