"""The buffers of a network before a training step, so that a step that failed can be undone."""

import torch
from torch import Tensor, nn

__all__ = ["KeptBuffers"]


class KeptBuffers:
    """Copies of the buffers that a forward pass in training changes.

    The memory is taken once, and all copies of a step are one operation per dtype: they must not slow down the steps
    that do not fail, which are nearly all.
    """

    def __init__(self, network: nn.Module) -> None:
        by_dtype: dict[torch.dtype, list[Tensor]] = {}  # a GPU copies only tensors of one dtype together
        # A module in evaluation mode, such as one of a frozen trunk, changes none.
        for module in filter(lambda module: module.training, network.modules()):
            for buffer in module.buffers(recurse=False):
                by_dtype.setdefault(buffer.dtype, []).append(buffer)
        self._groups = [(present, [torch.empty_like(buffer) for buffer in present]) for present in by_dtype.values()]

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
