"""Devices, torch's modes and train flags: found, set for a while, and put back."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

__all__ = [
    "available_device",
    "evaluation_mode",
    "launched_processes",
    "own_torch_modes",
    "pinned",
    "resolve_device",
    "upload",
]

_COPIED_ASIDE = 2**16  # bytes, says the description of CUDA's synchronisation


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the torch device for a parameter ``device``.

    Parameters
    ----------
    device : str or torch.device
        ``"auto"`` is the GPU if there is one, else the CPU.

    Returns
    -------
    device : torch.device
        A device that can be used.

    Raises
    ------
    ValueError
        If torch does not know the device, or this machine does not have it.
    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device={device!r} is not a device: expected 'auto', 'cpu', 'cuda' or 'cuda:1'.") from error
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={device!r} is not available: torch finds {torch.cuda.device_count()} CUDA devices; "
            "use device='auto' or 'cpu'."
        )
    # Other kinds of devices have no common way to count them; a small tensor shows whether one can be used.
    try:
        torch.empty(1, device=resolved)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"device={device!r} cannot be used on this machine; use device='auto' or 'cpu'.") from error
    return resolved


def available_device(device: str | torch.device) -> torch.device:
    """Return the torch device for ``device``; if this machine does not have it, that for ``"auto"``."""
    try:
        return resolve_device(device)
    except ValueError:
        return resolve_device("auto")


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


def launched_processes() -> int:
    """Return the number of processes that torchrun or ``fabric run`` launched to train together; 1 without them."""
    # WORLD_SIZE alone is not enough: another program may have set it.
    return int(os.environ["WORLD_SIZE"]) if torch.distributed.is_torchelastic_launched() else 1


@contextmanager
def own_torch_modes(*, gradients: bool = False) -> Iterator[None]:
    """Compute as if the caller had set no mode of torch for this thread; restore the caller's modes after the block.

    Autocast would compute in half precision, a default device would place tensors elsewhere, and in inference mode
    nothing can be trained. The default dtype and deterministic algorithms belong to all threads, so they are left as
    they are; nothing in this library may depend on them.

    Parameters
    ----------
    gradients : bool, default=False
        Whether gradients are recorded in the block.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(gradients))
        # Only what is on: each mode costs time.
        for kind in ("cpu", torch.accelerator.current_accelerator() or "cuda"):
            kind = kind if isinstance(kind, str) else kind.type
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Set ``module`` to evaluation mode in the block; restore the train flag of each submodule after it.

    If all submodules are in evaluation mode already, nothing is set, so that threads can share the module.
    """
    training = [part for part in module.modules() if part.training]
    if training:
        module.eval()  # the method, not the flags: some timm models drop values cached from older weights in it
    try:
        yield
    finally:
        # Flag by flag: train() would also set submodules that were in evaluation mode before.
        for part in training:
            part.training = True
