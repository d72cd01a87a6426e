"""One way to read images, wherever they come from: arrays, paths, PIL images, torch datasets."""

import numbers
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from skdfb.exceptions import UnreadableImageError
from skdfb.images._files import READING_ERRORS, check_header, read_item
from skdfb.images._pixels import (
    WANTED,
    PixelFormat,
    check_pixels,
    image_to_tensor,
    layout_hint,
    tensor_to_array,
    value_bounds,
)

__all__ = [
    "ArrayImages",
    "Images",
    "LenientImages",
    "as_images",
    "dataset_labels",
    "is_sequence_of_images",
    "spread_evenly",
]

Indices = npt.NDArray[np.intp]


class Images(ABC):
    """A readable set of n images.

    Attributes
    ----------
    size : tuple of (int, int) or None
        Height and width in pixels, where all images share them.
    pixel_formats : frozenset of PixelFormat
        What kinds of pixels the caller has given; none where files are decoded here.
    """

    size: tuple[int, int] | None = None
    pixel_formats: frozenset[PixelFormat] = frozenset()

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
        self.pixel_formats = frozenset([PixelFormat("float" if array.dtype.kind == "f" else "integer", array.shape[3])])

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
        self.pixel_formats = frozenset()  # rows of anything

    def read(self, indices: Indices) -> Tensor:
        rows = (self.array[indices].astype(np.float64) - self.low) / ((self.high - self.low) or 1.0)
        return torch.from_numpy(rows.astype(np.float32)).permute(0, 3, 1, 2).expand(-1, 3, -1, -1)


class _ImageItems(Images):
    """Images given one by one: paths, PIL images or (H, W[, C]) arrays."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items
        self.pixel_formats = frozenset(filter(None, map(_format_of_item, items)))

    def __len__(self) -> int:
        return len(self.items)

    def read(self, indices: Indices) -> list[Tensor]:
        return [read_item(self.items[index], int(index)) for index in indices]


class _DatasetImages(Images):
    """A map-style torch dataset whose items are images or tuples that begin with one."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def read(self, indices: Indices) -> list[Tensor]:
        return [read_item(self._image(int(index)), int(index)) for index in indices]

    def item(self, index: int) -> tuple[Any, ...]:
        """Return the item as a tuple that begins with the image."""
        item = self.dataset[index]
        return tuple(item) if isinstance(item, tuple | list) else (item,)

    def _image(self, index: int) -> Any:
        try:
            return self.item(index)[0]
        except READING_ERRORS as error:  # its loader met a bad file
            raise UnreadableImageError(f"image {index} cannot be read: {error}.", index) from error


class _Subset(Images):
    def __init__(self, images: Images, indices: Indices) -> None:
        self.images, self.indices = images, indices
        self.size, self.pixel_formats = images.size, images.pixel_formats

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, indices: Indices) -> list[Tensor] | Tensor:
        return self.images.read(self.indices[indices])


def spread_evenly(n_images: int, most: int) -> Indices:
    """Return the indices of at most so many images, spread evenly over all."""
    return np.unique(np.linspace(0, n_images - 1, min(n_images, most)).round().astype(np.intp))


class LenientImages(Images):
    """Images given one by one, some of which may be unreadable: those are read as one black pixel, and remembered.

    Attributes
    ----------
    errors : dict of int to UnreadableImageError
        Why an image could not be read, by its place; of those that were asked for so far.
    """

    def __init__(self, images: Images) -> None:
        self.images, self.size, self.pixel_formats = images, images.size, images.pixel_formats
        self.errors: dict[int, UnreadableImageError] = {}

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: Indices) -> list[Tensor]:
        return [self._read_one(index) for index in indices]

    def _read_one(self, index: np.intp) -> Tensor:
        try:
            return self.images.read(np.array([index]))[0]
        except UnreadableImageError as error:
            self.errors[int(index)] = error
            return torch.zeros(3, 1, 1, dtype=torch.uint8)


