"""One class of images for everything that users pass: arrays, files, PIL images, datasets."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from skdfb.exceptions import UnreadableImageError
from skdfb.images._containers import image_and_label
from skdfb.images._files import names_of, read_item
from skdfb.images._loader_checks import check_loader, path_of
from skdfb.images._loader_errors import is_reading_error
from skdfb.images._near_duplicates import fingerprint
from skdfb.images._pixels import PixelFormat, value_bounds
from skdfb.images._scale import PixelScale, integer_range, is_wide, pixels_of, with_channels
from skdfb.images._unreadable import unreadable, unusable

__all__ = [
    "N_FINGERPRINTS",
    "ArrayImages",
    "DatasetImages",
    "Images",
    "Indices",
    "ItemImages",
    "LenientImages",
    "ScaledRows",
    "SingleImages",
    "scale_of",
    "spread_evenly",
]

Indices = npt.NDArray[np.intp]
N_FINGERPRINTS = 5000  # images that are compared to find nearly equal ones
_N_COMPARED = 10  # items of a dataset that are compared with its attributes ``targets`` and ``samples``


class Images(ABC):
    """A readable set of n images.

    Attributes
    ----------
    size : tuple of (int, int) or None
        Height and width in pixels if all images share them, else None.
    pixel_formats : frozenset of PixelFormat
        The kinds of pixels in the caller's arrays; empty for files, PIL images and datasets.
    n_channels : int
        Channels of the pixels, as many as the network takes.
    runs_user_code : bool
        Whether reading an image runs code of the caller, as of a dataset.
    """

    size: tuple[int, int] | None = None
    pixel_formats: frozenset[PixelFormat] = frozenset()
    n_channels: int = 3
    runs_user_code: bool = False

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
        pixels : Tensor of shape (b, C, H, W) or list of b tensors of shape (C, H, W)
            As uint8 in 0..255 or float32 in 0..1. A list if ``size`` is None.
        """

    def read_one(self, index: int, least_side: int | None = None) -> Tensor:
        """Read one image as (C, H, W); sides of ``least_side`` pixels suffice, so a large file may be read smaller."""
        return self.read(np.array([index]))[0]

    @property
    def has_labels(self) -> bool:
        """Whether the images bring labels."""
        return False

    def labels(self) -> list[Any] | None:
        """Return one label per image if the images bring labels, as a dataset may; they are read only once."""
        return None

    @property
    def names(self) -> list[str] | None:
        """The path of each image; None if an image did not come from a file."""
        return None

    def fingerprints(self) -> dict[int, npt.NDArray[np.floating]]:
        """Return what identifies some of the images, by their place; see :func:`fingerprint`."""
        return {}

    def subset(self, indices: Indices) -> "Images":
        """Return the images at ``indices``; nothing is read or copied."""
        return _Subset(self, np.asarray(indices, dtype=np.intp))


class ArrayImages(Images):
    """Images in one array, in memory or memory-mapped, shape (n, H, W, c), whose values were checked."""

    def __init__(self, array: npt.NDArray[Any], scale: PixelScale, n_channels: int) -> None:
        self.array, self.scale, self.n_channels = array, scale, n_channels
        self.size = (array.shape[1], array.shape[2])
        self.pixel_formats = frozenset([PixelFormat("float" if array.dtype.kind == "f" else "integer", array.shape[3])])

    def __len__(self) -> int:
        return len(self.array)

    def read(self, indices: Indices) -> Tensor:
        # A copy of these images only: the array may be memory-mapped, and larger than the memory.
        pixels = self.scale.to_unit(np.ascontiguousarray(self.array[indices]))
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)  # (b, c, H, W)
        return batch if batch.shape[1] == self.n_channels else batch.expand(-1, self.n_channels, -1, -1)

    def fingerprints(self) -> dict[int, npt.NDArray[np.floating]]:
        return {int(row): fingerprint(self.array[row]) for row in spread_evenly(len(self), N_FINGERPRINTS)}


class ScaledRows(Images):
    """Rows of real numbers, one image per row: [low, high] becomes [0, 1], and values beyond stay beyond."""

    def __init__(self, array: npt.NDArray[Any], value_range: tuple[float, float], n_channels: int) -> None:
        self.array, self.n_channels = array, n_channels
        self.low, self.high = value_range
        self.size = (1, array.shape[1])

    def __len__(self) -> int:
        return len(self.array)

    def read(self, indices: Indices) -> Tensor:
        # In float64, since float32 loses small differences beside a large offset. A range of 0 would divide by 0.
        rows = (self.array[indices].astype(np.float64) - self.low) / ((self.high - self.low) or 1.0)
        # (b, n_features) to (b, C, 1, n_features)
        return torch.from_numpy(rows.astype(np.float32))[:, None, None].expand(-1, self.n_channels, -1, -1)


