"""What launched processes have in common in ``fit``: the same seeds, and one pass over the images for all of them."""

import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

__all__ = [
    "Share",
    "agreed",
    "gathered",
    "is_first_process",
    "launched_processes",
    "own_work",
    "share_of",
    "shared_work",
    "take_weights",
]

Value = TypeVar("Value")

_PIECE = 2**26  # bytes that are sent at a time, since a GPU may have no room for an array of all images

_is_shared: ContextVar[bool] = ContextVar("skdfb_shared_work", default=False)
_sharing_thread = threading.Lock()


def launched_processes() -> int:
    """Return the number of processes that torchrun or ``fabric run`` launched to train together; 1 without them."""
    # WORLD_SIZE alone is not enough: another program may have set it.
    if not (torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()):
        return 1
    # Workers of joblib inherit the variables of the process that was launched.
    return 1 if multiprocessing.current_process().name.startswith("Loky") else int(os.environ["WORLD_SIZE"])


def is_first_process() -> bool:
    """Return whether this process is the only one, or the first of those that were launched together."""
    # RANK is set by torchrun and by `fabric run`.
    return launched_processes() == 1 or os.environ.get("RANK", "0") == "0"


@contextmanager
def shared_work() -> Iterator[None]:
    """Let launched processes share the passes over the images in the block.

    All of them must run the block, with the same images in the same order. Outside of it each process works for itself:
    a script may score images in one process alone.

    Raises
    ------
    RuntimeError
        If another thread of this process is in such a block.
    """
    if launched_processes() == 1 or _is_shared.get():
        yield
        return
    # What processes send must come in the same order in all of them. Threads have no order.
    if not _sharing_thread.acquire(blocking=False):
        raise RuntimeError("fit runs in several threads of a launched process: expected one fit at a time.")
    token = _is_shared.set(True)
    try:
        yield
    finally:
        _is_shared.reset(token)
        _sharing_thread.release()


@contextmanager
def own_work() -> Iterator[None]:
    """Let each process work for itself in the block, also inside of :func:`shared_work`."""
    token = _is_shared.set(False)
    try:
        yield
    finally:
        _is_shared.reset(token)


def gathered(value: Value) -> list[Value]:
    """Return the values of all processes of :func:`shared_work`."""
    if not _is_shared.get():
        return [value]
    values: list[Any] = [None] * launched_processes()
    torch.distributed.all_gather_object(values, value)
    return values


def take_weights(network: nn.Module) -> None:
    """Give a network the weights that it has in the first process of :func:`shared_work`."""
    if not _is_shared.get():
        return
    for tensor in network.state_dict().values():
        sent = tensor.detach().contiguous().to(_sending_device(), copy=True)
        torch.distributed.broadcast(sent, src=0)
        tensor.copy_(sent)


def agreed(value: Value) -> Value:
    """Return the value of the first process in all processes of :func:`shared_work`."""
    if not _is_shared.get():
        return value
    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


@dataclass(frozen=True)
class Share:
    """The rows of an array of all images that this process computes.

    Attributes
    ----------
    bounds : tuple of int
        The first row of each process, and the number of rows.
    rank : int
        The place of this process.
    """

    bounds: tuple[int, ...]
    rank: int

    @classmethod
    def whole(cls, n_rows: int) -> Self:
        """Return the share of a process that computes all rows."""
        return cls((0, n_rows), 0)

    @property
    def is_whole(self) -> bool:
        """Whether it is all rows."""
        return len(self.bounds) == 2

    @property
    def rows(self) -> npt.NDArray[np.intp]:
        """The indices of the rows."""
        return np.arange(self.bounds[self.rank], self.bounds[self.rank + 1])

    def complete(self, array: npt.NDArray[Any]) -> None:
        """Fill in the rows that other processes have computed."""
        if self.is_whole:
            return
        device = _sending_device()
        n_at_once = max(1, _PIECE // max(1, array[:1].nbytes))
        for rank, (first, last) in enumerate(pairwise(self.bounds)):
            for start in range(first, last, n_at_once):
                # As bytes, which can be sent whatever the type of the numbers is.
                rows = torch.from_numpy(array[start : min(start + n_at_once, last)].view(np.uint8))
                sent = rows.to(device)
                torch.distributed.broadcast(sent, src=rank)
                if rank != self.rank:
                    rows.copy_(sent)

    def gather(self, value: Value) -> list[Value]:
        """Return the value of each process."""
        return [value] if self.is_whole else gathered(value)


def _sending_device() -> torch.device:
    """Return the device that processes send from. NCCL sends only what is on a GPU; gloo sends from the CPU."""
    accelerator = torch.accelerator.current_accelerator()
    if torch.distributed.get_backend() == "gloo" or accelerator is None:
        return torch.device("cpu")
    return torch.device(accelerator.type, torch.accelerator.current_device_index())


def share_of(n_rows: int) -> Share:
    """Return the rows of ``n_rows`` that this process computes: all of them outside of :func:`shared_work`."""
    n_processes = launched_processes() if _is_shared.get() else 1
    # A process without any row would not know the shape of an array.
    if n_rows < n_processes or n_processes == 1:
        return Share.whole(n_rows)
    bounds = np.linspace(0, n_rows, n_processes + 1).astype(int).tolist()
    return Share(tuple(bounds), torch.distributed.get_rank())
