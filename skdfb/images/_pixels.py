"""Arrays as images: which are, and why others are not."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["WANTED", "PixelFormat", "check_pixels", "image_to_tensor", "layout_hint", "tensor_to_array", "value_bounds"]

WANTED = (
    "images as an array (n, H, W, 3), (n, H, W, 1) or (n, H, W), uint8 in 0..255 or float in 0..1; a 1-d sequence of "
    "paths or PIL images; a 2-d array with image_shape=(H, W, C); or a torch Dataset"
)


class PixelFormat(NamedTuple):
    """In which numbers images come: ``"integer"`` in 0..255 or ``"float"`` in 0..1, in 1 or 3 channels."""

    numbers: str
    channels: int

    def __str__(self) -> str:
        values = "integers in 0..255" if self.numbers == "integer" else "floats in 0..1"
        return f"{'grey' if self.channels == 1 else 'colour'} images of {values}"


def tensor_to_array(tensor: Tensor) -> npt.NDArray[Any]:
    """Return a tensor as an array on the CPU."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()  # NumPy has no bfloat16


def layout_hint(shape: tuple[int, ...], name: str) -> str:
    """Say how an array of wrong shape becomes a right one, for one image or for a batch."""
    if len(shape) == 1:
        return f" Reshape your data: for a single image given as one row, pass {name}.reshape(1, -1)."
    if len(shape) in (3, 4) and shape[-3] in (1, 3):
        return f" Channels come last here: pass np.moveaxis({name}, -3, -1)."
    if len(shape) in (3, 4) and shape[-1] == 4:
        return f" Drop the alpha channel: pass {name}[..., :3]."
    return ""


def check_pixels(array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Refuse pixels that are no pixels; integers and booleans become uint8."""
    if array.dtype == np.uint8:
        return array
    low, high = value_bounds(array, name)
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind in "ui":
        if low < 0 or high > 255:
            raise ValueError(f"{name} has integer pixels in {low:g}..{high:g}; 0..255 is wanted.")
        return array.astype(np.uint8)
    if low < 0 or high > 1:
        raise ValueError(
            f"{name} has float pixels in {low:g}..{high:g}; floats in 0..1 or uint8 in 0..255 are wanted. "
            "Divide by the largest possible value, or convert to uint8 if these are 0..255; normalising by mean and "
            "standard deviation is done here."
        )
    return array


def value_bounds(array: npt.NDArray[Any], name: str, chunk_size: int = 1024) -> tuple[float, float]:
    """Return the least and the largest value; NaN and infinity are refused with their place."""
    low, high = np.inf, -np.inf
    for start in range(0, len(array), chunk_size):
        chunk = array[start : start + chunk_size]
        finite = np.isfinite(chunk)
        if not finite.all():
            index = start + int(np.argwhere(~finite)[0][0])
            raise ValueError(f"{name} contains NaN or infinity (first in image {index}); finite pixels are wanted.")
        low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
    return low, high


def image_to_tensor(image: npt.NDArray[Any] | Tensor, name: str) -> Tensor:
    """Check one image, an array (H, W[, C]) or, as torchvision has it, a tensor ([C, ]H, W); return it as (3, H, W)."""
    pixels = check_pixels(_channels_last(image, name)[None], name)[0]
    if pixels.dtype != np.uint8:
        pixels = pixels.astype(np.float32, copy=False)
    tensor = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
    return tensor if len(tensor) == 3 else tensor.expand(3, -1, -1)


def _channels_last(image: npt.NDArray[Any] | Tensor, name: str) -> npt.NDArray[Any]:
    """Return one image as an array (H, W, C), by its shape and dtype an image."""
    if isinstance(image, Tensor):
        image = tensor_to_array(image)
        image = np.moveaxis(image, 0, -1) if image.ndim == 3 else image
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or 0 in image.shape or image.dtype.kind not in "buif":
        raise ValueError(
            f"{name} has shape {image.shape} and dtype {image.dtype}; an image (H, W), (H, W, 1) or (H, W, 3), uint8 "
            f"in 0..255 or float in 0..1, is wanted (a torch tensor has its channels first)."
            + layout_hint(image.shape, name)
        )
    return image