def as_images(
    X: Any,
    *,
    image_shape: tuple[int, ...] | None = None,
    value_range: tuple[float, float] | None = None,
    lenient: bool = False,
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
    lenient : bool, default=False
        Whether files, PIL images and items of a dataset that cannot be read are read as one black pixel; see
        :class:`LenientImages`.
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
        images = _from_dataset(X, name)
        return LenientImages(images) if lenient else images
    if isinstance(X, str | bytes | os.PathLike | Image.Image):
        raise TypeError(f"{name} is a single {type(X).__name__}; wrap it in a list: {name}=[...].")
    if isinstance(X, Tensor):
        X = tensor_to_array(X)
    if is_sequence_of_images(X):
        return _from_sequence(X, lenient, name)
    array = _unmasked(X, name)
    if array.ndim == 1 and (array.dtype.kind in "OUS"):
        return _from_sequence(array, lenient, name)
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


def _unmasked(X: Any, name: str) -> npt.NDArray[Any]:
    """Return X as an array; a mask would be lost."""
    if isinstance(X, np.ma.MaskedArray) and X.dtype.names is None and np.ma.is_masked(X):
        raise ValueError(
            f"{name} is a masked array with {int(np.ma.getmaskarray(X).sum())} masked pixels; pass {name}.filled(0)."
        )
    try:
        return np.asarray(X)
    except ValueError as error:  # lists of unequal lengths
        raise ValueError(f"{name} cannot be made an array ({error}); wanted are {WANTED}.") from error


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


def _from_sequence(items: Sequence[Any] | npt.NDArray[Any], lenient: bool, name: str) -> Images:
    if len(items) == 0:
        raise ValueError(f"{name} has 0 images; at least 1 is wanted.")
    for index, item in enumerate(items):
        if not isinstance(item, str | os.PathLike | np.ndarray | Tensor | Image.Image):
            raise TypeError(f"{name}[{index}] is a {type(item).__name__}; wanted are {WANTED}.")
    images = _ImageItems(list(items))
    if lenient:
        return LenientImages(images)
    for index, item in enumerate(items):
        if isinstance(item, str | os.PathLike):
            check_header(item, index)
        elif isinstance(item, np.ndarray | Tensor):
            image_to_tensor(item, f"{name}[{index}]")
    return images


def _format_of_item(item: Any) -> PixelFormat | None:
    """Return the pixel format of an item that is an array; an array that is no image is told when it is read."""
    if not isinstance(item, np.ndarray | Tensor):
        return None
    floating = item.is_floating_point() if isinstance(item, Tensor) else item.dtype.kind == "f"
    channels = {2: 1, 3: item.shape[0 if isinstance(item, Tensor) else -1]}.get(item.ndim)
    return PixelFormat("float" if floating else "integer", channels) if channels in (1, 3) else None


def _from_array(
    array: npt.NDArray[Any],
    image_shape: tuple[int, ...] | None,
    value_range: tuple[float, float] | None,
    name: str,
) -> Images:
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name} has dtype {array.dtype}; wanted are {WANTED}.")
    if array.ndim == 0 or 0 in array.shape:
        raise ValueError(f"{name} has shape {array.shape}, so no pixels; wanted are {WANTED}.")
    if array.ndim == 2:
        if image_shape is None:
            low, high = value_range if value_range is not None else value_bounds(array, name)
            return _ScaledRows(array[:, None, :, None], (low, high))
        array = array.reshape(len(array), *_checked_shape(image_shape, array.shape[1], name))
    elif array.ndim == 3 and array.shape[-1] in (3, 4):
        raise ValueError(
            f"{name} has shape {array.shape}, which looks like a single colour image; wanted are {WANTED}. For one "
            f"image pass {name}[None]; for grey images {array.shape[-1]} pixels wide pass {name}[..., None]."
        )
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in (1, 3):
        raise ValueError(f"{name} has shape {array.shape}; wanted are {WANTED}.{layout_hint(array.shape, name)}")
    return ArrayImages(check_pixels(array, name))


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
