"""Batches that become smaller if they do not fit into the device's memory."""

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

# torch has an error class for CUDA and XPU. Other allocators, and libraries with their own, raise a RuntimeError.
_MESSAGES = (
    "DefaultCPUAllocator: can't allocate memory",
    "MPS backend out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that there was not enough memory for a tensor."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    # Not MemoryError, which Python raises for its own objects: a smaller batch would hardly help.
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _MESSAGES)


class BatchSize:
    """The number of images that are on the device at a time; it is halved each time that a batch does not fit.

    Parameters
    ----------
    size : int
        The number to start with.

    Attributes
    ----------
    size : int
        The current number.
    """

    def __init__(self, size: int) -> None:
        self.size = self._requested = size

    def batches(self, n_images: int, first: int | None = None) -> Iterator[Indices]:
        """Yield the indices 0..n-1 in order, in batches of the size at that time; the first may have another size."""
        start = 0
        while start < n_images:
            # Read anew for each batch: the caller may have halved the size since the last one.
            stop = min(start + (first if first and start == 0 else self.size), n_images)
            yield np.arange(start, stop)
            start = stop

    def pieces(self, n_images: int, process: Callable[[slice], Result]) -> Iterator[Result]:
        """Process rows in slices; a slice that does not fit is processed again in halves.

        Parameters
        ----------
        n_images : int
            The number of rows.
        process : callable
            Takes a slice of rows.

        Yields
        ------
        result : object
            ``process(rows)`` for consecutive slices that cover all rows.

        Raises
        ------
        Exception
            Any other error of ``process``, and running out of memory for a single image.
        """
        start = 0
        while start < n_images:
            rows = slice(start, min(start + self.size, n_images))
            if (done := self.attempt(partial(process, rows), rows.stop - rows.start)) is None:
                continue  # the same rows again, with the smaller size
            yield done[0]
            start = rows.stop

    def attempt(self, work: Callable[[], Result], n_images: int) -> tuple[Result] | None:
        """Return the result of ``work`` in a tuple, or None if ``n_images`` do not fit; then the size is halved."""
        try:
            return (work(),)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if n_images == 1:  # it cannot be halved
                error.add_note("This was a single image: lower image_size, or choose a smaller backbone.")
                raise
        # Not inside the except block: there, the error's traceback still holds the tensors.
        self.size = max(1, min(self.size, n_images) // 2)
        gc.collect()
        torch.cuda.empty_cache()  # does nothing if CUDA is not in use
        return None

    def warn_if_halved(
        self, what: str = "a forward pass", hint: str = "Lower batch_size to start with that number."
    ) -> None:
        """Warn if the size was halved since the last warning."""
        if self.size < self._requested:
            warnings.warn(
                f"{self._requested} images do not fit into the device's memory at once; {what} took {self.size} at a "
                f"time. {hint}",
                BatchSizeWarning,
                stacklevel=2,
            )
            # The next warning is due when this size does not fit either.
            self._requested = self.size


@contextmanager
def batch_size_of(estimator: Any) -> Generator[BatchSize]:
    """Yield an estimator's batch size, and keep the size at the end in ``batch_size_``.

    It starts with the size that was kept, unless the parameter ``batch_size`` was changed since.
    """
    # A batch that does not fit costs a failed forward pass, so later calls start with the size that fitted.
    known = getattr(estimator, "_batch_size_asked_", None) == estimator.batch_size
    batch_size = BatchSize(estimator.batch_size_ if known else estimator.batch_size)
    try:
        yield batch_size
    finally:
        estimator.batch_size_, estimator._batch_size_asked_ = batch_size.size, estimator.batch_size
