"""Arrays that may be larger than the memory."""

import math
import tempfile

import numpy as np
import numpy.typing as npt

__all__ = ["MEMORY_BUDGET", "temporary_array"]

MEMORY_BUDGET = 2**30  # bytes that an array may take before it goes to a file


def temporary_array(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[np.generic]:
    """Return an array of zeros; one of more than a GiB is mapped to a file that is deleted with it.

    The system writes pages of such an array to the file when it needs their memory.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array.
    dtype : dtype
        Type of its numbers.

    Returns
    -------
    array : ndarray
        In memory or mapped.
    """
    if math.prod(shape) * np.dtype(dtype).itemsize <= MEMORY_BUDGET:
        return np.zeros(shape, dtype)
    # The file has no name, so no later clean-up is needed, also if the process is killed.
    with tempfile.TemporaryFile(prefix="skdfb-") as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
