"""Tensors from the CPU to a device."""

import torch
from torch import Tensor

__all__ = ["pinned", "upload"]

_COPIED_ASIDE = 2**16  # bytes, says the description of CUDA's synchronisation


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device, in the same dtype; on a GPU without waiting for the work that it has still to do.

    Parameters
    ----------
    tensor : Tensor
        On the CPU; it may change at once after the call.
    device : torch.device
        Where it goes.

    Returns
    -------
    uploaded : Tensor
        The same numbers there.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    # CUDA copies small tensors aside at once.
    return (pinned(tensor) if tensor.nbytes > _COPIED_ASIDE else tensor).to(device, non_blocking=True)


def pinned(tensor: Tensor) -> Tensor:
    """Return a tensor of the CPU in memory that a GPU reads by itself, because it is never swapped to the disk.

    torch keeps such memory for the next call, and gives it away again only after the copy to the GPU.

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
