"""One class of images for everything that users pass: arrays, paths, PIL images, torch datasets."""

import numbers
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
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
    ACCEPTED_FORMS,
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
    "is_sequence_of_images",
    "spread_evenly",
]

Indices = npt.NDArray[np.intp]


class Images(ABC):
    """A readable set of n images.

    Attributes
    ----------
    size : tuple of (int, int) or None
        Height and width in pixels if all images share them, else None.
    pixel_formats : frozenset of PixelFormat
        The kinds of pixels in the caller's arrays; empty for files, PIL images and datasets.
    """

    size: tuple[int, int] | None = None
    pixel_formats: frozenset[PixelFormat] = frozenset()

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def read(self, indices: Indices) -> list[Tensor] | Tensor:
        """Read some images.

        Parameters
        ----------
        indices : ndarray of int of shape (b,)
            Places of the images, in any order.

        Returns
        -------
        pixels : Tensor of shape (b, 3, H, W) or list of b tensors of shape (3, H, W)
            As uint8 in 0..255 or float32 in 0..1. A list if ``size`` is None.
        """

    def labels(self) -> list[Any] | None:
        """Return one label per image if the images bring labels, as a dataset may; they are read only once."""
        return None

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
        # A copy of these images only: the array may be memory-mapped, and larger than the memory.
        pixels = np.ascontiguousarray(self.array[indices])
        # float32 also for float16, float64 and other byte orders, which torch or the network may not take.
        if pixels.dtype != np.uint8:
            pixels = pixels.astype(np.float32, copy=False)
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)  # (b, C, H, W)
        return batch if batch.shape[1] == 3 else batch.expand(-1, 3, -1, -1)


class _ScaledRows(ArrayImages):
    """Rows of real numbers, one image per row: [low, high] becomes [0, 1], and values beyond stay beyond."""

    def __init__(self, array: npt.NDArray[Any], value_range: tuple[float, float]) -> None:
        super().__init__(array)
        self.low, self.high = value_range
        self.pixel_formats = frozenset()  # the numbers are not pixels

    def read(self, indices: Indices) -> Tensor:
        # In float64, since float32 loses small differences beside a large offset. A range of 0 would divide by 0.
        rows = (self.array[indices].astype(np.float64) - self.low) / ((self.high - self.low) or 1.0)
        # (b, 1, n_features, 1) to (b, 3, 1, n_features)
        return torch.from_numpy(rows.astype(np.float32)).permute(0, 3, 1, 2).expand(-1, 3, -1, -1)


