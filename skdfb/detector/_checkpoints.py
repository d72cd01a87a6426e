"""The checkpoints of a detector's ``fit``: of what it is made, and what is kept beside the two trainings."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator

from skdfb.images import Images, spread_evenly
from skdfb.persistence._encode import Encoder
from skdfb.training._checkpoints import Checkpoints
from skdfb.utils import digest_of

__all__ = ["detector_checkpoints", "kept_masks", "kept_seeds"]

# The parameters that the networks depend on; scorers, fusion and threshold may be others when a fit goes on.
_PARAMETERS = (
    "backbone",
    "pretrained",
    "checkpoint_path",
    "recipe",
    "mask_generator",
    "classifier_trainer",
    "dense_trainer",
    "image_size",
    "image_shape",
    "calibration_fraction",
    "random_state",
)
_N_SAMPLES = 1000  # images whose pixels are compared
_SHORT = 60  # characters up to which a parameter is told as it is


def detector_checkpoints(detector: Any, images: Images, y: Any) -> Checkpoints | None:
    """Return the checkpoints of a fit to images and labels, ready to be written; None where none are wanted."""
    if detector.checkpoint_dir is None:
        return None
    fingerprint = {name: _described(_value_of(detector, name)) for name in _PARAMETERS}
    fingerprint |= {"X": _images_described(images), "y": "None" if y is None else _described(np.asarray(y))}
    checkpoints = Checkpoints(Path(detector.checkpoint_dir), detector.checkpoint_every, fingerprint)
    checkpoints.prepare()
    return checkpoints


def kept_seeds(checkpoints: Checkpoints | None, draw: Callable[[], list[int]]) -> list[int]:
    """Return the seeds of a fit: those of the one that goes on, or new ones."""
    if checkpoints is None:
        return draw()
    kept = checkpoints.get("seeds")
    if kept is not None:
        return [int(seed) for seed in kept[0]["seeds"]]
    seeds = draw()
    checkpoints.put("seeds", {"seeds": seeds}, {})
    return seeds


def kept_masks(
    checkpoints: Checkpoints | None, n_images: int, make: Callable[[], npt.NDArray[np.integer]]
) -> npt.NDArray[np.integer]:
    """Return the masks of a fit: those of the one that goes on, or new ones."""
    if checkpoints is None:
        return make()
    if checkpoints.get("dense") is not None:  # the network that they are for is trained
        return np.zeros((n_images, 1, 1), dtype=np.uint8)
    kept = checkpoints.get("masks")
    if kept is not None:
        masks: npt.NDArray[np.integer] = kept[1]["masks"].numpy()
        return masks
    masks = make()
    checkpoints.put("masks", {}, {"masks": torch.from_numpy(np.ascontiguousarray(masks))})
    return masks


def _value_of(detector: Any, name: str) -> Any:
    """Return a parameter, or what stands for it where it is None."""
    if name in ("mask_generator", "classifier_trainer", "dense_trainer"):
        return detector._component(name)
    value = getattr(detector, name)
    return value.get_state(legacy=False) if isinstance(value, np.random.RandomState) else value


def _described(value: Any) -> str:
    """Return a text that is the same for equal values: the value where it is short, or else its digest."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    encoder = Encoder()
    try:
        text = json.dumps(encoder.encode(value, "value"))
    except TypeError:  # it holds somebody's object that cannot be written down
        return _described_by_parts(value)
    shown = repr(value) if len(repr(value)) <= _SHORT and "\n" not in repr(value) else type(value).__name__
    return f"{shown} ({digest_of(text, encoder.tensors)[:12]})"


def _described_by_parts(value: Any) -> str:
    """Return what is told of an estimator's parameters one by one; of anything else, its class has to do."""
    name = type(value).__qualname__
    if not isinstance(value, BaseEstimator):
        return name
    parts = {parameter: _described(part) for parameter, part in value.get_params(deep=False).items()}
    return f"{name} ({hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]})"


def _images_described(images: Images) -> str:
    """Return number and digest of images: of all pixels of so many of them, spread evenly."""
    digest = hashlib.sha256()
    for row in spread_evenly(len(images), _N_SAMPLES):
        (pixels,) = images.read(np.array([row]))
        digest.update(f"{pixels.dtype}{tuple(pixels.shape)}".encode())
        digest.update(np.ascontiguousarray(pixels.numpy()).data)
    return f"{len(images)} images ({digest.hexdigest()[:12]})"
