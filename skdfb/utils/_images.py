"""One way to read images, wherever they come from: arrays, paths, PIL images, torch datasets."""

import numbers
import os
import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
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
        See *Images* in the user guide for the accepted forms.
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
    if isinstance(X, str | bytes | os.PathLike | Image.Image):
        raise TypeError(f"{name} is a single {type(X).__name__}; wrap it in a list: {name}=[...].")
    if isinstance(X, Tensor):
        X = tensor_to_array(X)
    if is_sequence_of_images(X):
        return _from_sequence(X, name)
    array = np.asarray(X)
    if array.ndim == 1 and (array.dtype.kind in "OUS"):
        return _from_sequence(array, name)
    return _from_array(array, image_shape, value_range, name)


def is_sequence_of_images(X: Any) -> bool:
    """Tell lists of paths, of PIL images, of tensors and of arrays of several sizes from lists of numbers."""
    if not isinstance(X, Sequence) or len(X) == 0:
        return False
    if isinstance(X[0], str | os.PathLike | Image.Image):
        return True
    tensors = all(isinstance(item, Tensor) and item.ndim > 1 for item in X)
    arrays = all(isinstance(item, np.ndarray) and item.ndim > 1 for item in X)
    return tensors or (arrays and len({item.shape for item in X}) > 1)


def tensor_to_array(tensor: Tensor) -> npt.NDArray[Any]:
    """Return a tensor as an array on the CPU."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()  # NumPy has no bfloat16


def _from_dataset(dataset: Dataset[Any], name: str) -> Images:
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise TypeError(f"{name} is an iterable-style dataset; a map-style one with a length is wanted.")
    images = _DatasetImages(dataset)
    if len(images) == 0:
        raise ValueError(f"{name} has 0 images; at least 1 is wanted.")
    return images


def dataset_labels(dataset: Dataset[Any]) -> list[Any] | None:
    """Return the labels of a dataset of (image, label) items, or None where it has none.

    torchvision's ``targets`` attribute is taken where nothing transforms targets; else every item is read once.
    """
    targets = getattr(dataset, "targets", None)
    transforms = getattr(dataset, "transforms", None)  # torchvision's own wraps transform and target_transform
    both = getattr(transforms, "target_transform", transforms)
    if targets is not None and getattr(dataset, "target_transform", None) is None and both is None:
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
        elif isinstance(item, np.ndarray | Tensor):
            _item_from_array(item, f"{name}[{index}]")
        elif not isinstance(item, Image.Image):
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
    if array.ndim == 0 or 0 in array.shape:
        raise ValueError(f"{name} has shape {array.shape}, so no pixels; wanted are {_WANTED}.")
    if array.ndim == 2:
        if image_shape is None:
            low, high = value_range if value_range is not None else value_bounds(array, name)
            return _ScaledRows(array[:, None, :, None], (low, high))
        array = array.reshape(len(array), *_checked_shape(image_shape, array.shape[1], name))
    elif array.ndim == 3 and array.shape[-1] in (3, 4):
        raise ValueError(
            f"{name} has shape {array.shape}, which looks like a single colour image; wanted are {_WANTED}. For one "
            f"image pass {name}[None]; for grey images {array.shape[-1]} pixels wide pass {name}[..., None]."
        )
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in (1, 3):
        raise ValueError(f"{name} has shape {array.shape}; wanted are {_WANTED}.{_layout_hint(array.shape, name)}")
    return ArrayImages(_checked_pixels(array, name))


def _layout_hint(shape: tuple[int, ...], name: str) -> str:
    """Say how an array of wrong shape becomes a right one, for one image or for a batch."""
    if len(shape) == 1:
        return f" Reshape your data: for a single image given as one row, pass {name}.reshape(1, -1)."
    if len(shape) in (3, 4) and shape[-3] in (1, 3):
        return f" Channels come last here: pass np.moveaxis({name}, -3, -1)."
    if len(shape) in (3, 4) and shape[-1] == 4:
        return f" Drop the alpha channel: pass {name}[..., :3]."
    return ""


def _checked_shape(image_shape: Any, n_features: int, name: str) -> tuple[int, ...]:
    shape = tuple(image_shape) if isinstance(image_shape, Sequence) and not isinstance(image_shape, str) else ()
    whole = all(isinstance(side, numbers.Integral) and int(side) > 0 for side in shape)
    if len(shape) not in (2, 3) or not whole or (len(shape) == 3 and shape[2] not in (1, 3)):
        raise ValueError(f"image_shape={image_shape!r}; (H, W), (H, W, 1) or (H, W, 3) is wanted.")
    shape = tuple(int(side) for side in shape)
    n_values = int(np.prod(shape))
    if n_values != n_features:
        raise ValueError(
            f"{name} has {n_features} features, but an image of image_shape={shape} has {n_values} values; give the "
            "image_shape of these rows."
        )
    return (*shape, 1) if len(shape) == 2 else shape


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


def _read_item(item: Any, index: int) -> Tensor:
    """Read one image as (3, H, W), uint8 or float32."""
    if isinstance(item, str | os.PathLike):
        item = _open_image(item, index)
    if isinstance(item, Image.Image):
        return _from_pil(item)
    if not isinstance(item, np.ndarray | Tensor):
        raise TypeError(f"image {index} is a {type(item).__name__}; a PIL image or an (H, W[, C]) array is wanted.")
    return _item_from_array(item, f"image {index}").read(np.zeros(1, dtype=np.intp))[0]


def _item_from_array(item: npt.NDArray[Any] | Tensor, name: str) -> ArrayImages:
    """Check one image, an array (H, W[, C]) or, as torchvision has it, a tensor ([C, ]H, W)."""
    if isinstance(item, Tensor):
        item = tensor_to_array(item)
        item = np.moveaxis(item, 0, -1) if item.ndim == 3 else item
    if item.ndim == 2:
        item = item[..., None]
    if item.ndim != 3 or item.shape[-1] not in (1, 3) or 0 in item.shape or item.dtype.kind not in "buif":
        raise ValueError(
            f"{name} has shape {item.shape} and dtype {item.dtype}; an image (H, W), (H, W, 1) or (H, W, 3), uint8 in "
            f"0..255 or float in 0..1, is wanted (a torch tensor has its channels first)."
            + _layout_hint(item.shape, name)
        )
    return ArrayImages(_checked_pixels(item[None], name))


def _from_pil(image: Image.Image) -> Tensor:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a pixel; PIL's own conversion clips them at 255
        levels = np.clip(np.asarray(image, dtype=np.float32) / 65535, 0, 1)
        return torch.from_numpy(levels).expand(3, -1, -1)
    if isinstance(image.info.get("transparency"), bytes):  # a palette with alpha: PIL warns unless asked for it
        image = image.convert("RGBA")
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _open_image(path: str | os.PathLike[str], index: int, header_only: bool = False) -> Image.Image:
    try:
        with Image.open(path) as image:
            if not header_only:
                image.load()
            return image
    except FileNotFoundError as error:
        raise ValueError(f"image {index} is missing: there is no file {str(path)!r}.") from error
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(f"image {index} cannot be read: file {str(path)!r}: {error}.") from error