class _ImageItems(Images):
    """A sequence of single images: paths, PIL images or (H, W[, C]) arrays."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items
        # Also arrays of one size have no common ``size`` here: only reading them tells.
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
        return [read_item(self._item(int(index))[0], int(index)) for index in indices]

    def labels(self) -> list[Any] | None:
        return self._labels

    @cached_property
    def _labels(self) -> list[Any] | None:
        targets = getattr(self.dataset, "targets", None)
        # torchvision's datasets wrap transform and target_transform in ``transforms``; a user's own may do anything.
        transforms = getattr(self.dataset, "transforms", None)
        both = getattr(transforms, "target_transform", transforms)
        # torchvision keeps the labels in ``targets``. If they are transformed, only the items have the final labels.
        if targets is not None and getattr(self.dataset, "target_transform", None) is None and both is None:
            return targets.tolist() if isinstance(targets, Tensor) else list(targets)
        first = self._item(0)
        if len(first) < 2:
            return None
        # Images are decoded only to be dropped here, which is slow: hence once, and the result is kept.
        labels = [first[1], *(self._item(index)[1] for index in range(1, len(self)))]
        return [label.item() if isinstance(label, Tensor) else label for label in labels]

    def _item(self, index: int) -> tuple[Any, ...]:
        """Return the item as a tuple that begins with the image."""
        try:
            item = self.dataset[index]
        except READING_ERRORS as error:  # the dataset's own loader failed on a bad file
            raise UnreadableImageError(f"image {index} cannot be read: {error}.", index) from error
        return tuple(item) if isinstance(item, tuple | list) else (item,)


class _Subset(Images):
    """Some images of a set, in any order."""

    def __init__(self, images: Images, indices: Indices) -> None:
        self.images, self.indices = images, indices
        self.size, self.pixel_formats = images.size, images.pixel_formats

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, indices: Indices) -> list[Tensor] | Tensor:
        return self.images.read(self.indices[indices])

    def labels(self) -> list[Any] | None:
        labels = self.images.labels()
        return None if labels is None else [labels[index] for index in self.indices]


def spread_evenly(n_images: int, most: int) -> Indices:
    """Return the indices of at most ``most`` images, spread evenly from the first to the last."""
    return np.unique(np.linspace(0, n_images - 1, min(n_images, most)).round().astype(np.intp))


class LenientImages(Images):
    """Images some of which may be unreadable; an unreadable one is read as one black pixel.

    Parameters
    ----------
    images : Images
        The images, read one by one.

    Attributes
    ----------
    errors : dict of int to UnreadableImageError
        The error of each unreadable image by its place, for the images read so far.
    """

    def __init__(self, images: Images) -> None:
        self.images, self.size, self.pixel_formats = images, images.size, images.pixel_formats
        self.errors: dict[int, UnreadableImageError] = {}

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: Indices) -> list[Tensor]:
        return [self._read_one(index) for index in indices]

    def labels(self) -> list[Any] | None:
        return self.images.labels()  # an item that cannot be read has no label either: an error

    def _read_one(self, index: np.intp) -> Tensor:
        try:
            return self.images.read(np.array([index]))[0]
        except UnreadableImageError as error:
            self.errors[int(index)] = error
            # The batch needs a tensor in this place; the caller overwrites what is computed from it.
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
        Whether to read files, PIL images and items of a dataset that cannot be read as one black pixel; see
        :class:`LenientImages`.
    name : str, default="X"
        The name of the argument in error messages.

    Returns
    -------
    images : Images
        The n images; ``X`` itself if it is an ``Images``.

    Raises
    ------
    ValueError, TypeError
        If ``X`` is not in an accepted form, is empty, has NaN, infinite or out-of-range pixels, or names a file that
        cannot be read as an image.
    """
    if isinstance(X, Images):
        return X
    if isinstance(X, Dataset):
        images = _from_dataset(X, name)
        return LenientImages(images) if lenient else images
    if isinstance(X, str | bytes | os.PathLike | Image.Image):
        raise TypeError(
            f"{name} is a single {type(X).__name__}: expected a sequence of images; wrap it in a list: {name}=[...]."
        )
    if isinstance(X, Tensor):
        X = tensor_to_array(X)
    # Images one by one, or one array: nested lists of numbers, data frames and arrays of paths become an array first.
    if is_sequence_of_images(X):
        return _from_sequence(X, lenient, name)
    array = _unmasked(X, name)
    if array.ndim == 1 and (array.dtype.kind in "OUS"):
        return _from_sequence(array, lenient, name)
    return _from_array(array, image_shape, value_range, name)


def is_sequence_of_images(X: Any) -> bool:
    """Tell whether ``X`` is a list of paths, PIL images, tensors or arrays of several sizes, not of numbers."""
    if not isinstance(X, Sequence) or len(X) == 0:
        return False
    # The first item decides: if others are of another type, the error names them.
    if isinstance(X[0], str | os.PathLike | Image.Image):
        return True
    tensors = all(isinstance(item, Tensor) and item.ndim > 1 for item in X)
    arrays = all(isinstance(item, np.ndarray) and item.ndim > 1 for item in X)
    # Arrays of one size stack to a single array, which is faster to check and to read.
    return tensors or (arrays and len({item.shape for item in X}) > 1)


def _unmasked(X: Any, name: str) -> npt.NDArray[Any]:
    """Return ``X`` as an array; refuse masked pixels, since the array would lose the mask."""
    if isinstance(X, np.ma.MaskedArray) and X.dtype.names is None and np.ma.is_masked(X):
        raise ValueError(
            f"{name} is a masked array with {int(np.ma.getmaskarray(X).sum())} masked pixels: expected an array "
            f"without a mask; pass {name}.filled(0)."
        )
    try:
        return np.asarray(X)
    except ValueError as error:  # lists of unequal lengths
        raise ValueError(f"{name} cannot be made an array ({error}): expected {ACCEPTED_FORMS}.") from error


def _from_dataset(dataset: Dataset[Any], name: str) -> Images:
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise TypeError(f"{name} is an iterable-style dataset: expected a map-style dataset with a length.")
    images = _DatasetImages(dataset)
    if len(images) == 0:
        raise ValueError(f"{name} has 0 images: expected at least 1.")
    return images


