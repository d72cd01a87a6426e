"""How launched processes come together for a ``fit``."""

import hashlib
from typing import Any

import numpy as np
import torch

from skdfb.detector._calibration import Calibration
from skdfb.detector._checkpoints import described, images_described
from skdfb.images import Images
from skdfb.training._engine import own_device
from skdfb.utils import gathered, launched_processes

__all__ = ["joined_processes"]

_N_SAMPLES = 16  # images whose pixels are compared


def joined_processes(
    device: torch.device, images: Images, y: Any, own: Images | None, calibration: Calibration
) -> torch.device:
    """Wait until all launched processes fit the same data, and return the device of this one.

    Parameters
    ----------
    device : torch.device
        The device that the caller asked for.
    images : Images
        The images that train.
    y : array-like
        Their labels; None without.
    own : Images or None
        Those of ``X_calibration``.
    calibration : Calibration
        Their labels and the groups.

    Returns
    -------
    device : torch.device
        Alone, the given one.

    Raises
    ------
    ValueError
        In all processes, if images, labels or groups differ: each computes some rows, which would be joined with the
        rows of other images.
    """
    # Alone there is nothing to compare, and no image is read for it.
    if launched_processes() == 1:
        return device
    device = own_device(device)
    labels = {"y": y, "y_calibration": calibration.y, "groups": calibration.groups}
    found = {name: described(None if value is None else np.asarray(value)) for name, value in labels.items()}
    found |= {"X": _images_described(images), "X_calibration": _images_described(own)}
    for name, values in {name: gathered(value) for name, value in found.items()}.items():
        if len(set(values)) > 1:
            raise ValueError(
                f"{name} differs between the launched processes ({'; '.join(dict.fromkeys(values))}): expected the "
                "same images and labels in the same order in all of them. Give a seed to what splits or shuffles them."
            )
    return device


def _images_described(images: Images | None) -> str:
    if images is None:
        return "None"
    names = hashlib.sha256(repr(images.names).encode()).hexdigest()[:12]
    # A dataset of the user's own may change its images at random.
    pixels = f"{len(images)} images" if images.runs_user_code else images_described(images, _N_SAMPLES)
    return f"{pixels}, names {names}"
