"""Masks of a training set in little memory."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from skdfb.utils._arrays import temporary_array
from skdfb.utils._processes import Share

__all__ = ["PackedMasks"]

_BATCH = 256  # masks that are packed at a time, so that temporary arrays stay small


@dataclass(frozen=True, eq=False)
class PackedMasks:
    """Masks of integers, of shape (n, H, W), that take one bit per pixel.

    A mask of one class holds two values: that class on the foreground, and K on the background. So a bit per pixel and
    a class per image are enough. If any mask has several classes, or other values, all masks are kept as they are, in
    the smallest integer type that holds them. Indexing is that of the array, and returns new arrays.

    More than a GiB of bits is in a temporary file that is mapped to memory.

    Make one by :meth:`pack`, :meth:`from_batches` or :meth:`from_tensors`.

    Attributes
    ----------
    shape : tuple of (int, int, int)
        n, H and W.
    dtype : dtype
        The type of the masks that indexing returns.
    nbytes : int
        Size in memory.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.utils import PackedMasks
    >>> masks = np.full((100, 32, 32), 5)
    >>> masks[:, 8:24, 8:24] = 2
    >>> packed = PackedMasks.pack(masks, n_classes=5)
    >>> packed.nbytes, masks.nbytes
    (12900, 819200)
    >>> bool((packed[[7, 3]] == masks[[7, 3]]).all())
    True
    """

    shape: tuple[int, int, int]
    # Bits (n, ceil(H * W / 8)) of the foreground; or masks (n, H, W), if there are no classes.
    _values: npt.NDArray[Any]
    _classes: npt.NDArray[Any] | None  # (n,)
    _background: int

    def __post_init__(self) -> None:
        # Read-only: a mask that is changed while a network trains would go unnoticed.
        for name in ("_values", "_classes"):
            if (array := getattr(self, name)) is not None:
                view = array.view()  # the caller's own array stays as it is
                view.setflags(write=False)
                object.__setattr__(self, name, view)

    @classmethod
    def pack(cls, masks: npt.ArrayLike, n_classes: int) -> Self:
        """Pack an array of masks, (n, H, W) of integers, of which ``n_classes``, K, is the background."""
        # In batches, since packing needs several temporary arrays of the size of the masks.
        array = np.asarray(masks)
        starts = range(0, max(1, len(array)), _BATCH)
        rows = (np.arange(start, min(start + _BATCH, len(array))) for start in starts)
        return cls.from_batches(((indices, array[indices]) for indices in rows), len(array), n_classes)

    @classmethod
    def from_batches(
        cls,
        batches: Iterable[tuple[npt.NDArray[np.intp], npt.NDArray[Any]]],
        n_images: int,
        n_classes: int,
        share: Share | None = None,
    ) -> Self:
        """Pack masks that come in batches: indices (b,) and masks (b, H, W), which together are all images.

        With a share, the batches are only the rows of this process; the other processes send theirs.

        Raises
        ------
        ValueError
            If there is no batch.
        """
        shape = bits = dense = None
        classes = np.zeros(n_images, dtype=np.min_scalar_type(n_classes))
        for indices, masks in batches:
            # Only the first batch tells the size of the masks.
            n_pixels = math.prod(masks.shape[1:])
            if shape is None or bits is None:
                shape = (n_images, *masks.shape[1:])
                bits = temporary_array((n_images, math.ceil(n_pixels / 8)), np.uint8)
            if dense is None and (found := _classes_of(masks, n_classes)) is not None:
                bits[indices] = np.packbits((masks != n_classes).reshape(len(masks), n_pixels), axis=1)
                classes[indices] = found
                continue
            # The first mask that bits cannot hold: unpack those before it.
            if dense is None:
                dense = cls(shape, bits, classes, n_classes)[:]
            # The smallest integer type for the values so far: it may grow with each batch.
            lowest, highest = (np.min_scalar_type(int(value)) for value in (masks.min(), masks.max()))
            dense = dense.astype(np.result_type(dense, lowest, highest), copy=False)
            dense[indices] = masks
        if shape is None or bits is None:
            raise ValueError("batches is empty: expected at least one batch of masks.")
        share = share or Share.whole(n_images)
        # Bits are enough if no process has masks that they cannot hold.
        dtypes = [dtype for dtype in share.gather(None if dense is None else dense.dtype) if dtype is not None]
        if not dtypes:
            share.complete(bits)
            share.complete(classes)
            return cls(shape, bits, classes, n_classes)
        dense = cls(shape, bits, classes, n_classes)[:] if dense is None else dense
        dense = dense.astype(np.result_type(dense, *dtypes), copy=False)
        share.complete(dense)
        return cls(shape, dense, None, n_classes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the masks that indexing returns."""
        return (self._values if self._classes is None else self._classes).dtype

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return self._values.nbytes + (0 if self._classes is None else self._classes.nbytes)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: Any) -> npt.NDArray[Any]:
        """Return the masks at one or more indices, (b, H, W)."""
        if self._classes is None:
            return np.array(self._values[indices])
        bits = np.unpackbits(self._values[indices], axis=-1, count=math.prod(self.shape[1:]))  # (b, H * W)
        foreground = bits.view(bool).reshape(*bits.shape[:-1], *self.shape[1:])
        classes = self._classes[indices][..., None, None]  # (b, 1, 1)
        masks: npt.NDArray[Any] = np.where(foreground, classes, self.dtype.type(self._background))
        return masks

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return all masks as an array."""
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)

    def tensors(self) -> dict[str, Tensor]:
        """Return tensors by name, for a file; :meth:`from_tensors` makes the masks of them again.

        They have the memory of the masks, since a copy of those of ImageNet would take gigabytes. Do not change them.
        """
        if self._classes is None:
            return {"masks": _tensor(self._values)}
        # Height, width and background as a tensor, because the file holds nothing but tensors.
        layout = torch.tensor([*self.shape[1:], self._background])
        return {"bits": _tensor(self._values), "classes": _tensor(self._classes), "layout": layout}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Return the masks of which :meth:`tensors` made these tensors."""
        if "masks" in tensors:
            masks = tensors["masks"].numpy()
            return cls((len(masks), *masks.shape[1:]), masks, None, 0)
        height, width, background = tensors["layout"].tolist()
        bits, classes = (tensors[name].numpy() for name in ("bits", "classes"))
        return cls((len(bits), height, width), bits, classes, background)


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    """Return a tensor of the memory of a read-only array; of a copy, if its memory is that of a tensor already."""
    writable = array.view()
    try:
        writable.setflags(write=True)  # PyTorch warns of tensors of read-only memory
    except ValueError:  # NumPy cannot tell whether the memory of a tensor may be written to
        return torch.tensor(array)
    return torch.from_numpy(writable)


def _classes_of(masks: npt.NDArray[Any], n_classes: int) -> npt.NDArray[Any] | None:
    """Return the class of each mask, 0 where all is background; None if a mask has several classes or other values."""
    # The largest foreground value is the class of the mask, if all others are equal to it.
    foreground = masks != n_classes
    classes: npt.NDArray[Any] = np.where(foreground, masks, 0).max((1, 2), initial=0)
    holds_others = foreground & (masks != classes[:, None, None])
    return None if holds_others.any() or (classes > n_classes).any() else classes
