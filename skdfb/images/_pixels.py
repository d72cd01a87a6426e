"""Pixels in arrays and tensors: check them, and convert them to the library's own form."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = [
    "ACCEPTED_FORMS",
    "PixelFormat",
    "check_pixels",
    "image_to_tensor",
    "layout_hint",
    "tensor_to_array",
    "value_bounds",
]

ACCEPTED_FORMS = (
    "images as an array (n, H, W, 3), (n, H, W, 1) or (n, H, W), uint8 in 0..255 or float in 0..1; a 1-d sequence of "
    "paths or PIL images; a 2-d array with image_shape=(H, W, C); or a torch Dataset"
)


class PixelFormat(NamedTuple):
    """The numbers of an image, ``"integer"`` in 0..255 or ``"float"`` in 0..1, and its channels, 1 or 3."""

    numbers: str
    channels: int

    def __str__(self) -> str:
        values = "integers in 0..255" if self.numbers == "integer" else "floats in 0..1"
        return f"{'grey' if self.channels == 1 else 'colour'} images of {values}"


def tensor_to_array(tensor: Tensor) -> npt.NDArray[Any]:
    """Return a tensor as an array on the CPU."""
    # NumPy takes no tensors that need a gradient or are on a GPU.
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()  # NumPy has no bfloat16


def layout_hint(shape: tuple[int, ...], name: str) -> str:
    """Return the remedy for an array of wrong shape, of one image or of a batch; empty if none is known."""
    if len(shape) == 1:
        return f" Reshape your data: for a single image given as one row, pass {name}.reshape(1, -1)."
    # Before the alpha channel: (3, H, 4) is more likely an image 4 pixels wide than one 3 pixels high.
    if len(shape) in (3, 4) and shape[-3] in (1, 3):
        return f" Channels come last here: pass np.moveaxis({name}, -3, -1)."
    if len(shape) in (3, 4) and shape[-1] == 4:
        return f" Drop the alpha channel: pass {name}[..., :3]."
    return ""


def check_pixels(array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Check the range of pixels, and convert integers and booleans to uint8.

    Parameters
    ----------
    array : ndarray of any shape
        Integers in 0..255, floats in 0..1, or booleans.
    name : str
        The name of the argument in error messages.

    Returns
    -------
    pixels : ndarray of the same shape
        As uint8 in 0..255, where True is 255, or floats in 0..1.

    Raises
    ------
    ValueError
        If a value is NaN, infinite or out of range.
    """
    if array.dtype == np.uint8:  # any value is a pixel: nothing to read
        return array
    low, high = value_bounds(array, name)
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    # Other integer types are common as results of arithmetic on uint8; uint8 saves memory.
    if array.dtype.kind in "ui":
        if low < 0 or high > 255:
            raise ValueError(f"{name} has integer pixels in {low:g}..{high:g}: expected 0..255.")
        return array.astype(np.uint8)
    if low < 0 or high > 1:
        raise ValueError(
            f"{name} has float pixels in {low:g}..{high:g}: expected floats in 0..1 or uint8 in 0..255. Divide by the "
            "largest possible value, or convert to uint8 if these are 0..255. Do not normalise by mean and standard "
            "deviation: that is done here."
        )
    return array


def value_bounds(array: npt.NDArray[Any], name: str, chunk_size: int = 1024) -> tuple[float, float]:
    """Return the least and the largest value; NaN and infinity are an error that names the image."""
    low, high = np.inf, -np.inf
    # In chunks: a memory-mapped array may be larger than the memory.
    for start in range(0, len(array), chunk_size):
        chunk = array[start : start + chunk_size]
        finite = np.isfinite(chunk)
        if not finite.all():
            index = start + int(np.argwhere(~finite)[0][0])
            raise ValueError(f"{name} contains NaN or infinity (first in image {index}): expected finite pixels.")
        low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
    return low, high


def image_to_tensor(image: npt.NDArray[Any] | Tensor, name: str) -> Tensor:
    """Check one image and return it as (3, H, W), uint8 or float32.

    An array has its channels last, (H, W[, C]), and a tensor has them first, ([C, ]H, W), as in torchvision.
    """
    # As a batch of one, since check_pixels names the first bad image of a batch.
    pixels = check_pixels(_channels_last(image, name)[None], name)[0]
    if pixels.dtype != np.uint8:
        pixels = pixels.astype(np.float32, copy=False)
    # A copy: torch warns of read-only arrays, and the caller's pixels must not change.
    tensor = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)  # (C, H, W)
    return tensor if len(tensor) == 3 else tensor.expand(3, -1, -1)


def _channels_last(image: npt.NDArray[Any] | Tensor, name: str) -> npt.NDArray[Any]:
    """Return one image as an array (H, W, C), and check its shape and dtype."""
    if isinstance(image, Tensor):
        image = tensor_to_array(image)
        image = np.moveaxis(image, 0, -1) if image.ndim == 3 else image
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or 0 in image.shape or image.dtype.kind not in "buif":
        raise ValueError(
            f"{name} has shape {image.shape} and dtype {image.dtype}: expected an image (H, W), (H, W, 1) or "
            f"(H, W, 3), uint8 in 0..255 or float in 0..1 (a torch tensor has its channels first)."
            + layout_hint(image.shape, name)
        )
    return image
