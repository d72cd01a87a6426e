"""The engine of a training: Lightning Fabric on one device, or on all that were launched together."""

import atexit
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators.accelerator import Accelerator
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.strategies.single_device import SingleDeviceStrategy

from skdfb.utils import launched_processes

__all__ = ["make_engine", "own_device", "without_advice"]

# Networks of these dtypes compute in the dtype of their weights; the setting `precision` is for float32 weights.
_TRUE_PRECISIONS = {torch.float64: "64-true", torch.bfloat16: "bf16-true", torch.float16: "16-true"}
# For others, such as XPU, Fabric has no accelerator of its own.
_KINDS_OF_FABRIC = {"cpu", "cuda", "mps"}


def make_engine(device: torch.device, precision: str, dtype: torch.dtype) -> Fabric:
    """Return a new engine, which shares nothing with other trainings in the same process.

    Under ``torchrun`` or ``fabric run`` the launched processes train together: each takes a share of every batch.

    Parameters
    ----------
    device : torch.device
        Any device that torch can use. Launched processes take one device each, of this kind.
    precision : {"32-true", "bf16-mixed", "16-mixed"}
        Precision of the computation for weights in float32.
    dtype : torch.dtype
        The dtype of the weights.

    Returns
    -------
    engine : Fabric
        Connected to the other processes, if there are any.
    """
    precision = _TRUE_PRECISIONS.get(dtype, precision)
    n_processes = launched_processes()
    if n_processes > 1:
        return _shared_engine(device, precision, n_processes)
    if device.type in _KINDS_OF_FABRIC:
        devices: Any = [device.index or 0] if device.type == "cuda" else 1
        devices = os.environ.get("LT_DEVICES", devices)  # also of one process that `fabric run` launched
        return Fabric(accelerator=device.type, devices=devices, precision=precision)  # type: ignore[arg-type]
    strategy = SingleDeviceStrategy(device, accelerator=_OneDevice())
    if precision.endswith("-mixed"):
        mixed = MixedPrecision(precision, device=device.type)  # type: ignore[arg-type]
        return Fabric(strategy=strategy, devices=1, plugins=[mixed])
    return Fabric(strategy=strategy, devices=1, precision=precision)  # type: ignore[arg-type]


def own_device(device: torch.device) -> torch.device:
    """Return the device of a launched process, of the kind of ``device``; the first call waits for all of them."""
    with without_advice():
        return make_engine(device, "32-true", torch.float32).device


def _shared_engine(device: torch.device, precision: str, n_processes: int) -> Fabric:
    n_local = int(os.environ["LOCAL_WORLD_SIZE"])
    # By default DDP expects a gradient for every weight. But weights without one are common, such as the last norm of a
    # backbone, which only the removed head would use.
    fabric = Fabric(
        accelerator=device.type,
        # Options of `fabric run` take precedence.
        strategy=os.environ.get("LT_STRATEGY", "ddp_find_unused_parameters_true"),
        devices=os.environ.get("LT_DEVICES", n_local),
        num_nodes=n_processes // n_local,
        precision=precision,  # type: ignore[arg-type]
    )
    # With `fabric run`, the constructor of Fabric has connected the processes already.
    if "LT_CLI_USED" not in os.environ:
        fabric.launch()
    _leave_at_exit()
    return fabric


@cache
def _leave_at_exit() -> None:
    """Disconnect this process before Python ends: the threads of gloo could abort it. Fabric does so for NCCL alone."""

    def leave() -> None:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    atexit.register(leave)


@contextmanager
def without_advice() -> Iterator[None]:
    """Keep Fabric, when it sets up a GPU, from advising to lower the precision of all products of the process."""
    log = logging.getLogger("lightning_fabric.utilities.rank_zero")

    def is_other(record: logging.LogRecord) -> bool:
        return "set_float32_matmul_precision" not in record.getMessage()

    log.addFilter(is_other)
    try:
        yield
    finally:
        log.removeFilter(is_other)


class _OneDevice(Accelerator):
    """A device of any kind. All that an accelerator must say, Fabric asks only for more than one device."""

    def setup_device(self, device: torch.device) -> None:
        """Do nothing: the device is ready."""

    def teardown(self) -> None:
        """Do nothing."""

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        """Return ``devices``."""
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        """Return no devices: the strategy has the one."""
        return []

    @staticmethod
    def auto_device_count() -> int:
        """Return 1."""
        return 1

    @staticmethod
    def is_available() -> bool:
        """Return True: ``resolve_device`` has tried it."""
        return True

    @staticmethod
    def name() -> str:
        """Return a name for logs."""
        return "one_device"
