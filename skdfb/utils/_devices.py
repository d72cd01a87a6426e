"""Devices, torch's modes and train flags: found, set for a while, and put back."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

import torch
from torch import nn

__all__ = [
    "available_device",
    "evaluation_mode",
    "is_compiled",
    "own_torch_modes",
    "resolve_device",
    "supports_float64",
]


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


@cache
def supports_float64(device: torch.device) -> bool:
    """Return whether a device computes in float64; Apple's GPUs do not."""
    try:
        torch.ones(1, dtype=torch.float64, device=device).add_(1)
    except torch.OutOfMemoryError:  # says nothing of the device, and the answer is kept
        raise
    except (RuntimeError, TypeError):
        return False
    return True


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


def is_compiled(module: nn.Module) -> bool:
    """Return whether ``torch.compile`` translates a module, without those inside of it."""
    # By name: importing torch._dynamo takes seconds.
    return type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None


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
