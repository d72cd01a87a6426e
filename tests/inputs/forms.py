"""The forms in which users have images, and arrays of each type of numbers, for the tables of inputs."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import tifffile
import torch
from PIL import Image
from sklearn.base import BaseEstimator

from tests.bad_images import ItemDataset

Array = npt.NDArray[Any]
N, HEIGHT, WIDTH = 4, 6, 9


def numbers(dtype: Any, low: float, high: float, n_channels: int = 1) -> Array:
    """Random images (n, H, W, C) whose least and largest values are ``low`` and ``high``."""
    rng = np.random.default_rng(0)
    array = (low + (high - low) * rng.random((N, HEIGHT, WIDTH, n_channels))).astype(dtype)
    array[0, 0, 0], array[-1, -1, -1] = low, high
    return array


def png(array: Array) -> bytes:
    """A PNG file of 8 or 16 bits, written by its specification: PIL writes 16 bits of grey only."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, n_channels = array.shape
    bits, colour_type = 8 * array.dtype.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[n_channels]
    rows = b"".join(b"\0" + row.astype(array.dtype.newbyteorder(">")).tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def as_pil(image: Array) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def saved(array: Array, folder: Path, suffix: str) -> list[Path]:
    """One file per image."""
    paths = [folder / f"{index}.{suffix}" for index in range(len(array))]
    for path, image in zip(paths, array, strict=True):
        if suffix == "png":
            path.write_bytes(png(image))
        elif suffix == "npy":
            np.save(path, image)
        else:
            colours = "rgb" if image.shape[-1] == 3 else "minisblack"
            tifffile.imwrite(path, image if image.shape[-1] > 1 else image[..., 0], photometric=colours)
    return paths


def tensors(array: Array) -> list[torch.Tensor]:
    return [torch.from_numpy(image.copy()).movedim(-1, 0) for image in array]


# A function of an array (n, H, W, C) and an empty folder.
FORMS: dict[str, Any] = {
    "array": lambda array, folder: array,
    "list of arrays": lambda array, folder: list(array),
    "list of sizes": lambda array, folder: [*array[:-1], np.concatenate([array[-1]] * 2)],
    "list of tensors": lambda array, folder: tensors(array),
    "PIL": lambda array, folder: [as_pil(image) for image in array],
    "dataset of arrays": lambda array, folder: ItemDataset(list(array)),
    "dataset of tensors": lambda array, folder: ItemDataset([(image, 0) for image in tensors(array)]),
    "dataset of PIL": lambda array, folder: ItemDataset([(as_pil(image), 0) for image in array]),
    "png": lambda array, folder: saved(array, folder, "png"),
    "tif": lambda array, folder: saved(array, folder, "tif"),
    "npy": lambda array, folder: saved(array, folder, "npy"),
    "bytes": lambda array, folder: [png(image) for image in array],
    "open files": lambda array, folder: [io.BytesIO(png(image)) for image in array],
    "pairs": lambda array, folder: [(image, "label") for image in array],
    "rows": lambda array, folder: [{"image": image, "label": 0} for image in array],
    "columns": lambda array, folder: {"img": list(array), "label": [0] * len(array)},
    "frame": lambda array, folder: pd.DataFrame({"path": map(str, saved(array, folder, "png"))}),
    "series": lambda array, folder: pd.Series(list(map(str, saved(array, folder, "png")))),
    "column of objects": lambda array, folder: np.array(list(map(str, saved(array, folder, "png"))), object)[:, None],
}
# What a form holds: PNG files have bytes and 16 bits without a sign, PIL images no colours but of bytes.
PNG_FORMS = {"png", "bytes", "open files", "frame", "series", "column of objects"}
PIL_FORMS = {"PIL", "dataset of PIL"}


def can_hold(form: str, dtype: Any, n_channels: int = 1) -> bool:
    dtype = np.dtype(dtype)
    if form in PNG_FORMS:
        return dtype in (np.uint8, np.uint16)
    if form in PIL_FORMS:
        return dtype == np.uint8 or (n_channels == 1 and dtype in (np.uint16, np.int32, np.float32, np.bool_))
    if form == "tif":
        return dtype not in (np.bool_, np.float16)
    return not ("tensors" in form and dtype in (np.uint32, np.uint64))


class Estimator(BaseEstimator):
    """Has what ``check_images`` reads of an estimator."""

    def __init__(self, image_shape: tuple[int, ...] | None = None) -> None:
        self.image_shape = image_shape


def unit_pixels(images: Any) -> list[Array]:
    """Read all images as (H, W, C) in 0..1."""
    read = images.read(np.arange(len(images)))
    return [(image.float() / 255 if image.dtype == torch.uint8 else image).movedim(0, -1).numpy() for image in read]
