"""One way to read images, wherever they come from: arrays, paths, PIL images, torch datasets."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["ArrayImages", "Images", "as_images"]

Indices = npt.NDArray[np.intp]

_WANTED = (
    "images as an array (n, H, W, 3), (n, H, W, 1) or (n, H, W), uint8 in 0..255 or float in 0..1; a 1-d sequence of "
    "paths or PIL images; a 2-d array with image_shape=(H, W, C); or a torch Dataset"
)


class Images(ABC):
    """A readable set of n images.

    Attributes
    ----------
    size : tuple of (int, int) or None
        Height and width in pixels, where all images share them.
    """

    size: tuple[int, int] | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def read(self, indices: Indices) -> list[Tensor] | Tensor:
        """Read some images: one tensor (b, 3, H, W), or a list of (3, H, W) where sizes differ.

        Values are uint8 in 0..255 or floats in 0..1.
        """

    def subset(self, indices: Indices) -> "Images":
        """Return the images at ``indices``; nothing is read or copied."""
        return _Subset(self, np.asarray(indices, dtype=np.intp))


class ArrayImages(Images):
    """Images in one array, in memory or memory-mapped, shape (n, H, W, C) with C = 1 or 3."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.array = array
        self.size = (array.shape[1], array.shape[2])

    def __len__(self) -> int:
        return len(self.array)

    def read(self, indices: Indices) -> Tensor:
        pixels = np.ascontiguousarray(self.array[indices])
        if pixels.dtype != np.uint8:
            pixels = pixels.astype(np.float32, copy=False)
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        return batch if batch.shape[1] == 3 else batch.expand(-1, 3, -1, -1)


class _ScaledRows(ArrayImages):
    """Rows of arbitrary real numbers, shown as pixels: [low, high] is mapped to [0, 1], values beyond it outside."""

    def __init__(self, array: npt.NDArray[Any], value_range: tuple[float, float]) -> None:
        super().__init__(array)
        self.low, self.high = value_range

    def read(self, indices: Indices) -> Tensor:
        rows = (self.array[indices].astype(np.float64) - self.low) / ((self.high - self.low) or 1.0)
        return torch.from_numpy(rows.astype(np.float32)).permute(0, 3, 1, 2).expand(-1, 3, -1, -1)


class _ImageFiles(Images):
    """Images given one by one: paths, PIL images or (H, W[, C]) arrays."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def read(self, indices: Indices) -> list[Tensor]:
        return [_read_item(self.items[index], int(index)) for index in indices]


class _DatasetImages(Images):
    """A map-style torch dataset whose items are images or tuples that begin with one."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def read(self, indices: Indices) -> list[Tensor]:
        return [_read_item(self.item(int(index))[0], int(index)) for index in indices]

    def item(self, index: int) -> tuple[Any, ...]:
        """Return the item as a tuple that begins with the image."""
        item = self.dataset[index]
        return tuple(item) if isinstance(item, tuple | list) else (item,)


class _Subset(Images):
    def __init__(self, images: Images, indices: Indices) -> None:
        self.images, self.indices, self.size = images, indices, images.size

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, indices: Indices) -> list[Tensor] | Tensor:
        return self.images.read(self.indices[indices])


def as_images(
    X: Any,
    *,
    image_shape: tuple[int, ...] | None = None,
    value_range: tuple[float, float] | None = None,
    name: str = "X",
) -> Images:
    """Check ``X`` and make it readable.

    Parameters
    ----------
    X : array, sequence, Dataset or Images
        See *Signs, shapes, words* in the user guide for the accepted forms.
    image_shape : tuple of int, default=None
        (H, W) or (H, W, C) of the images in the rows of a 2-d ``X``.
    value_range : tuple of (float, float), default=None
        For 2-d ``X`` without ``image_shape``: the values that become pixel 0 and pixel 1.
    name : str, default="X"
        How error messages call the argument.

    Returns
    -------
    images : Images

    Raises
    ------
    ValueError, TypeError
        If ``X`` is none of the accepted forms, is empty, has NaN, infinite or out-of-range pixels, or
        names a file that cannot be read as an image.
    """
    if isinstance(X, Images):
        return X
    if isinstance(X, Dataset) and not isinstance(X, Tensor):
        return _from_dataset(X, name)
    if isinstance(X, str | Path | Image.Image):
        raise TypeError(f"{name} is a single {type(X).__name__}; wrap it in a list: {name}=[...].")
    if isinstance(X, Tensor):
        X = X.detach().cpu().numpy()
    if is_sequence_of_images(X):
        return _from_sequence(X, name)
    array = np.asarray(X)
    if array.ndim == 1 and (array.dtype.kind in "OUS"):
        return _from_sequence(array, name)
    return _from_array(array, image_shape, value_range, name)


def is_sequence_of_images(X: Any) -> bool:
    """Tell whether ``X`` is a list or tuple whose first item is a path or a PIL image."""
    if not isinstance(X, Sequence) or isinstance(X, np.ndarray) or len(X) == 0:
        return False
    return isinstance(X[0], str | os.PathLike | Image.Image)


