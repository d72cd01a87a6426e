"""Single images, read from what a user has: paths, PIL images, arrays, tensors."""

import os
import struct
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from skdfb.exceptions import UnreadableImageError
from skdfb.utils._pixels import image_to_tensor

__all__ = ["READING_ERRORS", "check_header", "read_item"]

# What decoders of damaged files raise, and loaders that open such files for a dataset.
READING_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    OverflowError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
_RUNS_PROGRAMS = {"EPS"}  # PIL hands PostScript to Ghostscript, whatever the file's name is


def check_header(path: str | os.PathLike[str], index: int) -> None:
    """Refuse a file that is missing, no image by its first bytes, or of an absurd size; no pixel is decoded."""
    with _open(path, index) as image:
        _check_size(image, index, path)


def read_item(item: Any, index: int) -> Tensor:
    """Read one image as (3, H, W), uint8 or float32.

    Raises
    ------
    UnreadableImageError
        If the item is a file or an image that cannot be read, or its pixels are none.
    TypeError
        If the item is nothing that could be an image.
    """
    if isinstance(item, str | os.PathLike):
        with _open(item, index) as image:
            return _decode(image, index, item)
    if isinstance(item, Image.Image):
        return _decode(item, index, getattr(item, "filename", None) or None)
    if not isinstance(item, np.ndarray | Tensor):
        raise TypeError(f"image {index} is a {type(item).__name__}; a PIL image or an (H, W[, C]) array is wanted.")
    try:
        return image_to_tensor(item, f"image {index}")
    except ValueError as error:
        raise UnreadableImageError(str(error), index) from None


def _open(path: str | os.PathLike[str], index: int) -> Image.Image:
    """Read the header of a file."""
    try:
        image = Image.open(path, formats=_safe_formats())
    except FileNotFoundError as error:
        message = f"image {index} is missing: there is no file {str(path)!r}."
        raise UnreadableImageError(message, index, path) from error
    except READING_ERRORS as error:
        raise _unreadable(index, path, error) from error
    return image


def _safe_formats() -> list[str]:
    Image.init()
    return [name for name in Image.ID if name not in _RUNS_PROGRAMS]


def _decode(image: Image.Image, index: int, path: str | os.PathLike[str] | None) -> Tensor:
    """Return the pixels of an opened image."""
    _check_size(image, index, path)
    try:
        return _to_tensor(image)
    except READING_ERRORS as error:
        raise _unreadable(index, path, error) from error


def _check_size(image: Image.Image, index: int, path: str | os.PathLike[str] | None) -> None:
    """Refuse more pixels than PIL's own limit, at which it would only warn."""
    limit, n_pixels = Image.MAX_IMAGE_PIXELS, image.width * image.height
    if limit is not None and n_pixels > limit:
        reason = f"{image.width} x {image.height} pixels are more than the limit of {limit:,} for one image"
        raise _unreadable(index, path, f"{reason}; if it is to be trusted, raise PIL.Image.MAX_IMAGE_PIXELS")


def _to_tensor(image: Image.Image) -> Tensor:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a pixel; PIL's own conversion clips them at 255
        levels = np.clip(np.asarray(image, dtype=np.float32) / 65535, 0, 1)
        return torch.from_numpy(levels).expand(3, -1, -1)
    if isinstance(image.info.get("transparency"), bytes):  # a palette with alpha: PIL warns unless asked for it
        image = image.convert("RGBA")
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _unreadable(index: int, path: str | os.PathLike[str] | None, reason: object) -> UnreadableImageError:
    file = "" if path is None else f": file {str(path)!r}"
    return UnreadableImageError(f"image {index} cannot be read{file}: {reason}.", index, path)
