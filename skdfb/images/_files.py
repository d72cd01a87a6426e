"""Single images, read from what a user has: paths, the bytes of files, PIL images, arrays, tensors."""

import io
import os
import re
import struct
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from skdfb.exceptions import UnreadableImageError
from skdfb.images._deep_files import deep_pixels, is_tiff, read_tiff
from skdfb.images._pixels import layout_hint, tensor_to_array
from skdfb.images._unreadable import unreadable, unusable

__all__ = [
    "FILES",
    "READING_ERRORS",
    "array_of",
    "check_header",
    "image_extensions",
    "is_file",
    "is_web_address",
    "names_of",
    "read_item",
]

# What a file is given as. Files that are open already are read as a whole.
FILES = (str, os.PathLike, bytes, bytearray, io.BufferedIOBase)
# What loaders of a dataset raise for a damaged file, wherever they raise it.
READING_ERRORS = (
    OSError,
    SyntaxError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
# Others are rare, and some are not safe: PIL passes PostScript to Ghostscript, even from inside an IPTC file.
_FORMATS = (
    *("PNG", "JPEG", "MPO", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "JPEG2000"),
    *("PPM", "TGA", "ICO", "PCX", "SGI", "DDS", "QOI"),
)
_HEIF = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1", b"ftypheim", b"ftypheis")
# Reading an open file moves its position, which threads share.
_OPEN_FILES = threading.Lock()

Array = npt.NDArray[Any]


def is_file(item: Any) -> bool:
    """Tell whether an item is a path, an open file or the bytes of a file."""
    return isinstance(item, FILES)


def is_web_address(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is no file, but begins as https://; pathlib leaves one slash of two."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", os.fsdecode(path)) is not None and not os.path.lexists(path)


def image_extensions() -> frozenset[str]:
    """Return the extensions of the files that can be read, in lower case."""
    formats = set(_formats())
    return frozenset([".npy", *(end for end, name in Image.registered_extensions().items() if name in formats)])


def names_of(items: Sequence[Any]) -> list[str] | None:
    """Return the paths of images; None if one of them did not come from a file, as far as it tells."""
    # PIL's images know the file that they were opened from.
    paths = [getattr(item, "filename", None) if isinstance(item, Image.Image) else _path_of(item) for item in items]
    return [os.fsdecode(path) for path in paths if path] if all(paths) else None


def check_header(item: Any, index: int) -> None:
    """Refuse a file that is missing, not an image by its first bytes, or too large; no pixel is decoded."""
    path = _path_of(item)
    if _is_npy(path):
        _npy(path, index)
        return
    try:
        with _open(item, index) as image:
            _check_size(image.size, index, path)
    except UnreadableImageError:
        # PIL knows few kinds of TIFF files.
        if path is None or not is_tiff(path):
            raise


def read_item(item: Any, index: int, n_channels: int, least_side: int | None = None) -> Array:
    """Read one image.

    Parameters
    ----------
    item : path, bytes, open file, PIL image, ndarray or Tensor
        The image.
    index : int
        Its place in the set of images, for error messages.
    n_channels : int
        The channels of the network, which tell whether a fourth one is transparency.
    least_side : int, default=None
        Sides that suffice, in pixels: a large JPEG file is then decoded at a half, a quarter or an eighth of its size.

    Returns
    -------
    pixels : ndarray of shape (H, W, c)
        The numbers of the image, in their own type.

    Raises
    ------
    UnreadableImageError
        If the item is a file or an image that cannot be read, or no image by its shape.
    TypeError
        If the item is of another type.
    """
    if is_file(item):
        return _read_file(item, index, n_channels, least_side)
    if isinstance(item, Image.Image):
        path = getattr(item, "filename", None) or None  # "" for an image that was not read from a file
        # The caller may have opened a format that is not safe to decode; see _FORMATS.
        if item.format is not None and item.format not in {*_FORMATS, *_formats()}:
            raise unreadable(index, path, f"its format {item.format} is not read here; convert it first")
        return _decode(item, index, path, n_channels)
    if not isinstance(item, np.ndarray | Tensor):
        raise TypeError(
            f"image {index} has type {type(item).__name__}: expected a path, a PIL image or an array (H, W[, C])."
        )
    # Bad pixels count as an unreadable image, so that a lenient reader can go on with the others.
    try:
        return array_of(item, f"image {index}", n_channels)
    except ValueError as error:
        raise unusable(index, None, error) from None


def array_of(image: Array | Tensor, name: str, n_channels: int) -> Array:
    """Return one image as an array (H, W, c), and check its shape and dtype.

    An array has its channels last, (H, W[, c]), and a tensor has them first, ([c, ]H, W), as in torchvision.
    """
    if isinstance(image, Tensor):
        image = tensor_to_array(image)
        image = np.moveaxis(image, 0, -1) if image.ndim == 3 else image
    if image.ndim == 2:
        image = image[..., None]
    if (
        image.ndim != 3
        or image.shape[-1] not in (1, 3, n_channels)
        or 0 in image.shape
        or image.dtype.kind not in "buif"
    ):
        raise ValueError(
            f"{name} has shape {image.shape} and dtype {image.dtype}: expected an image (H, W), (H, W, 1) or "
            f"(H, W, {n_channels}), integers or floats in 0..1 (a torch tensor has its channels first)."
            + layout_hint(image.shape, n_channels, name)
        )
    return image


def _read_file(item: Any, index: int, n_channels: int, least_side: int | None) -> Array:
    path = _path_of(item)
    if _is_npy(path):
        # A copy of these pixels, since the file is mapped to memory.
        array = _npy(path, index)
        try:
            return np.array(array_of(array, f"image {index}", n_channels))
        except ValueError as error:
            raise unusable(index, path, error) from None
    try:
        with _open(item, index) as image:
            return _decode(image, index, path, n_channels, own=True, least_side=least_side)
    except UnreadableImageError:
        if path is None or not is_tiff(path):
            raise
    try:
        return read_tiff(path, n_channels)
    except Exception as error:  # a damaged file may raise any error
        raise unreadable(index, path, error) from error


def _smaller(image: Image.Image, least_side: int | None) -> Image.Image:
    """Let the decoder of a JPEG file reduce it by 2, 4 or 8, to sides of at least ``least_side`` pixels."""
    width, height = image.size
    if least_side is None or image.draft(image.mode, (least_side, least_side)) is None:
        return image
    scale = round(width / image.width)
    # Blocks at the right and lower end may reach beyond the image, and would shift it by a part of a pixel.
    if scale == 1 or (width % scale == 0 and height % scale == 0):
        return image
    size, box = (round(width / scale), round(height / scale)), (0, 0, width / scale, height / scale)
    return image.resize(size, Image.Resampling.BICUBIC, box=box)


def _path_of(item: Any) -> str | os.PathLike[str] | None:
    return item if isinstance(item, str | os.PathLike) else None


def _is_npy(path: str | os.PathLike[str] | None) -> bool:
    return path is not None and str(path).lower().endswith(".npy")


def _npy(path: Any, index: int) -> Array:
    """Return the array of a file, mapped to memory."""
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)  # a pickle could run code
    except FileNotFoundError as error:
        raise _missing(path, index) from error
    except Exception as error:
        raise unreadable(index, path, _reason(path, error)) from error
    _check_size(array.shape[1::-1], index, path)
    return array


def _open(item: Any, index: int) -> Image.Image:
    """Read the header of a file."""
    path = _path_of(item)
    try:
        # Without formats=, PIL would try all its plugins, by the content of the file and not by its suffix.
        return Image.open(item if path is not None else io.BytesIO(_content(item)), formats=_formats())
    except FileNotFoundError as error:
        raise _missing(path, index) from error
    except Exception as error:  # PIL may raise any error for a damaged file
        raise unreadable(index, path, _reason(item, error)) from error


def _content(item: Any) -> bytes:
    """Return the bytes of a file that is given as such, or is open."""
    if isinstance(item, bytes | bytearray):
        return bytes(item)
    with _OPEN_FILES:
        item.seek(0)
        return bytes(item.read())


def _missing(path: Any, index: int) -> UnreadableImageError:
    if is_web_address(path):
        return unreadable(index, path, "web addresses are not read; download the file first, and pass its path")
    message = f"image {index} is missing: there is no file {os.fsdecode(path)!r}."
    return UnreadableImageError(message, index, path, "it is missing")


def _reason(item: Any, error: Exception) -> object:
    """Return why a file cannot be opened, with the remedy where one is known."""
    path = _path_of(item)
    if path is not None and os.path.isdir(path):
        return "it is a folder; pass it alone, not in a list, or the paths of its images, load_image_folder(path).paths"
    try:
        head = _content(item)[:32] if path is None else _head(path)
    except (OSError, ValueError) as unopened:  # such as a path with a null byte
        # The system's own text names the file once more.
        return getattr(unopened, "strerror", None) or error
    if not head:
        return "it is empty (0 bytes)"
    if any(brand in head for brand in _HEIF):
        return "it is a HEIC file; install pillow-heif and call pillow_heif.register_heif_opener()"
    if isinstance(error, UnidentifiedImageError):  # its own text names the file once more
        return f"{'these bytes are' if path is None else 'it is'} no image of a known format"
    return error


def _head(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        return file.read(32)


def _formats() -> list[str]:
    """Return the formats that may be opened: well-known ones, and those for which the user installed an opener."""
    Image.init()  # imports PIL's plugins, which fill Image.OPEN
    installed = [name for name, (opener, _) in Image.OPEN.items() if not opener.__module__.startswith("PIL.")]
    return [name for name in _FORMATS if name in Image.OPEN] + installed


def _decode(
    image: Image.Image,
    index: int,
    path: str | os.PathLike[str] | None,
    n_channels: int,
    *,
    own: bool = False,
    least_side: int | None = None,
) -> Array:
    """Return the pixels of an opened image; one that was opened here need not be copied."""
    _check_size(image.size, index, path)
    if getattr(image, "tile", None) and getattr(image, "fp", None) is None:
        raise unreadable(index, path, "it was closed before its pixels were read; call image.load() before that")
    try:
        image = _smaller(image, least_side)
        pixels = deep_pixels(image, n_channels)
        return _pixels(image, n_channels, own) if pixels is None else pixels
    except Exception as error:  # PIL may raise any error for a damaged file
        raise unreadable(index, path, error) from error


def _check_size(size: tuple[int, ...], index: int, path: str | os.PathLike[str] | None) -> None:
    """Refuse more pixels than PIL's own limit; PIL itself only warns up to twice the limit."""
    limit, n_pixels = Image.MAX_IMAGE_PIXELS, int(np.prod(size))
    if limit is not None and n_pixels > limit:
        reason = f"{' x '.join(map(str, size))} pixels are more than the limit of {limit:,} for one image"
        raise unreadable(index, path, f"{reason}; if you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS")


def _pixels(image: Image.Image, n_channels: int, own: bool) -> Array:
    """Return the pixels (H, W, c) in the orientation of the EXIF data, without transparency.

    Transparency is kept if the network takes it for a channel.
    """
    if own:
        ImageOps.exif_transpose(image, in_place=True)
    else:
        image = ImageOps.exif_transpose(image)
    # A palette with an alpha value per colour. PIL warns if such an image is converted directly to RGB.
    if isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")
    has_alpha = image.mode in ("RGBA", "RGBa", "PA") or "transparency" in image.info
    if n_channels == 2 and image.mode in ("LA", "La"):
        mode = "LA"
    elif image.mode in ("1", "L", "LA", "La"):
        mode = "L"
    else:
        mode = "RGBA" if n_channels == 4 and has_alpha else "RGB"
    if image.mode != mode:  # else PIL would copy the image
        image = image.convert(mode)
    pixels = np.asarray(image)  # not np.array, which copies once more
    return pixels if pixels.ndim == 3 else pixels[..., None]
