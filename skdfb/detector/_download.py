"""Representations from the device to the CPU."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from skdfb.scorers import Representation

__all__ = ["Download"]


class Download:
    """Brings the views of batch after batch to the CPU, because a third-party scorer may be written in NumPy.

    Each copy waits until the device has finished all its work. So the features and logits of all views of a batch come
    in one copy, and the heads, which are the same in all batches, come once.
    """

    def __init__(self) -> None:
        self._heads: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(self, views: Mapping[str, Representation]) -> dict[str, Representation]:
        """Return the views of a batch on the CPU, in at least float32: NumPy has no bfloat16."""
        rows = _together([tensor for view in views.values() for tensor in (view.features, view.logits)])
        if not self._heads:
            heads = _together([tensor for view in views.values() for tensor in (view.weight, view.bias)])
            self._heads = {key: (heads[2 * i], heads[2 * i + 1]) for i, key in enumerate(views)}
        found = {}
        for i, (key, view) in enumerate(views.items()):
            weight, bias = self._heads[key]
            # One by one: maps and layers are large, and joining them would take their memory again.
            activations = view.activations and {name: _wide(map_).cpu() for name, map_ in view.activations.items()}
            found[key] = replace(
                view,
                features=rows[2 * i],
                logits=rows[2 * i + 1],
                weight=weight,
                bias=bias,
                activations=activations,
            )
        return found


def _together(tensors: list[Tensor]) -> list[Tensor]:
    """Return tensors on the CPU after one copy."""
    wide = [_wide(tensor) for tensor in tensors]
    if all(tensor.device.type == "cpu" for tensor in wide):
        return wide
    flat = torch.cat([tensor.flatten() for tensor in wide]).cpu()
    parts = torch.split(flat, [tensor.numel() for tensor in wide])
    return [part.view(tensor.shape) for part, tensor in zip(parts, wide, strict=True)]


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
