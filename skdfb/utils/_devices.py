"""Devices, random states and train flags: found, set for a while, and put back."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import nn

__all__ = [
    "available_device",
    "deterministic_algorithms",
    "evaluation_mode",
    "isolated_rng",
    "launched_processes",
    "resolve_device",
    "spawn_seeds",
]


_CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
# The switches are the process's: of several threads that want them, the first sets them and the last puts them back.
_deterministic_lock = threading.Lock()
_deterministic_users: list[None] = []
_deterministic_before: dict[str, Any] = {}


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the torch device for ``device``; ``"auto"`` is the GPU where there is one, else the CPU.

    Raises
    ------
    ValueError
        If the device is unknown to torch, or one that this machine does not have.
    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device={device!r} is no device; use 'auto', 'cpu', 'cuda' or 'cuda:1'.") from error
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={device!r} was asked for, but torch sees {torch.cuda.device_count()} CUDA devices; "
            "use device='auto' or 'cpu'."
        )
    try:
        torch.empty(1, device=resolved)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"device={device!r} cannot be used on this machine; use device='auto' or 'cpu'.") from error
    return resolved


def available_device(device: str | torch.device) -> torch.device:
    """Return the torch device for ``device``, or the best that there is where this machine does not have it."""
    try:
        return resolve_device(device)
    except ValueError:
        return resolve_device("auto")


def launched_processes() -> int:
    """Return how many processes torchrun or ``fabric run`` has launched to train together; 1 without them."""
    return int(os.environ["WORLD_SIZE"]) if torch.distributed.is_torchelastic_launched() else 1


def spawn_seeds(random_state: int | np.random.RandomState | None, n_seeds: int) -> list[int]:
    """Draw ``n_seeds`` independent seeds, one for each random part of a computation."""
    return [int(seed) for seed in check_random_state(random_state).randint(2**31 - 1, size=n_seeds)]


@contextmanager
def isolated_rng(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators of the CPU and of ``device`` inside the block and put their states back after it."""
    cuda = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch every GPU
        for index in cuda:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Have torch take algorithms that give the same bits each time inside the block, where ``wanted``.

    It raises a ``RuntimeError`` for an operation that has none.
    """
    if not wanted:
        yield
        return
    with _deterministic_lock:
        _deterministic_users.append(None)
        if len(_deterministic_users) == 1:
            _deterministic_before.update(_set_deterministic())
    try:
        yield
    finally:
        with _deterministic_lock:
            _deterministic_users.pop()
            if not _deterministic_users:
                _restore(**_deterministic_before)


def _set_deterministic() -> dict[str, Any]:
    """Set all switches, and return how they stood."""
    before = {
        "enabled": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
        "workspace": os.environ.get(_CUBLAS_WORKSPACE),
    }
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False  # which would choose by the clock
    os.environ.setdefault(_CUBLAS_WORKSPACE, ":4096:8")  # torch asks for it
    return before


def _restore(enabled: bool, warn_only: bool, benchmark: bool, workspace: str | None) -> None:
    torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
    torch.backends.cudnn.benchmark = benchmark
    if workspace is None:
        os.environ.pop(_CUBLAS_WORKSPACE, None)


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Set ``module`` to evaluation inside the block and give each submodule its own train flag back.

    A module that is all in evaluation already is not touched, so that threads can share it.
    """
    training = [part for part in module.modules() if part.training]
    if training:
        module.eval()  # by the method: some timm families drop values cached from older weights there
    try:
        yield
    finally:
        for part in training:
            part.training = True