class SingleImages(Images):
    """Images that are read one by one, each with its own size and type of numbers.

    Attributes
    ----------
    scale : PixelScale or None
        How numbers become pixels; None until :meth:`learn_scale`.
    surveyed : bool
        Whether each image was read once and checked.
    known : dict of int to ndarray
        Fingerprints of images, from the survey.
    first : int
        Number of the first image in error messages: other images may come before it.
    """

    scale: PixelScale | None
    surveyed: bool = False
    first: int = 0
    known: dict[int, npt.NDArray[np.floating]]

    @abstractmethod
    def read_numbers(self, index: int, least_side: int | None = None) -> npt.NDArray[Any]:
        """Read one image as (H, W, c), its numbers as they are."""

    def path(self, index: int) -> str | None:
        """Return the path of an image; None if it did not come from a file, as far as it tells without reading."""
        return None

    @contextmanager
    def checking(self, index: int) -> Generator[str]:
        """Turn a ValueError of the block, which begins with the name that is yielded, into the error of an image."""
        number = self.first + index
        try:
            yield f"image {number}"
        except ValueError as error:
            raise unusable(number, self.path(index), error) from None

    def read(self, indices: Indices) -> list[Tensor]:
        return [self.read_one(int(index)) for index in indices]

    def read_one(self, index: int, least_side: int | None = None) -> Tensor:
        image = self.read_numbers(index, least_side)
        if self.scale is None and not is_wide(image.dtype):
            return self._pixels(image, PixelScale(), index)
        return self._pixels(image, self.learn_scale(), index)

    def fingerprints(self) -> dict[int, npt.NDArray[np.floating]]:
        return self.known

    def learn_scale(self) -> PixelScale:
        """Return how numbers become pixels; if it is not known, all images are read to learn it."""
        if self.scale is None:
            images = (self.read_numbers(index) for index in range(len(self)))
            bounds = [(image.min(), image.max()) for image in images if is_wide(image.dtype)]
            self.scale = scale_of(bounds)
        return self.scale

    def _pixels(self, image: npt.NDArray[Any], scale: PixelScale, index: int) -> Tensor:
        with self.checking(index) as name:
            image = with_channels(image, self.n_channels, name)
            # Any byte is a pixel: nothing to check.
            if image.dtype != np.uint8 or scale.given:
                low, high = value_bounds(image[None], name)
                scale.check(image.dtype, low, high, name)
        return pixels_of(image, scale, self.n_channels)


def scale_of(bounds: Sequence[tuple[float, float]]) -> PixelScale:
    """Return the scale of images whose integers of more than 8 bits have these least and largest values."""
    if not bounds:
        return PixelScale()
    return PixelScale(integer_range(float(min(low for low, _ in bounds)), float(max(high for _, high in bounds))))


class ItemImages(SingleImages):
    """A sequence of single images: files, PIL images or (H, W[, c]) arrays; those of a folder may have labels."""

    def __init__(
        self, items: Sequence[Any], scale: PixelScale | None, n_channels: int, labels: list[Any] | None = None
    ) -> None:
        self.items, self.scale, self.n_channels, self.known = items, scale, n_channels, {}
        self._labels = labels
        # Also arrays of one size have no common ``size`` here: only reading them tells.
        self.pixel_formats = frozenset(filter(None, (_format_of_item(item, n_channels) for item in items)))

    def __len__(self) -> int:
        return len(self.items)

    def read_numbers(self, index: int, least_side: int | None = None) -> npt.NDArray[Any]:
        return read_item(self.items[index], self.first + index, self.n_channels, least_side)

    def path(self, index: int) -> str | None:
        names = names_of([self.items[index]])
        return None if names is None else names[0]

    @property
    def has_labels(self) -> bool:
        return self._labels is not None

    def labels(self) -> list[Any] | None:
        return self._labels

    @property
    def names(self) -> list[str] | None:
        return names_of(self.items)


