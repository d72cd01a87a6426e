"""Single images, read from what a user has: paths, PIL images, arrays, tensors."""

import os
import struct
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from skdfb.exceptions import UnreadableImageError
from skdfb.images._pixels import image_to_tensor

__all__ = ["READING_ERRORS", "check_header", "read_item"]

# What loaders of a dataset raise for a damaged file.
READING_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    OverflowError,
    RuntimeError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
# Others are rare, and some are not safe: PIL passes PostScript to Ghostscript, even from inside an IPTC file.
_FORMATS = (
    *("PNG", "JPEG", "MPO", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "JPEG2000"),
    *("PPM", "TGA", "ICO", "PCX", "SGI", "DDS", "QOI"),
)


def check_header(path: str | os.PathLike[str], index: int) -> None:
    """Refuse a file that is missing, not an image by its first bytes, or too large; no pixel is decoded."""
    with _open(path, index) as image:
        _check_size(image, index, path)


def read_item(item: Any, index: int) -> Tensor:
    """Read one image.

    Parameters
    ----------
    item : path, PIL image, ndarray or Tensor
        The image.
    index : int
        Its place in the set of images, for error messages.

    Returns
    -------
    pixels : Tensor of shape (3, H, W)
        Pixels as uint8 in 0..255 or float32 in 0..1.

    Raises
    ------
    UnreadableImageError
        If the item is a file or an image that cannot be read, or has pixels out of range.
    TypeError
        If the item is of another type.
    """
    if isinstance(item, str | os.PathLike):
        with _open(item, index) as image:
            return _decode(image, index, item)
    if isinstance(item, Image.Image):
        path = getattr(item, "filename", None) or None  # "" for an image that was not read from a file
        # The caller may have opened a format that is not safe to decode; see _FORMATS.
        if item.format is not None and item.format not in {*_FORMATS, *_formats()}:
            raise _unreadable(index, path, f"its format {item.format} is not read here; convert it first")
        return _decode(item, index, path)
    if not isinstance(item, np.ndarray | Tensor):
        raise TypeError(
            f"image {index} has type {type(item).__name__}: expected a path, a PIL image or an array (H, W[, C])."
        )
    # Bad pixels count as an unreadable image, so that a lenient reader can go on with the others.
    try:
        return image_to_tensor(item, f"image {index}")
    except ValueError as error:
        raise UnreadableImageError(str(error), index) from None


def _open(path: str | os.PathLike[str], index: int) -> Image.Image:
    """Read the header of a file."""
    # Without formats=, PIL would try all its plugins, by the content of the file and not by its suffix.
    try:
        image = Image.open(path, formats=_formats())
    except FileNotFoundError as error:
        message = f"image {index} is missing: there is no file {str(path)!r}."
        raise UnreadableImageError(message, index, path) from error
    except Exception as error:  # PIL may raise any error for a damaged file
        raise _unreadable(index, path, error) from error
    return image


def _formats() -> list[str]:
    """Return the formats that may be opened: well-known ones, and those for which the user installed an opener."""
    Image.init()  # imports PIL's plugins, which fill Image.OPEN
    installed = [name for name, (opener, _) in Image.OPEN.items() if not opener.__module__.startswith("PIL.")]
    return [name for name in _FORMATS if name in Image.OPEN] + installed


def _decode(image: Image.Image, index: int, path: str | os.PathLike[str] | None) -> Tensor:
    """Return the pixels of an opened image."""
    _check_size(image, index, path)
    try:
        return _to_tensor(image)
    except Exception as error:  # PIL may raise any error for a damaged file
        raise _unreadable(index, path, error) from error


def _check_size(image: Image.Image, index: int, path: str | os.PathLike[str] | None) -> None:
    """Refuse more pixels than PIL's own limit; PIL itself only warns up to twice the limit."""
    limit, n_pixels = Image.MAX_IMAGE_PIXELS, image.width * image.height
    if limit is not None and n_pixels > limit:
        reason = f"{image.width} x {image.height} pixels are more than the limit of {limit:,} for one image"
        raise _unreadable(index, path, f"{reason}; if you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS")


def _to_tensor(image: Image.Image) -> Tensor:
    """Return the pixels in the orientation of the EXIF data, without transparency."""
    image = ImageOps.exif_transpose(image)
    # 16 bits per pixel. PIL's own conversion would clip them at 255 instead of dividing by 257.
    if image.mode.startswith("I"):
        levels = np.clip(np.asarray(image, dtype=np.float32) / 65535, 0, 1)
        return torch.from_numpy(levels).expand(3, -1, -1)
    # A palette with an alpha value per colour. PIL warns if such an image is converted directly to RGB.
    if isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _unreadable(index: int, path: str | os.PathLike[str] | None, reason: object) -> UnreadableImageError:
    file = "" if path is None else f": file {str(path)!r}"
    return UnreadableImageError(f"image {index} cannot be read{file}: {reason}.", index, path)
