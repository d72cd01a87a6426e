"""Mask generators as parameters of other objects: their checks, and the settings that they inherit."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from skdfb.images import Images
from skdfb.masks._base import BaseMaskGenerator
from skdfb.masks._cam import CAMMaskGenerator
from skdfb.utils import PackedMasks, share_of

__all__ = ["check_generator", "check_masks", "fit_pack", "hand_over", "shared_masks"]


def hand_over(generator: Any, settings: Mapping[str, Any]) -> Any:
    """Return a clone of a mask generator that has ``settings`` where the user left a parameter open.

    A parameter is open if it is None or "auto". ``backbone`` always counts as open: it becomes the network to make
    masks with. Generators inside the generator, as in ``generator__backbone``, get the settings as well.
    """
    generator = clone(generator, safe=False)  # the user's own object stays unfitted
    if not hasattr(generator, "get_params"):
        return generator
    _fill_in(generator)
    # get_params also lists the parameters of generators inside, as generator__device.
    changes = {}
    for name, value in generator.get_params().items():
        key = name.rpartition("__")[2]
        left_open = value is None or (isinstance(value, str) and value == "auto") or key == "backbone"
        if key in settings and left_open:
            changes[name] = settings[key]
    return generator.set_params(**changes)


def _fill_in(generator: Any) -> None:
    """Replace None as ``generator`` by the default object, which has parameters to set; third-party classes stay."""
    if isinstance(generator, BaseMaskGenerator) and hasattr(generator, "generator"):
        if generator.generator is None:
            generator.set_params(generator=CAMMaskGenerator())
        _fill_in(generator.generator)


def check_generator(generator: Any, methods: tuple[str, ...]) -> None:
    """Refuse a ``generator`` that lacks a method, or whose own ``fit`` would refuse its parameters."""
    missing = [method for method in methods if not callable(getattr(generator, method, None))]
    if missing or isinstance(generator, type):
        raise TypeError(
            f"generator={generator!r}: expected an object with the methods {', '.join(methods)}, like "
            "CAMMaskGenerator()."
        )
    # Before any training: without this, the generator would refuse its parameters only after hours.
    if hasattr(generator, "_parameter_constraints"):
        try:
            generator._validate_params()
        except ValueError as error:
            raise type(error)(f"generator: {error}") from None


def check_masks(masks: Any, n_images: int, n_classes: int, name: str) -> npt.NDArray[np.integer]:
    """Refuse masks that are not integers 0..K of shape (n, H, W); the generator ``name`` may be user-defined."""
    array: npt.NDArray[np.integer] = np.asarray(masks)
    found = f"dtype {array.dtype} and shape {array.shape}"
    if array.ndim == 3 and len(array) == n_images and array.size and array.dtype.kind in "ui":
        low, high = int(array.min()), int(array.max())
        if low >= 0 and high <= n_classes:
            return array
        found = f"values in {low}..{high}"
    raise ValueError(
        f"{name}.fit_transform returned masks with {found}: expected integers of shape ({n_images}, H, W), "
        f"0..{n_classes - 1} for the classes and {n_classes} for the background."
    )


def fit_pack(generator: Any, images: Images, labels: npt.NDArray[np.intp], n_classes: int, name: str) -> PackedMasks:
    """Fit a mask generator and return the masks of the images, packed; ``name`` is its name in error messages."""
    # A subclass may have a fit_transform of its own. Where it has none, no array of all masks is needed.
    if getattr(type(generator), "fit_transform", None) is BaseMaskGenerator.fit_transform:
        return shared_masks(generator.fit(images, labels), images, labels, n_classes)
    masks = check_masks(generator.fit_transform(images, labels), len(images), n_classes, name)
    return PackedMasks.pack(masks, n_classes)


def shared_masks(
    generator: BaseMaskGenerator, images: Images, labels: npt.NDArray[np.intp], n_classes: int
) -> PackedMasks:
    """Return the masks that a fitted generator makes of its training images; launched processes share the images."""
    share = share_of(len(images))
    own = images if share.is_whole else images.subset(share.rows)
    batches = generator.iter_masks(own, labels[share.rows])
    placed = ((share.rows[places], masks) for places, masks in batches)
    return PackedMasks.from_batches(placed, len(images), n_classes, share)
