"""Mask generators inside other objects: what is checked of them, and how they get what those have."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from skdfb.masks._base import BaseMaskGenerator
from skdfb.masks._cam import CAMMaskGenerator

__all__ = ["check_generator", "check_masks", "hand_over"]


def hand_over(generator: Any, settings: Mapping[str, Any]) -> Any:
    """Return a clone of a mask generator that has ``settings`` wherever it leaves them open.

    That is where a parameter of the name is None or "auto", and everywhere for ``backbone``, which stands for what is
    trained. Generators inside it, as in ``generator__backbone``, get them as well.
    """
    generator = clone(generator, safe=False)
    if not hasattr(generator, "get_params"):
        return generator
    _fill_in(generator)
    changes = {}
    for name, value in generator.get_params().items():
        key = name.rpartition("__")[2]
        left_open = value is None or (isinstance(value, str) and value == "auto") or key == "backbone"
        if key in settings and left_open:
            changes[name] = settings[key]
    return generator.set_params(**changes)


def _fill_in(generator: Any) -> None:
    """Make the default object where a generator of this package has None inside: else nothing could be handed to it."""
    if isinstance(generator, BaseMaskGenerator) and hasattr(generator, "generator"):
        if generator.generator is None:
            generator.set_params(generator=CAMMaskGenerator())
        _fill_in(generator.generator)


def check_generator(generator: Any, methods: tuple[str, ...]) -> None:
    """Refuse an object given as ``generator`` that lacks a method, or parameters that its own ``fit`` would refuse."""
    missing = [method for method in methods if not callable(getattr(generator, method, None))]
    if missing or isinstance(generator, type):
        raise TypeError(f"generator={generator!r}; an object with the methods {', '.join(methods)} is wanted.")
    if hasattr(generator, "_parameter_constraints"):
        try:
            generator._validate_params()
        except ValueError as error:
            raise type(error)(f"generator: {error}") from None


def check_masks(masks: Any, n_images: int, n_classes: int, name: str) -> npt.NDArray[np.integer]:
    """Refuse masks that are not integers 0..K of shape (n, H, W): the generator ``name`` may be anybody's."""
    array: npt.NDArray[np.integer] = np.asarray(masks)
    found = f"dtype {array.dtype} and shape {array.shape}"
    if array.ndim == 3 and len(array) == n_images and array.size and array.dtype.kind in "ui":
        low, high = int(array.min()), int(array.max())
        if low >= 0 and high <= n_classes:
            return array
        found = f"values in {low}..{high}"
    raise ValueError(
        f"{name}.fit_transform returned masks with {found}; integers of shape ({n_images}, H, W) are wanted, "
        f"0..{n_classes - 1} for the classes and {n_classes} for the background."
    )
