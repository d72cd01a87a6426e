"""From the numbers of an image to pixels: which numbers are black and white, and how many channels there are."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from skdfb.images._pixels import number

__all__ = ["BYTES", "PixelScale", "integer_range", "is_wide", "pixels_of", "with_channels"]

BYTES = (0.0, 255.0)
# Sensors count to these numbers, whatever type holds their counts.
_DEPTHS = tuple((0.0, 2.0**bits - 1) for bits in (8, 10, 12, 14, 16))
# Scaling and resizing leave floats this far outside their range.
_TOLERANCE = 1e-6


def is_wide(dtype: np.dtype[Any]) -> bool:
    """Tell whether a type of integers leaves open which number is white: all but bytes and booleans do."""
    return dtype.kind in "ui" and dtype != np.uint8


def integer_range(low: float, high: float) -> tuple[float, float]:
    """Return the range of integers with these least and largest values.

    It is that of the smallest usual bit depth (8, 10, 12, 14 or 16) which holds them. Negative integers, and those of
    more than 16 bits, have no usual range: theirs is the least to the largest value.
    """
    usual = (depth for depth in _DEPTHS if depth[0] <= low and high <= depth[1])
    return next(usual, (low, high))


@dataclass(frozen=True)
class PixelScale:
    """How the numbers of a set of images become pixels in 0..1.

    Bytes are in 0..255 and booleans are black and white, by their type. Floats are in 0..1. Other integers, such as
    the 12-bit values of a camera in 16-bit files, are in the range that was learned from the training images.

    Parameters
    ----------
    range : tuple of (float, float), default=None
        The integers that become 0 and 1; None accepts no integers but bytes.
    given : bool, default=False
        Whether the user gave the range. Then it holds for floats and, if it lies within 0..255, for bytes, too.
    """

    range: tuple[float, float] | None = None
    given: bool = False

    def check(self, dtype: np.dtype[Any], low: float, high: float, name: str) -> None:
        """Refuse values that are not in the range of their type.

        Raises
        ------
        ValueError
            If a value is out of range.
        """
        within = self._range_of(dtype)
        values = f"{name} has {'float' if dtype.kind == 'f' else 'integer'} pixels in {number(low)}..{number(high)}"
        if within is None:
            raise ValueError(
                f"{values}, but fit was given no integers of more than 8 bits, so their range is not known: expected "
                "images like those of fit. Convert them to 8 bits, or fit with such images, or with image_range=."
            )
        margin = _TOLERANCE * (within[1] - within[0])
        if self._is_open(dtype) or (low >= within[0] - margin and high <= within[1] + margin):
            return
        if self.given:
            raise ValueError(f"{values}: expected values within image_range={within}.")
        if dtype.kind == "f":
            raise ValueError(
                f"{values}: expected floats in 0..1 or uint8 in 0..255. Divide by the largest possible value, or "
                "convert to uint8 if these are 0..255, or tell fit the range, such as image_range=(0, 255). Do not "
                "normalise by mean and standard deviation: that is done here."
            )
        raise ValueError(
            f"{values}: expected {within[0]:g}..{within[1]:g}, the range of the training images. Scale them to it, or "
            "fit with image_range=."
        )

    def to_unit(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return checked numbers as bytes in 0..255 or as float32 in 0..1; observed ranges may be left a little."""
        if pixels.dtype.kind == "b":
            return pixels.astype(np.uint8) * np.uint8(255)
        within = self._range_of(pixels.dtype)
        if within == BYTES and pixels.dtype.kind in "ui":
            return pixels.astype(np.uint8, copy=False)
        assert within is not None, "check refuses integers without a range"
        low, high = within
        if within == (0.0, 1.0):
            scaled = pixels.astype(np.float32)
        else:
            # In float64, since float32 has fewer digits than the largest integers.
            scaled = ((pixels.astype(np.float64) - low) / ((high - low) or 1.0)).astype(np.float32)
        return scaled if self._is_open(pixels.dtype) else np.clip(scaled, 0, 1)

    def _is_open(self, dtype: np.dtype[Any]) -> bool:
        """Tell whether values may lie outside the range: one that was observed, as of CT images, does not end there."""
        return not self.given and dtype.kind in "ui" and self._range_of(dtype) not in _DEPTHS

    def _range_of(self, dtype: np.dtype[Any]) -> tuple[float, float] | None:
        if dtype == np.uint8:
            # A range beyond that of bytes is for the other images of a set.
            within = self.given and self.range is not None and self.range[0] >= 0 and self.range[1] <= 255
            return self.range if within else BYTES
        if dtype.kind == "f" and not self.given:
            return (0.0, 1.0)
        return BYTES if dtype.kind == "b" else self.range


def with_channels(image: npt.NDArray[Any], n_channels: int, name: str) -> npt.NDArray[Any]:
    """Return an image (H, W, c) that a network of ``n_channels`` can take: one channel serves as all three colours.

    Raises
    ------
    ValueError
        If the channels do not fit.
    """
    given = image.shape[-1]
    if given == n_channels or (given == 1 and n_channels == 3):
        return image
    # Grey images are often stored in colour.
    if n_channels == 1 and given == 3 and (image == image[..., :1]).all():
        return image[..., :1]
    remedy = f"convert it, or pass a backbone of {given} channels, such as create_backbone(name, in_chans={given})"
    raise ValueError(f"{name} has {given} channels: expected {n_channels}, as many as the network takes; {remedy}.")


def pixels_of(image: npt.NDArray[Any], scale: PixelScale, n_channels: int) -> Tensor:
    """Return a checked image (H, W, c) as a tensor (n_channels, H, W), bytes or float32 in 0..1."""
    # A copy: torch warns of read-only arrays, and the caller's pixels must not change.
    tensor = torch.from_numpy(np.array(scale.to_unit(image))).permute(2, 0, 1)  # (c, H, W)
    return tensor if len(tensor) == n_channels else tensor.expand(n_channels, -1, -1)
