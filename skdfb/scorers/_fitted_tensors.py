"""Fitted arrays as tensors, on the device and in the type that a score is computed in."""

import weakref
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from skdfb.scorers._representation import tensor_view

__all__ = ["LARGEST_KEPT", "fitted_tensor"]

# Bytes. Larger arrays are not kept on a GPU, whose memory is for the batches.
LARGEST_KEPT = 2**28

# By the identity of the array: a weak reference to it, and its copies by device and dtype.
_COPIES: dict[int, tuple[weakref.ref[Any], dict[tuple[torch.device, torch.dtype], Tensor]]] = {}


def fitted_tensor(array: NDArray[Any], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Return a fitted floating-point array as a tensor; never write to it.

    On the CPU and in its own type, the tensor shares the memory of the array. Otherwise a copy is made once, and kept
    as long as the array. The array becomes read-only, so that the copy stays right; an array that it is a view of
    must not be written to either. To copy for each batch would take longer than to score it.

    Parameters
    ----------
    array : ndarray
        An attribute of a fitted scorer.
    device : torch.device
        Where it is needed.
    dtype : torch.dtype, default=None
        The type of the tensor; None is that of the array.

    Returns
    -------
    tensor : Tensor
        The same numbers.
    """
    own = tensor_view("array", array)
    key = (device, own.dtype if dtype is None else dtype)
    if key == (own.device, own.dtype):
        return own
    if array.nbytes > LARGEST_KEPT:
        return own.to(*key)
    copies = _copies_of(array)
    if key not in copies:
        with torch.inference_mode(False):  # a tensor of this mode could not be used outside of it
            copies[key] = own.to(*key)
    return copies[key]


def _copies_of(array: NDArray[Any]) -> dict[tuple[torch.device, torch.dtype], Tensor]:
    key = id(array)
    known = _COPIES.get(key)
    if known is None or known[0]() is not array or array.flags.writeable:
        known = weakref.ref(array, lambda _: _COPIES.pop(key, None)), {}
        _COPIES[key] = known
    # A change of the array would not reach its copies.
    array.flags.writeable = False
    return known[1]