class DatasetImages(SingleImages):
    """A map-style dataset, or a sequence, whose items are images, tuples that begin with one, or rows with one."""

    runs_user_code = True

    def __init__(self, dataset: Any, scale: PixelScale | None, n_channels: int) -> None:
        self.dataset, self.scale, self.n_channels, self.known = dataset, scale, n_channels, {}
        # Labels of the items that were read: an image is not decoded twice for its label.
        self._seen: dict[int, Any] = {}
        self._labels: list[Any] | None = None
        self._compared = set(spread_evenly(len(dataset), _N_COMPARED).tolist())

    def __len__(self) -> int:
        return len(self.dataset)

    def read_numbers(self, index: int, least_side: int | None = None) -> npt.NDArray[Any]:
        image = read_item(self._item(index)[0], index, self.n_channels, least_side)
        if index in self._compared:
            check_loader(self.dataset, index, image)
        return image

    @property
    def names(self) -> list[str] | None:
        # Other datasets would have to read an image for its name.
        if isinstance(self.dataset, list | tuple):
            return names_of([image_and_label(item, index)[0] for index, item in enumerate(self.dataset)])
        return names_of([path_of(self.dataset, index) for index in range(len(self))])

    def labels(self) -> list[Any] | None:
        if self._labels is None and self.has_labels:
            # Without reading all items: but these may have mapped labels, or be a part of those listed.
            listed = None if len(self._seen) == len(self) else self._listed()
            self._labels = listed or [self._label(index) for index in range(len(self))]
        return self._labels

    @cached_property
    def has_labels(self) -> bool:
        """Whether the items have labels, or the dataset lists them."""
        return bool(self._seen) or len(self._item(0)) > 1 or self._listed() is not None

    def _listed(self) -> list[Any] | None:
        """Return the attribute ``targets`` of the dataset, if some items have the same labels, or none."""
        targets = getattr(self.dataset, "targets", None)
        labels = targets.tolist() if isinstance(targets, Tensor) else list(() if targets is None else targets)
        if len(labels) != len(self):
            return None
        compared = [(labels[index], self._label(int(index))) for index in spread_evenly(len(self), _N_COMPARED)]
        return labels if all(own is None or _same(listed, own) for listed, own in compared) else None

    def _label(self, index: int) -> Any:
        """Return the label of an item; None if it has none."""
        if index not in self._seen:
            self._item(index)
        return self._seen.get(index)

    def _item(self, index: int) -> tuple[Any, ...]:
        """Return the item as a tuple that begins with the image."""
        try:
            item = self.dataset[index]
        except Exception as error:
            if not is_reading_error(error):
                raise  # an error of the user's own code
            raise unreadable(index, None, error) from error
        item = image_and_label(item, index)
        if len(item) > 1:
            self._seen[index] = item[1].item() if isinstance(item[1], Tensor) and item[1].numel() == 1 else item[1]
        return item


def _same(label: Any, other: Any) -> bool:
    return bool(np.array_equal(np.asarray(label), np.asarray(other)))


class _Subset(Images):
    """Some images of a set, in any order."""

    def __init__(self, images: Images, indices: Indices) -> None:
        self.images, self.indices, self.n_channels = images, indices, images.n_channels
        self.size, self.pixel_formats = images.size, images.pixel_formats
        self.runs_user_code = images.runs_user_code

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, indices: Indices) -> list[Tensor] | Tensor:
        return self.images.read(self.indices[indices])

    def read_one(self, index: int, least_side: int | None = None) -> Tensor:
        return self.images.read_one(int(self.indices[index]), least_side)

    def fingerprints(self) -> dict[int, npt.NDArray[np.floating]]:
        known = self.images.fingerprints()
        return {place: known[int(row)] for place, row in enumerate(self.indices) if int(row) in known}

    @property
    def has_labels(self) -> bool:
        return self.images.has_labels

    def labels(self) -> list[Any] | None:
        labels = self.images.labels()
        return None if labels is None else [labels[index] for index in self.indices]

    @property
    def names(self) -> list[str] | None:
        names = self.images.names
        return None if names is None else [names[index] for index in self.indices]


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
        self.n_channels, self.runs_user_code = images.n_channels, images.runs_user_code
        self.errors: dict[int, UnreadableImageError] = {}

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: Indices) -> list[Tensor]:
        return [self.read_one(int(index)) for index in indices]

    @property
    def has_labels(self) -> bool:
        return self.images.has_labels

    def labels(self) -> list[Any] | None:
        return self.images.labels()  # an item that cannot be read has no label either: an error

    @property
    def names(self) -> list[str] | None:
        return self.images.names

    def read_one(self, index: int, least_side: int | None = None) -> Tensor:
        try:
            return self.images.read_one(index, least_side)
        except UnreadableImageError as error:
            self.errors[index] = error
            # The batch needs a tensor in this place; the caller overwrites what is computed from it.
            return torch.zeros(self.n_channels, 1, 1, dtype=torch.uint8)


def _format_of_item(item: Any, n_channels: int) -> PixelFormat | None:
    """Return the pixel format of an item that is an array; None for others, and for arrays of a wrong shape."""
    if not isinstance(item, np.ndarray | Tensor) or item.ndim not in (2, 3):
        return None
    floating = item.is_floating_point() if isinstance(item, Tensor) else item.dtype.kind == "f"
    # (H, W) has 1 channel. Tensors have their channels first, arrays last.
    channels = 1 if item.ndim == 2 else item.shape[0 if isinstance(item, Tensor) else -1]
    return PixelFormat("float" if floating else "integer", int(channels)) if channels in (1, 3, n_channels) else None