def _from_sequence(items: Sequence[Any] | npt.NDArray[Any], lenient: bool, name: str) -> Images:
    # Wrong types are errors in the caller's code, also where unreadable images are accepted.
    if len(items) == 0:
        raise ValueError(f"{name} has 0 images: expected at least 1.")
    for index, item in enumerate(items):
        if not isinstance(item, str | os.PathLike | np.ndarray | Tensor | Image.Image):
            raise TypeError(f"{name}[{index}] has type {type(item).__name__}: expected {ACCEPTED_FORMS}.")
    images = _ImageItems(list(items))
    if lenient:
        return LenientImages(images)
    # All that can be checked without decoding a file, so that an error comes early.
    for index, item in enumerate(items):
        if isinstance(item, str | os.PathLike):
            check_header(item, index)
        elif isinstance(item, np.ndarray | Tensor):
            image_to_tensor(item, f"{name}[{index}]")
    return images


def _format_of_item(item: Any) -> PixelFormat | None:
    """Return the pixel format of an item that is an array; None for others, and for arrays of a wrong shape."""
    if not isinstance(item, np.ndarray | Tensor):
        return None
    floating = item.is_floating_point() if isinstance(item, Tensor) else item.dtype.kind == "f"
    # (H, W) has 1 channel. Tensors have their channels first, arrays last.
    channels = {2: 1, 3: item.shape[0 if isinstance(item, Tensor) else -1]}.get(item.ndim)
    return PixelFormat("float" if floating else "integer", channels) if channels in (1, 3) else None


def _from_array(
    array: npt.NDArray[Any],
    image_shape: tuple[int, ...] | None,
    value_range: tuple[float, float] | None,
    name: str,
) -> Images:
    """Check shape, dtype and values of an array, and bring it to (n, H, W, C)."""
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name} has dtype {array.dtype}: expected {ACCEPTED_FORMS}.")
    # NumPy's minimum of an empty array, later, would raise an error that does not name the argument.
    if array.ndim == 0 or 0 in array.shape:
        raise ValueError(f"{name} has shape {array.shape}, so no pixels: expected {ACCEPTED_FORMS}.")
    if array.ndim == 2:
        if image_shape is None:
            low, high = value_range if value_range is not None else value_bounds(array, name)
            return _ScaledRows(array[:, None, :, None], (low, high))  # (n, 1, n_features, 1): one line of pixels
        array = array.reshape(len(array), *_checked_shape(image_shape, array.shape[1], name))
    elif array.ndim == 3 and array.shape[-1] in (3, 4):
        # It could also be n grey images 3 or 4 pixels wide. That is rare, and a wrong guess would go unnoticed.
        raise ValueError(
            f"{name} has shape {array.shape}, which looks like a single colour image: expected {ACCEPTED_FORMS}. For "
            f"one image pass {name}[None]; for grey images {array.shape[-1]} pixels wide pass {name}[..., None]."
        )
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in (1, 3):
        raise ValueError(f"{name} has shape {array.shape}: expected {ACCEPTED_FORMS}.{layout_hint(array.shape, name)}")
    return ArrayImages(check_pixels(array, name))


def _checked_shape(image_shape: Any, n_features: int, name: str) -> tuple[int, ...]:
    """Return ``image_shape`` as (H, W, C)."""
    shape = tuple(image_shape) if isinstance(image_shape, Sequence) and not isinstance(image_shape, str) else ()
    # NumPy's integers are accepted, floats such as 16.0 are not.
    whole = all(isinstance(side, numbers.Integral) and int(side) > 0 for side in shape)
    if len(shape) not in (2, 3) or not whole or (len(shape) == 3 and shape[2] not in (1, 3)):
        raise ValueError(f"image_shape={image_shape!r}: expected (H, W), (H, W, 1) or (H, W, 3), integers above 0.")
    shape = tuple(int(side) for side in shape)
    n_values = int(np.prod(shape))
    if n_values != n_features:
        raise ValueError(
            f"{name} has {n_features} features: expected {n_values}, the values of an image of image_shape={shape}; "
            "give the image_shape of these rows."
        )
    return (*shape, 1) if len(shape) == 2 else shape
