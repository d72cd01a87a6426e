"""Pixels in arrays and tensors: their values, and the hints of error messages."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["ACCEPTED_FORMS", "PixelFormat", "layout_hint", "number", "tensor_to_array", "value_bounds"]

_MOST_CHANNELS = 32  # a longer last axis is rather the width of the images

ACCEPTED_FORMS = (
    "images as an array (n, H, W, C) or (n, H, W), integers or floats in 0..1; a 1-d sequence of paths, PIL images or "
    "the bytes of files; a 2-d array with image_shape=(H, W, C); or a dataset"
)


class PixelFormat(NamedTuple):
    """The numbers of an array of images, ``"integer"`` or ``"float"`` in 0..1, and its channels."""

    numbers: str
    channels: int

    def __str__(self) -> str:
        kinds = {1: "grey images", 3: "colour images"}
        values = "integers" if self.numbers == "integer" else "floats in 0..1"
        return f"{kinds.get(self.channels, f'images of {self.channels} channels')} of {values}"


def number(value: float) -> str:
    """Return a value as text, shortened unless that makes a whole number of it: 1.0000001 is not "1"."""
    short = f"{value:g}"
    return repr(float(value)) if float(short).is_integer() and float(short) != value else short


def tensor_to_array(tensor: Tensor) -> npt.NDArray[Any]:
    """Return a tensor as an array on the CPU."""
    # NumPy takes no tensors that need a gradient or are on a GPU.
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()  # NumPy has no bfloat16


def layout_hint(shape: tuple[int, ...], n_channels: int, name: str) -> str:
    """Return the remedy for an array of wrong shape, of one image or of a batch; empty if none is known."""
    if len(shape) == 1:
        return f" Reshape your data: for a single image given as one row, pass {name}.reshape(1, -1)."
    # Before the alpha channel: (3, H, 4) is more likely an image 4 pixels wide than one 3 pixels high.
    if len(shape) in (3, 4) and shape[-3] in (1, n_channels):
        return f" Channels come last here: pass np.moveaxis({name}, -3, -1)."
    if len(shape) not in (3, 4) or shape[-1] in (1, n_channels) or shape[-1] > _MOST_CHANNELS:
        return ""
    alpha = f" Drop the alpha channel: pass {name}[..., :3]." if n_channels == 3 and shape[-1] == 4 else ""
    return (
        f"{alpha} To use all {shape[-1]} channels, pass a backbone that takes as many, such as create_backbone(name, "
        f"in_chans={shape[-1]})."
    )


def value_bounds(array: npt.NDArray[Any], name: str, chunk_size: int = 1024) -> tuple[float, float]:
    """Return the least and the largest value; NaN and infinity are an error that names the image."""
    low, high = np.inf, -np.inf
    # In chunks: a memory-mapped array may be larger than the memory.
    for start in range(0, len(array), chunk_size):
        chunk = array[start : start + chunk_size]
        finite = np.isfinite(chunk)
        if not finite.all():
            index = start + int(np.argwhere(~finite)[0][0])
            first = f" (first in image {index})" if len(array) > 1 else ""
            raise ValueError(f"{name} contains NaN or infinity{first}: expected finite pixels.")
        low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
    return low, high
