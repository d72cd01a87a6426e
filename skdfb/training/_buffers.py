"""The buffers of a network before a training step, so that a step that failed can be undone."""

from itertools import groupby

import torch
from torch import Tensor, nn

__all__ = ["KeptBuffers"]


class KeptBuffers:
    """Copies of the buffers that a forward pass in training changes.

    The memory is taken once, and all copies of a step are one operation per dtype: they must not slow down the steps
    that do not fail, which are nearly all.
    """

    def __init__(self, network: nn.Module) -> None:
        # A module in evaluation mode, such as one of a frozen trunk, changes none.
        buffers = [
            buffer for module in network.modules() if module.training for buffer in module.buffers(recurse=False)
        ]
        # A GPU copies only tensors of one dtype together.
        buffers.sort(key=_dtype_of)
        self._groups: list[tuple[list[Tensor], list[Tensor]]] = []
        for _, group in groupby(buffers, _dtype_of):
            present = list(group)
            self._groups.append((present, [torch.empty_like(buffer) for buffer in present]))

    @torch.no_grad()
    def keep(self) -> None:
        """Keep the present values."""
        for present, kept in self._groups:
            torch._foreach_copy_(kept, present)

    @torch.no_grad()
    def restore(self) -> None:
        """Set the buffers to the values that were kept."""
        for present, kept in self._groups:
            torch._foreach_copy_(present, kept)


def _dtype_of(tensor: Tensor) -> str:
    return str(tensor.dtype)
