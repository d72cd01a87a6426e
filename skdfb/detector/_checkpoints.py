"""The checkpoints of a detector's ``fit``: what identifies a fit, and what is kept beside the two trainings."""

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, clone

from skdfb.images import Images, spread_evenly
from skdfb.persistence._encode import Encoder
from skdfb.training import Trainer
from skdfb.training._checkpoints import MARKER, Checkpoints, StageCheckpoints
from skdfb.training._in_use import in_use as folder_in_use
from skdfb.utils import PackedMasks, digest_of, gathered

__all__ = [
    "described",
    "detector_checkpoints",
    "forget_masks",
    "images_described",
    "in_use",
    "kept_masks",
    "kept_seeds",
    "stage_of",
    "training_checkpoints",
]

# The parameters that the networks depend on. Scorers, fusion and alpha may change when a fit goes on; they can change
# how many images are held out, so each choice of images has a folder of its own inside of that of the fit.
_PARAMETERS = (
    "backbone",
    "mask_generator",
    "classifier_trainer",
    "dense_trainer",
    "image_size",
    "image_shape",
    "random_state",
)
# None means Trainer() here. No mask generator means one of two, which depends on the weights, so it stays None.
_TRAINERS = ("classifier_trainer", "dense_trainer")
_N_SAMPLES = 1000  # images whose pixels are compared
_SHORT = 60  # characters up to which a parameter is quoted in full


def detector_checkpoints(detector: Any, images: Images, y: Any) -> Checkpoints | None:
    """Return the checkpoints of a fit to images and labels, ready to be written; None without ``checkpoint_dir``.

    Each fit has a subfolder, so that a cross-validation can use one ``checkpoint_dir``.
    """
    if detector.checkpoint_dir is None:
        return None
    # Other versions may train to other weights.
    fingerprint = {package: importlib.metadata.version(package) for package in ("skdfb", "torch")}
    fingerprint |= {name: described(_value_of(detector, name)) for name in _PARAMETERS}
    fingerprint |= {"X": images_described(images), "y": "None" if y is None else described(np.asarray(y))}
    checkpoints = Checkpoints.inside(Path(detector.checkpoint_dir), fingerprint)
    # A folder that cannot be written to is reported here, before the training.
    checkpoints.prepare()
    return checkpoints


def kept_seeds(checkpoints: Checkpoints | None, draw: Callable[[], list[int]]) -> list[int]:
    """Return the seeds of a fit: the kept ones, or new ones, which are kept."""
    if checkpoints is None:
        return draw()
    # Drawn again, seeds would differ if random_state is None or a RandomState that moved on.
    kept = checkpoints.get("seeds")
    if kept is not None:
        return [int(seed) for seed in kept[0]["seeds"]]
    seeds = draw()
    checkpoints.put("seeds", {"seeds": seeds}, {})
    return seeds


def training_checkpoints(
    checkpoints: Checkpoints | None, train: npt.NDArray[np.intp], seeds: Sequence[int]
) -> Checkpoints | None:
    """Return the checkpoints of the trainings on some of the images of a fit, inside of its folder.

    The same fit may train on others: scorers and ``alpha`` can change how many are held out. And fits without a
    ``random_state`` that run side by side have seeds of their own, of which the folder of the fit keeps one set.
    """
    if checkpoints is None:
        return None
    # The order of the held-out images may change: they train nothing.
    more = {"training images": f"{len(train)} of X ({_digest(train)})", "seeds": _digest(np.asarray(seeds))}
    training = Checkpoints.inside(checkpoints.folder, dict(checkpoints.fingerprint) | more)
    training.warn_of_unfinished(checkpoints.folder.parent)
    training.put(MARKER, {}, {"train": torch.from_numpy(train)})
    return training


@contextmanager
def in_use(checkpoints: Checkpoints | None) -> Generator[None]:
    """Mark the folder of a training as in use inside of the block."""
    with nullcontext() if checkpoints is None else folder_in_use(checkpoints.folder):
        yield


def kept_masks(
    checkpoints: Checkpoints | None, n_images: int, make: Callable[[], PackedMasks]
) -> PackedMasks | npt.NDArray[np.integer]:
    """Return the masks of a fit: the kept ones, or new ones, which are kept."""
    if checkpoints is None:
        return make()
    # All launched processes or none: one that makes masks waits for the others.
    # The dense network is trained already: nothing will read its masks.
    if all(gathered(checkpoints.get("dense") is not None)):
        return np.zeros((n_images, 1, 1), dtype=np.uint8)
    kept = checkpoints.get("masks", mapped=True)
    if all(gathered(kept is not None)) and kept is not None:
        return PackedMasks.from_tensors(kept[1])
    masks = make()
    checkpoints.put("masks", {}, masks.tensors())
    return masks


def forget_masks(checkpoints: Checkpoints | None) -> None:
    """Remove the masks, once the network that they are for is trained."""
    if checkpoints is not None:
        checkpoints.remove("masks")


def stage_of(checkpoints: Checkpoints | None, name: str) -> StageCheckpoints | None:
    """Return the checkpoints of one training."""
    return None if checkpoints is None else checkpoints.stage(name)


def _digest(array: npt.NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array, dtype=np.int64).tobytes()).hexdigest()[:12]


def _value_of(detector: Any, name: str) -> Any:
    """Return a parameter, or its default if it is None."""
    value = getattr(detector, name)
    if value is None and name in _TRAINERS:
        value = Trainer()
    if isinstance(value, Trainer):
        value = clone(value).set_params(checkpoint_every=Trainer().checkpoint_every)  # it changes no weight
    return value.get_state(legacy=False) if isinstance(value, np.random.RandomState) else value


def described(value: Any) -> str:
    """Return a text that is the same for equal values: the value if it is short, or else its digest."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    # The encoder of saved models: arrays and weights are compared by their content.
    encoder = Encoder()
    try:
        text = json.dumps(encoder.encode(value, "value"))
    except TypeError:  # it holds an object that cannot be saved
        return _described_by_parts(value)
    shown = repr(value) if len(repr(value)) <= _SHORT and "\n" not in repr(value) else type(value).__name__
    return f"{shown} ({digest_of(text, encoder.tensors)[:12]})"


def _described_by_parts(value: Any) -> str:
    """Return a text made of an estimator's parameters; of any other object, its class is all that is compared."""
    name = type(value).__qualname__
    if not isinstance(value, BaseEstimator):
        return name
    parts = {parameter: described(part) for parameter, part in value.get_params(deep=False).items()}
    return f"{name} ({hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]})"


def images_described(images: Images, n_samples: int = _N_SAMPLES) -> str:
    """Return number and digest of images, from all pixels of at most ``n_samples`` of them, spread evenly."""
    digest = hashlib.sha256()
    # One by one: images may be large. Size and type too, since equal bytes can be several images.
    for row in spread_evenly(len(images), n_samples):
        (pixels,) = images.read(np.array([row]))
        digest.update(f"{pixels.dtype}{tuple(pixels.shape)}".encode())
        digest.update(np.ascontiguousarray(pixels.numpy()).data)
    return f"{len(images)} images ({digest.hexdigest()[:12]})"
