"""Checks of a mask generator's protocol, of its masks, and of its use in a detector."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skdfb.images import Images, as_images
from skdfb.masks._inner import hand_over
from skdfb.networks import DenseClassifier
from skdfb.testing._mask_generators._usage import N_CLASSES, N_NEW, N_TRAIN, USAGE, labels, pixels
from skdfb.testing._shared._demands import Array, demand, demand_method, demand_refusal, fresh_copy

# The network's input, and so the masks that a detector requests, are smaller than the images.
_INPUT_SIDE = 16


def check_mask_generator_protocol(name: str, generator: Any) -> None:
    """Check that the method exists and accepts images and labels."""
    demand_method(name, generator, "fit_transform", 2)


def check_mask_generator_shape(name: str, generator: Any) -> None:
    """Check that there is one mask per image, all of one size."""
    masks = _as_array(f"{name}.fit_transform", USAGE.fit(fresh_copy(generator), USAGE.training_data(generator)))
    _demand_shape(f"{name}.fit_transform", masks, N_TRAIN)


def check_mask_generator_dtype(name: str, generator: Any) -> None:
    """Check that masks hold integers."""
    _demand_dtype(f"{name}.fit_transform", _masks_of(name, generator, as_images(pixels(N_TRAIN))))


def check_mask_generator_values(name: str, generator: Any) -> None:
    """Check that masks hold class indices 0..K-1 and K for the background."""
    _demand_values(f"{name}.fit_transform", _masks_of(name, generator, as_images(pixels(N_TRAIN))), N_CLASSES)


def check_mask_generator_n_classes(name: str, generator: Any) -> None:
    """Check that the background's value follows the number of classes."""
    # Fewer and more than in the other checks.
    for n_classes in (2, 4):
        images = as_images(pixels(N_TRAIN, n_classes))
        given = f"{n_classes} classes"
        _demand_masks(f"{name}.fit_transform", _masks_of(name, generator, images, n_classes), n_classes, given)


def check_mask_generator_several_sizes(name: str, generator: Any) -> None:
    """Check that images of several sizes give masks of one size, or are refused by a ValueError."""
    whole = pixels(N_TRAIN)
    # Every other image is cropped to (28, 24).
    images = as_images([whole[i] if i % 2 else whole[i, 4:, :-8] for i in range(N_TRAIN)])
    given, method = "images of several sizes", f"{name}.fit_transform"
    try:
        masks = fresh_copy(generator).fit_transform(images, labels(N_TRAIN))
    except Exception as error:
        demand_refusal(method, error, given=given, expected="masks of one size, or a ValueError with a message")
        return
    _demand_masks(method, _as_array(method, masks, given), N_CLASSES, given)


def check_mask_generator_float_pixels(name: str, generator: Any) -> None:
    """Check that pixels as floats 0..1 give the masks of the same pixels as integers, or are refused."""
    whole, given, method = pixels(N_TRAIN), "pixels as floats in 0..1", f"{name}.fit_transform"
    try:
        masks = fresh_copy(generator).fit_transform(as_images((whole / 255).astype(np.float32)), labels(N_TRAIN))
    except Exception as error:
        demand_refusal(method, error, given=given, expected="masks, or a ValueError with a message")
        return
    expected, got = _masks_of(name, generator, as_images(whole)), _as_array(method, masks, given)
    _demand_masks(method, got, N_CLASSES, given)
    # Rounding may move single pixels over a threshold.
    share = 100 * float(np.mean(got != expected)) if got.shape == expected.shape else 100.0
    demand(
        share <= 5,
        f"{method}: expected the masks of the same pixels as integers, got other values in {share:.3g} % of the "
        f"pixels, given {given}; X.read returns uint8 in 0..255 or floats in 0..1.",
    )


