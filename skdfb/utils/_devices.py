"""Devices, random states and train flags: found, set for a while, and put back."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import nn

__all__ = [
    "available_device",
    "evaluation_mode",
    "isolated_rng",
    "launched_processes",
    "resolve_device",
    "spawn_seeds",
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


def launched_processes() -> int:
    """Return the number of processes that torchrun or ``fabric run`` launched to train together; 1 without them."""
    # WORLD_SIZE alone is not enough: another program may have set it.
    return int(os.environ["WORLD_SIZE"]) if torch.distributed.is_torchelastic_launched() else 1


def spawn_seeds(random_state: int | np.random.RandomState | None, n_seeds: int) -> list[int]:
    """Draw independent seeds, one for each random part of a computation.

    Parameters
    ----------
    random_state : int, RandomState or None
        As in scikit-learn. A RandomState moves on.
    n_seeds : int
        How many.

    Returns
    -------
    seeds : list of int
        Seeds in 0..2**31 - 2.
    """
    return [int(seed) for seed in check_random_state(random_state).randint(2**31 - 1, size=n_seeds)]


@contextmanager
def isolated_rng(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators of the CPU and of ``device`` in the block; restore their states after it."""
    cuda = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    # fork_rng restores the states, of no more GPUs than needed: each costs a transfer.
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU
        for index in cuda:
            torch.cuda.default_generators[index].manual_seed(seed)
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