def _from_dataset(dataset: Dataset[Any], name: str) -> Images:
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise TypeError(f"{name} is an iterable-style dataset; a map-style one with a length is wanted.")
    images = _DatasetImages(dataset)
    if len(images) == 0:
        raise ValueError(f"{name} has 0 images; at least 1 is wanted.")
    return images


def dataset_labels(dataset: Dataset[Any]) -> list[Any] | None:
    """Return the labels of a dataset of (image, label) items, or None where it has none.

    torchvision's ``targets`` attribute is taken where there is one; else every item is read once.
    """
    targets = getattr(dataset, "targets", None)
    if targets is not None:
        return list(targets)
    images = _DatasetImages(dataset)
    if len(images.item(0)) < 2:
        return None
    labels = (images.item(index)[1] for index in range(len(images)))
    return [label.item() if isinstance(label, Tensor) else label for label in labels]


def _from_sequence(items: Sequence[Any] | npt.NDArray[Any], name: str) -> Images:
    if len(items) == 0:
        raise ValueError(f"{name} has 0 images; at least 1 is wanted.")
    for index, item in enumerate(items):
        if isinstance(item, str | os.PathLike):
            _open_image(item, index, header_only=True)
        elif not isinstance(item, Image.Image | np.ndarray | Tensor):
            raise TypeError(f"{name}[{index}] is a {type(item).__name__}; wanted are {_WANTED}.")
    return _ImageFiles(list(items))


def _from_array(
    array: npt.NDArray[Any],
    image_shape: tuple[int, ...] | None,
    value_range: tuple[float, float] | None,
    name: str,
) -> Images:
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name} has dtype {array.dtype}; wanted are {_WANTED}.")
    if array.shape[0] == 0 if array.ndim else True:
        raise ValueError(f"{name} has shape {array.shape}, so 0 images; wanted are {_WANTED}.")
    if array.ndim == 2 and image_shape is None:
        low, high = value_range if value_range is not None else value_bounds(array, name)
        return _ScaledRows(array[:, None, :, None], (low, high))
    if array.ndim == 2:
        array = array.reshape(len(array), *_checked_shape(image_shape, array.shape[1], name))
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or 0 in array.shape:
        hint = ""
        if array.ndim == 4 and array.shape[1] in (1, 3):
            hint = f" Channels come last here: pass {name}.transpose(0, 2, 3, 1)."
        elif array.ndim == 4 and array.shape[-1] == 4:
            hint = f" Drop the alpha channel: pass {name}[..., :3]."
        raise ValueError(f"{name} has shape {array.shape}; wanted are {_WANTED}.{hint}")
    return ArrayImages(_checked_pixels(array, name))


def _checked_shape(image_shape: Any, n_features: int, name: str) -> tuple[int, ...]:
    shape = tuple(int(side) for side in image_shape) if isinstance(image_shape, Sequence) else ()
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"image_shape={image_shape!r}; (H, W) or (H, W, C) is wanted.")
    if int(np.prod(shape)) != n_features:
        raise ValueError(
            f"{name} has {n_features} features, but image_shape={shape} needs {int(np.prod(shape))}; "
            f"X has {n_features} features, but an image has {int(np.prod(shape))} values."
        )
    return shape


def _checked_pixels(array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
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
            f"Divide by the largest possible value, or pass {name}.astype('uint8') if these are 0..255."
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


def _read_item(item: Any, index: int) -> Tensor:
    """Read one image as (3, H, W), uint8 or float32."""
    if isinstance(item, str | os.PathLike):
        item = _open_image(item, index)
    if isinstance(item, Image.Image):
        return _from_pil(item)
    if isinstance(item, Tensor):  # torchvision's layout: channels first
        item = item.detach().cpu().numpy()
        item = np.moveaxis(item, 0, -1) if item.ndim == 3 else item
    if not isinstance(item, np.ndarray) or item.ndim not in (2, 3):
        raise TypeError(f"image {index} is a {type(item).__name__}; a PIL image or an (H, W[, C]) array is wanted.")
    single = _from_array(item[None], None, None, name=f"image {index}")
    batch = single.read(np.zeros(1, dtype=np.intp))
    return batch[0]


def _from_pil(image: Image.Image) -> Tensor:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a pixel; PIL's own conversion clips them at 255
        levels = np.clip(np.asarray(image, dtype=np.float32) / 65535, 0, 1)
        return torch.from_numpy(levels).expand(3, -1, -1)
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _open_image(path: str | os.PathLike[str], index: int, header_only: bool = False) -> Image.Image:
    try:
        with Image.open(path) as image:
            if not header_only:
                image.load()
            return image
    except FileNotFoundError as error:
        raise ValueError(f"image {index} is missing: there is no file {str(path)!r}.") from error
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"image {index} cannot be read: file {str(path)!r}: {error}.") from error
