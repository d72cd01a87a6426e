"""Representations from the device to the CPU."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from skdfb.scorers import Representation

__all__ = ["Download", "one_behind"]

Item = TypeVar("Item")


class Download:
    """Brings the views of batch after batch to the CPU, because a third-party scorer may be written in NumPy.

    Each copy comes after all work that the device got before it. So the features and logits of all views of a batch
    come in one copy, and the heads, which are the same in all batches, come once.
    """

    def __init__(self) -> None:
        self._heads: dict[str, tuple[Tensor, Tensor]] = {}

    def start(self, views: Mapping[str, Representation]) -> Callable[[], dict[str, Representation]]:
        """Start the copies of a batch; a GPU makes them while the CPU goes on.

        Parameters
        ----------
        views : mapping of str to Representation
            On the device.

        Returns
        -------
        finish : callable
            Waits for the copies, and returns the views on the CPU, in at least float32: NumPy has no bfloat16.
        """
        rows = _together([tensor for view in views.values() for tensor in (view.features, view.logits)])
        if not self._heads:
            heads = _together([tensor for view in views.values() for tensor in (view.weight, view.bias)])
            self._heads = {key: (heads[2 * i], heads[2 * i + 1]) for i, key in enumerate(views)}
        # One by one: maps and layers are large, and joining them would take their memory again.
        activations = [
            view.activations and {name: _to_cpu(_wide(map_)) for name, map_ in view.activations.items()}
            for view in views.values()
        ]
        device = next(iter(views.values())).device
        copied = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None

        def finish() -> dict[str, Representation]:
            if copied is not None:
                copied.synchronize()
            found = {}
            for i, (key, view) in enumerate(views.items()):
                weight, bias = self._heads[key]
                found[key] = replace(
                    view,
                    features=rows[2 * i],
                    logits=rows[2 * i + 1],
                    weight=weight,
                    bias=bias,
                    activations=activations[i],
                )
            return found

        return finish


def one_behind(items: Iterable[Item]) -> Iterator[Item]:
    """Yield each item after the next one has been made: a GPU computes that one while the caller uses this one."""
    waiting: list[Item] = []
    for item in items:
        waiting.append(item)
        if len(waiting) == 2:
            yield waiting.pop(0)
    yield from waiting


def _together(tensors: list[Tensor]) -> list[Tensor]:
    """Return tensors on the CPU after one copy."""
    wide = [_wide(tensor) for tensor in tensors]
    if all(tensor.device.type == "cpu" for tensor in wide):
        return wide
    flat = _to_cpu(torch.cat([tensor.flatten() for tensor in wide]))
    parts = torch.split(flat, [tensor.numel() for tensor in wide])
    return [part.view(tensor.shape) for part, tensor in zip(parts, wide, strict=True)]


def _to_cpu(tensor: Tensor) -> Tensor:
    # Other devices than CUDA's have no event here that tells when the copy is done.
    return tensor.to("cpu", non_blocking=tensor.device.type == "cuda")


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
