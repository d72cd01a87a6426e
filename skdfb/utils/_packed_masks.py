"""Masks of whole image sets in an eighth of a byte per pixel."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = ["PackedMasks"]


@dataclass(frozen=True, eq=False)
class PackedMasks:
    """Masks (n, H, W) of integers 0..K, K the background.

    A mask of a single class is a bit per pixel and a label per image. If a third-party mask holds other classes, all
    masks are kept as the smallest unsigned integers.

    Parameters
    ----------
    values : ndarray of shape (n, ceil(H * W / 8)) or (n, H, W)
        Bits, set on the foreground; or the masks themselves.
    labels : ndarray of int of shape (n,)
        The class of each image.
    n_classes : int
        Number of classes K.
    size : tuple of (int, int)
        H and W.
    """

    values: npt.NDArray[np.unsignedinteger[Any]]
    labels: npt.NDArray[np.intp]
    n_classes: int
    size: tuple[int, int]

    @classmethod
    def pack(cls, masks: npt.NDArray[np.integer], labels: npt.NDArray[np.intp], n_classes: int) -> Self:
        """Return packed masks (n, H, W) of images of the given classes."""
        return cls.from_batches([(np.arange(len(masks)), masks)], labels, n_classes)

    @classmethod
    def from_batches(
        cls,
        batches: Iterable[tuple[npt.NDArray[np.intp], npt.NDArray[np.integer]]],
        labels: npt.NDArray[np.intp],
        n_classes: int,
    ) -> Self:
        """Return packed masks from batches of (indices, masks (b, H, W)) that together hold each image once."""
        packed: Self | None = None
        for indices, masks in batches:
            if packed is None:
                size = masks.shape[1], masks.shape[2]
                bits = np.zeros((len(labels), -(-size[0] * size[1] // 8)), dtype=np.uint8)
                packed = cls(bits, np.asarray(labels), n_classes, size)
            foreground = masks == packed.labels[indices, None, None]
            if packed.is_packed and not (foreground | (masks == n_classes)).all():
                dense = packed[np.arange(len(packed))]
                packed = cls(dense, packed.labels, n_classes, packed.size)
            packed.values[indices] = np.packbits(foreground.reshape(len(masks), -1), 1) if packed.is_packed else masks
        if packed is None:
            raise ValueError("there are no masks: expected at least one batch.")
        return packed

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (n, H, W) of the masks."""
        return len(self), *self.size

    @property
    def is_packed(self) -> bool:
        """Whether each mask is a bit per pixel."""
        return self.values.ndim == 2

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, indices: npt.NDArray[np.intp]) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Return the masks (b, H, W) at some indices, as the smallest unsigned integers."""
        dtype = np.min_scalar_type(self.n_classes)
        if not self.is_packed:
            return self.values[indices].astype(dtype)
        height, width = self.size
        bits = np.unpackbits(self.values[indices], axis=1, count=height * width)
        foreground = bits.reshape(-1, height, width).astype(bool)
        labels = self.labels[indices, None, None]
        return np.where(foreground, labels, self.n_classes).astype(dtype)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return all that these masks are, as arrays by name, for a file."""
        return {"values": self.values, "labels": self.labels, "sizes": np.array([self.n_classes, *self.size])}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Return the masks from what :meth:`arrays` returned."""
        n_classes, height, width = (int(number) for number in arrays["sizes"])
        return cls(arrays["values"], arrays["labels"], n_classes, (height, width))
