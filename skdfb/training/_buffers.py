"""The buffers of a network before a training step, so that a step that failed can be undone."""

import torch
from torch import Tensor, nn

__all__ = ["KeptBuffers"]


class KeptBuffers:
    """Copies of the buffers that a forward pass in training changes.

    The memory is taken once, and all copies of a step are one operation: they must not slow down the steps that do not
    fail, which are nearly all.
    """

    def __init__(self, network: nn.Module) -> None:
        # A module in evaluation mode, such as one of a frozen trunk, changes none.
        self._buffers: list[Tensor] = [
            buffer for module in network.modules() if module.training for buffer in module.buffers(recurse=False)
        ]
        self._kept = [torch.empty_like(buffer) for buffer in self._buffers]

    @torch.no_grad()
    def keep(self) -> None:
        """Keep the present values."""
        if self._buffers:
            torch._foreach_copy_(self._kept, self._buffers)

    @torch.no_grad()
    def restore(self) -> None:
        """Set the buffers to the values that were kept."""
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._kept)
