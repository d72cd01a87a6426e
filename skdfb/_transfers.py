"""Copies of tensors between the CPU and a GPU. Neither waits for the other."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["Download", "one_behind", "pinned", "start_download", "upload"]

Item = TypeVar("Item")

_COPIED_ASIDE = 2**16  # bytes; up to this size, CUDA has copied ordinary memory when the call returns
_LARGE = 2**22  # bytes


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device, in the same dtype. On a GPU, the call does not wait for earlier work.

    Parameters
    ----------
    tensor : Tensor
        On the CPU; it may change at once after the call, unless it is pinned.
    device : torch.device
        Where it goes.

    Returns
    -------
    uploaded : Tensor
        The same numbers there.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    if tensor.nbytes <= _COPIED_ASIDE:  # CUDA copies it aside at once
        return tensor.to(device, non_blocking=True)
    # Large copies have a stream of their own: they run while the GPU computes the last batch.
    copies, current = _stream_for_copies(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(copies):
        uploaded = pinned(tensor).to(device, non_blocking=True)
    current.wait_stream(copies)
    # Its memory is not given to another copy before the work of the current stream is done.
    uploaded.record_stream(current)
    return uploaded


@cache
def _stream_for_copies(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def pinned(tensor: Tensor) -> Tensor:
    """Return a tensor of the CPU in memory that a GPU reads by itself, because it is never swapped to the disk.

    torch keeps such memory, and reuses it only after the copy to the GPU.

    Parameters
    ----------
    tensor : Tensor
        On the CPU.

    Returns
    -------
    pinned : Tensor
        The same numbers.
    """
    # Channels that share their memory, as those of a grey image, cannot be pinned as they are.
    return (tensor.contiguous() if 0 in tensor.stride() else tensor).pin_memory()


class Download:
    """Copies the results of a batch to the CPU. Small tensors of a dtype share one copy.

    Each copy waits for all work that the device got before it, so many small ones would cost time. A GPU makes the
    copies while the CPU goes on.

    Examples
    --------
    >>> import torch
    >>> from skdfb._transfers import Download
    >>> download = Download()
    >>> sums, largest = download.add(torch.ones(3).sum()), download.add(torch.arange(4).max())
    >>> download.send()
    >>> sums(), largest()
    (tensor(3.), tensor(3))
    """

    def __init__(self) -> None:
        self._asked: list[Tensor] = []
        self._found: list[Tensor] = []
        self._copied: torch.cuda.Event | None = None

    def add(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Ask for a tensor.

        Parameters
        ----------
        tensor : Tensor
            On the device.

        Returns
        -------
        finish : callable
            Call it after :meth:`send`. It waits for the copy and returns it. Floating-point numbers have at least 32
            bits, since NumPy has no bfloat16.
        """
        wide = tensor.is_floating_point()
        self._asked.append(tensor.to(torch.promote_types(tensor.dtype, torch.float32)) if wide else tensor)
        place = len(self._asked) - 1

        def finish() -> Tensor:
            if self._copied is not None:
                self._copied.synchronize()
            return self._found[place]

        return finish

    def send(self) -> None:
        """Start the copies of all that was asked for."""
        gpu = next((tensor.device for tensor in self._asked if tensor.device.type == "cuda"), None)
        self._found, self._asked = _copied(self._asked), []
        if gpu is not None:
            self._copied = torch.cuda.current_stream(gpu).record_event()


def one_behind(items: Iterable[Item], device: torch.device) -> Iterator[Item]:
    """Yield each item after the next one has been made: a GPU computes that one while the caller uses this one.

    On a CPU, each item is made when it is asked for.
    """
    if device.type != "cuda":
        yield from items
        return
    waiting: list[Item] = []
    for item in items:
        waiting.append(item)
        if len(waiting) == 2:
            yield waiting.pop(0)
    yield from waiting


def start_download(tensor: Tensor) -> Callable[[], Tensor]:
    """Start the copy of a single tensor to the CPU, and return a function that waits for it and returns it."""
    download = Download()
    finish = download.add(tensor)
    download.send()
    return finish


def _copied(tensors: list[Tensor]) -> list[Tensor]:
    """Return tensors on the CPU, after one copy for all small ones of a dtype."""
    if all(_is_on_cpu(tensor) for tensor in tensors):
        return tensors
    together: dict[torch.dtype, list[int]] = {}
    found = list(tensors)
    for place, tensor in enumerate(tensors):
        # Joining large ones would take their memory again.
        if tensor.nbytes < _LARGE:
            together.setdefault(tensor.dtype, []).append(place)
        else:
            found[place] = _to_cpu(tensor)
    for places in together.values():
        for place, copy in zip(places, _joined_copy([tensors[place] for place in places]), strict=True):
            found[place] = copy
    return found


def _is_on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def _joined_copy(tensors: list[Tensor]) -> list[Tensor]:
    flat = _to_cpu(torch.cat([tensor.flatten() for tensor in tensors]))
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def _to_cpu(tensor: Tensor) -> Tensor:
    # Other devices than CUDA's have no event here that tells when the copy is done.
    return tensor.to("cpu", non_blocking=tensor.device.type == "cuda")
