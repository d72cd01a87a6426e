"""Files with other numbers than bytes, or with more channels than colours, which PIL would reduce to bytes or drop."""

import io
import os
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

__all__ = ["deep_pixels", "is_tiff", "read_tiff"]

Array = npt.NDArray[Any]

# Tags of TIFF files: their values are in the specification, TIFF 6.0.
_BITS, _PHOTOMETRIC, _BANDS, _EXTRA, _FORMAT, _ORIENTATION = 258, 262, 277, 338, 339, 274
_ALPHA, _UNSIGNED, _SIGNED, _CMYK = (1, 2), 1, 2, 5
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# How to turn an image (H, W, c) by the orientation of EXIF.
_TURNS: dict[int, Any] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}


def deep_pixels(image: Image.Image, n_channels: int) -> Array | None:
    """Return the pixels (H, W, c) of an image that PIL would not read as it is; None for all others."""
    if image.format == "PNG" and _is_deep_colour(image):
        return _deep_png(image, n_channels)
    if image.format == "TIFF" and hasattr(image, "tag_v2"):
        if _needs_reader(image):
            path = image.filename  # type: ignore[attr-defined]
            return read_tiff(path if path else image.fp, n_channels)  # type: ignore[attr-defined]
        if n_channels > 1 and image.mode in ("L", "I", "F", "I;16") and _n_pages(image) == n_channels:
            return _pages(image)
        if n_channels == 3:
            _warn_of_alpha(image)
    if image.mode[0] in "IF":
        return _wide(image)
    if image.format == "TIFF" and hasattr(image, "tag_v2") and image.tag_v2.get(_FORMAT) == (_SIGNED,):
        return np.array(image).view(np.int8)[..., None]
    return None


def _is_deep_colour(image: Image.Image) -> bool:
    # Once the pixels are decoded, there is no tile left.
    tile = getattr(image, "tile", None)
    return bool(tile) and str(tile[0].args).endswith(";16B") and image.mode[0] != "I"  # type: ignore[index]


def _deep_png(image: Any, n_channels: int) -> Array:
    """Read a PNG file of 16 bits per colour, of which PIL keeps 8."""
    image.fp.seek(0)
    content, layout = image.fp.read(), image.tile[0].args
    # PIL keeps the first byte of each number, or the second one if it takes the numbers for little-endian ones. Grey
    # with transparency has two numbers, which are read as the four bytes that they are.
    if layout == "LA;16B":
        parts = _png_bytes(content, "RGBA")
        first, second = parts[..., ::2], parts[..., 1::2]
    else:
        first, second = _png_bytes(content, layout), _png_bytes(content, layout.replace("16B", "16L"))
    pixels: Array = first.astype(np.uint16) * np.uint16(256) + second
    pixels = _TURNS.get(image.getexif().get(_ORIENTATION, 1), np.asarray)(pixels)
    # Transparency is kept where a network takes it for a channel.
    n_given = pixels.shape[-1]
    return pixels if n_given in (1, 3, n_channels) else pixels[..., : n_given - 1]


def _png_bytes(content: bytes, layout: str) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        image.tile = [image.tile[0]._replace(args=layout)]
        return np.array(image)


def _wide(image: Any) -> Array:
    """Return integers of more than 8 bits, or floats."""
    tags = getattr(image, "tag_v2", {})  # a turned image has none
    pixels = np.asarray(ImageOps.exif_transpose(image))
    # PIL keeps integers of 32 bits as signed ones.
    if image.mode == "I" and tags.get(_BITS) == (32,) and tags.get(_FORMAT, (_UNSIGNED,)) == (_UNSIGNED,):
        pixels = pixels.view(np.uint32)
    return np.array(pixels, dtype=pixels.dtype.newbyteorder("="))[..., None]


def _needs_reader(image: Any) -> bool:
    """Tell whether a TIFF file has bands, or numbers in several bands, which PIL drops or reduces."""
    tags = image.tag_v2
    n_bands, extra = int(tags.get(_BANDS, 1)), tags.get(_EXTRA, ())
    if n_bands == 1:
        return False
    if max(tags.get(_BITS, (1,))) > 8 or any(kind != _UNSIGNED for kind in tags.get(_FORMAT, (_UNSIGNED,))):
        return True
    n_colours = 4 if tags.get(_PHOTOMETRIC) == _CMYK else 3 if n_bands > 2 else 1
    return n_bands - n_colours != sum(kind in _ALPHA for kind in np.atleast_1d(extra)) or n_bands > 4


def _n_pages(image: Any) -> int:
    return int(getattr(image, "n_frames", 1))


def _pages(image: Any) -> Array:
    """Return the pages of a file as channels."""
    pages = []
    for page in range(_n_pages(image)):
        image.seek(page)
        pages.append(_wide(image) if image.mode[0] in "IF" else np.array(image.convert("L"))[..., None])
    image.seek(0)
    return np.concatenate(pages, axis=-1)


def _warn_of_alpha(image: Any) -> None:
    # In photographs transparency is common. In TIFF files it is often a fourth band that was saved as such.
    if image.mode == "RGBA":
        image.load()
        if image.getextrema()[3][0] < 255:
            warnings.warn(
                "a TIFF file has a fourth channel that varies or is not opaque. By its tags it is transparency, which "
                "is left out. To use all four channels, pass a backbone of four, such as create_backbone(name, "
                "in_chans=4).",
                UserWarning,
                stacklevel=2,
            )


def is_tiff(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file is a TIFF file by its first bytes."""
    try:
        with open(path, "rb") as file:
            return file.read(4) in _MAGIC
    except (OSError, ValueError):
        return False


def read_tiff(file: Any, n_channels: int) -> Array:
    """Read a TIFF file with any number of bands or pages, as (H, W, c).

    Raises
    ------
    ValueError
        If tifffile is not installed.
    """
    try:
        import tifffile
    except ImportError as error:
        raise ValueError(
            "it has other bands than colours of 8 bits, for which tifffile is needed: pip install skdfb[tiff]"
        ) from error
    with tifffile.TiffFile(file) as tiff:
        series = tiff.series[0]
        height, width = series.axes.index("Y"), series.axes.index("X")
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and series.shape[height] * series.shape[width] > limit:
            raise ValueError(f"its {series.shape} values are more than the limit of {limit:,} pixels for one image")
        # Pages of their own kind are series of their own.
        if len(tiff.series) == n_channels and len({one.shape for one in tiff.series}) == 1 and series.ndim == 2:
            pixels = np.stack([one.asarray() for one in tiff.series], axis=-1)
        else:
            pixels = np.moveaxis(series.asarray(), (height, width), (0, 1))
            pixels = pixels.reshape(*pixels.shape[:2], -1)
        # Transparency is dropped as it is elsewhere; other further bands are not.
        extra = tuple(int(kind) for kind in tiff.pages[0].extrasamples)
        if pixels.shape[-1] - 1 in (1, 3) and pixels.shape[-1] != n_channels and len(extra) == 1 and extra[0] in _ALPHA:
            pixels = pixels[..., :-1]
        orientation = tiff.pages[0].tags.get(_ORIENTATION)
    pixels = _TURNS.get(1 if orientation is None else int(orientation.value), np.asarray)(pixels)
    return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))