def check_mask_generator_in_detector(name: str, generator: Any) -> None:
    """Check a generator with the parameters that a detector sets: its classifier, the size of the masks and more."""
    settings = {
        "backbone": _classifier(),
        "mask_size": _INPUT_SIDE,
        "device": torch.device("cpu"),
        "random_state": 0,
        "n_jobs": None,
    }
    method = f"{name}.fit_transform"
    try:
        # Where they are open, which is the detector's rule: None, "auto", and each backbone.
        prepared = hand_over(fresh_copy(generator), settings)
        masks = prepared.fit_transform(as_images(pixels(N_TRAIN)), labels(N_TRAIN))
    except Exception as error:
        raise AssertionError(
            f"{method}: expected masks of the classifier that a detector hands over as backbone, got "
            f"{type(error).__name__}: {error}, given the parameters {sorted(settings)} of a detector if they exist."
        ) from error
    array = _as_array(method, masks)
    # Other sizes are valid, but not for a generator that has this parameter.
    _demand_masks(method, array, N_CLASSES, "the parameters of a detector")
    parameters = prepared.get_params(deep=False) if hasattr(prepared, "get_params") else {}
    if parameters.get("mask_size") is not None:
        shape = (N_TRAIN, parameters["mask_size"], parameters["mask_size"])
        demand(
            array.shape == shape,
            f"{method}: expected masks of shape {shape} for the parameter mask_size, got {array.shape}.",
        )


def check_mask_generator_transform(name: str, generator: Any) -> None:
    """Check that `transform` returns masks of new images in the form of those of `fit_transform`."""
    fresh, method, given = fresh_copy(generator), f"{name}.transform", f"{N_NEW} new images"
    # (H, W) of the training images' masks
    size = _as_array(method, USAGE.fit(fresh, USAGE.training_data(generator))).shape[1:]
    masks = _as_array(method, fresh.transform(USAGE.new_data(generator)))
    expected = (N_NEW, *size)
    demand(masks.shape == expected, f"{method}: expected masks of shape {expected}, got {masks.shape}, given {given}.")
    _demand_dtype(method, masks, given)
    _demand_values(method, masks, N_CLASSES, given)


class _Backbone(nn.Module):
    """A strided convolution: images (n, 3, H, W) to feature maps (n, 4, H / 4, W / 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, stride=4, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.convolution(images))


def _classifier() -> DenseClassifier:
    """Return a small classifier with random weights, which leaves the global random state alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DenseClassifier(_Backbone(), N_CLASSES, image_size=_INPUT_SIDE)


def _masks_of(name: str, generator: Any, images: Images, n_classes: int = N_CLASSES) -> Array:
    masks = fresh_copy(generator).fit_transform(images, labels(len(images), n_classes))
    return _as_array(f"{name}.fit_transform", masks)


def _as_array(method: str, masks: Any, given: str = "images of one size") -> Array:
    try:
        return np.asarray(masks)
    except ValueError as error:
        found = f"a {type(masks).__name__} that cannot be made an array"
        raise AssertionError(f"{method}: expected one array of masks, got {found}, given {given}.") from error


def _demand_masks(method: str, masks: Array, n_classes: int, given: str) -> None:
    _demand_shape(method, masks, N_TRAIN, given)
    _demand_dtype(method, masks, given)
    _demand_values(method, masks, n_classes, given)


def _demand_shape(method: str, masks: Array, n: int, given: str = f"{N_TRAIN} images") -> None:
    demand(
        masks.ndim == 3 and len(masks) == n and masks.size,
        f"{method}: expected masks of shape ({n}, H, W), got {masks.shape}, given {given}.",
    )


def _demand_dtype(method: str, masks: Array, given: str = f"{N_TRAIN} images") -> None:
    demand(masks.dtype.kind in "ui", f"{method}: expected masks of integers, got {masks.dtype}, given {given}.")


def _demand_values(method: str, masks: Array, n_classes: int, given: str = f"{N_TRAIN} images") -> None:
    low, high = masks.min(), masks.max()
    demand(
        low >= 0 and high <= n_classes,
        f"{method}: expected classes 0..{n_classes - 1} and {n_classes} for the background, got values in "
        f"{low}..{high}, given {given}.",
    )
