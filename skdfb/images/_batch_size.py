"""Batches that get smaller where the device's memory does not suffice for them."""

import gc
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch

from skdfb.exceptions import BatchSizeWarning
from skdfb.images._images import Indices

__all__ = ["BatchSize", "batch_size_of", "is_out_of_memory"]

Result = TypeVar("Result")

# torch has one class for CUDA and XPU; the other allocators, and libraries that allocate for themselves, only say so.
_SAID_BY_OTHERS = (
    "DefaultCPUAllocator: can't allocate memory",
    "MPS backend out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory for tensors ran out."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID_BY_OTHERS)


class BatchSize:
    """How many images are on the device at a time: as many as asked for, or half of them, or half of these.

    Parameters
    ----------
    size : int
        How many to begin with.

    Attributes
    ----------
    size : int
        How many by now.
    """

    def __init__(self, size: int) -> None:
        self.size = self._asked = size

    def batches(self, n_images: int) -> Iterator[Indices]:
        """Yield the indices 0..n-1 in order, as many at a time as are found to fit by then."""
        start = 0
        while start < n_images:
            stop = min(start + self.size, n_images)
            yield np.arange(start, stop)
            start = stop

    def pieces(self, n_images: int, process: Callable[[slice], Result]) -> Iterator[Result]:
        """Yield ``process(rows)`` for slices that make up all rows; one that does not fit comes again in halves.

        Raises
        ------
        Exception
            What ``process`` raises for other reasons, or for a single image.
        """
        start = 0
        while start < n_images:
            rows = slice(start, min(start + self.size, n_images))
            if (done := self.attempt(partial(process, rows), rows.stop - rows.start)) is None:
                continue
            yield done[0]
            start = rows.stop

    def attempt(self, work: Callable[[], Result], n_images: int) -> tuple[Result] | None:
        """Return the result in a tuple, or None, and a smaller size from now on, where so many images do not fit."""
        try:
            return (work(),)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if n_images == 1:
                error.add_note("This was a single image: lower image_size, or choose a smaller backbone.")
                raise
        # Only here, since the error holds all that was computed for it.
        self.size = max(1, min(self.size, n_images) // 2)
        gc.collect()
        torch.cuda.empty_cache()  # nothing where CUDA is not in use
        return None

    def warn_if_halved(
        self, what: str = "a forward pass", hint: str = "Pass less as batch_size to begin there."
    ) -> None:
        """Tell once of what was found, and take it as asked for from then on."""
        if self.size < self._asked:
            warnings.warn(
                f"{self._asked} images do not fit into the device's memory at once; {what} took {self.size} at a "
                f"time. {hint}",
                BatchSizeWarning,
                stacklevel=2,
            )
            self._asked = self.size


@contextmanager
def batch_size_of(estimator: Any) -> Generator[BatchSize]:
    """Give an estimator's batch size, and keep what is found of it in ``batch_size_``.

    It begins with what was found by then, unless another ``batch_size`` has been asked for since.
    """
    known = getattr(estimator, "_batch_size_asked_", None) == estimator.batch_size
    batch_size = BatchSize(estimator.batch_size_ if known else estimator.batch_size)
    try:
        yield batch_size
    finally:
        estimator.batch_size_, estimator._batch_size_asked_ = batch_size.size, estimator.batch_size
