"""The state of a training on disk, so that an interrupted training can go on from there."""

import json
import os
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skdfb.augmentation import AttentionBank
from skdfb.exceptions import CheckpointError, CheckpointWarning, InvalidModelError
from skdfb.images import BatchSize
from skdfb.utils import launched_processes, read_file, write_file

__all__ = ["Checkpoints", "StageCheckpoints", "TrainingState"]

_KEPT = 2  # unfinished states of a stage: the older one is used if the newest is damaged
_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Checkpoints:
    """A folder with the progress of one ``fit``: finished stages, and the newest states of the present stage.

    ``fingerprint`` describes data, parameters and versions of a ``fit`` by name; the folder of another ``fit`` is
    refused. Each file holds a digest of itself, so that damaged files are never used. If several processes train
    together, all of them read, and only the first one writes and removes.
    """

    folder: Path
    fingerprint: Mapping[str, str]

    def prepare(self) -> None:
        """Create the folder and try to write to it, before any training.

        Raises
        ------
        CheckpointError
            If nothing can be written there.
        ValueError
            If it holds the files of another ``fit``.
        """
        # A unique name: with a shared one, processes that try at the same time would remove each other's file.
        trial = self.folder / f".trial-{uuid.uuid4().hex}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_file(trial, "", {"zeros": torch.zeros(1024)})
            trial.unlink()
        except Exception as error:
            raise CheckpointError(
                f"checkpoint_dir={str(self.folder)!r} cannot be written to ({error}): expected a folder with free "
                "space and write permission; free some space, or give another folder."
            ) from error
        # Reading compares the fingerprints.
        for path in self._files():
            self._read(path)

    def get(self, name: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return what was kept under a name; None if it is absent or damaged."""
        return self._read(self.folder / f"{name}{_SUFFIX}")

    def put(self, name: str, notes: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bool:
        """Write notes and tensors under a name, and return whether they were written.

        If they cannot be written, there is a :class:`~skdfb.exceptions.CheckpointWarning` and no error: the training
        goes on.
        """
        if not _is_first_process():
            return False
        text = json.dumps({"fingerprint": dict(self.fingerprint), "notes": dict(notes)})
        try:
            write_file(self.folder / f"{name}{_SUFFIX}", text, tensors)
        except Exception as error:
            # A full disk must not end the training.
            warnings.warn(
                f"the checkpoint {name!r} cannot be written to {str(self.folder)!r} ({error}). The training goes on "
                "without it and will try to write the next one; free some space.",
                CheckpointWarning,
                stacklevel=2,
            )
            return False
        return True

    def remove(self, *names: str) -> None:
        """Remove what was kept under these names; absent names are ignored."""
        for name in names if _is_first_process() else ():
            (self.folder / f"{name}{_SUFFIX}").unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Return the names of everything that is kept, sorted."""
        return [path.name.removesuffix(_SUFFIX) for path in self._files()]

    def stage(self, name: str) -> "StageCheckpoints":
        """Return the checkpoints of one stage."""
        return StageCheckpoints(self, name)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{_SUFFIX}"))

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return notes and tensors of a file; None if it is absent or damaged."""
        try:
            text, tensors = read_file(path)
        # Another process may remove a file between listing and reading.
        except (InvalidModelError, FileNotFoundError):
            return None
        document = json.loads(text)
        self._check_same(document["fingerprint"])
        return document["notes"], tensors

    def _check_same(self, other: Mapping[str, str]) -> None:
        """Refuse a fingerprint that differs; the message names each difference."""
        names = sorted(set(other) | set(self.fingerprint))
        changed = [
            f"{name} was {other.get(name, 'absent')} and is {self.fingerprint.get(name, 'absent')}"
            for name in names
            if other.get(name) != self.fingerprint.get(name)
        ]
        if changed:
            raise ValueError(
                f"checkpoint_dir={str(self.folder)!r} holds the checkpoints of another fit: {'; '.join(changed)}. "
                "Call fit as before, pass another folder, or empty this one."
            )


@dataclass(frozen=True)
class TrainingState:
    """Everything that a training step changes.

    Random numbers are not part of it: they follow from the seed and the step.
    """

    network: nn.Module
    optimizer: Any
    precision: Any  # holds the scale of 16-bit gradients
    losses: Tensor
    at_once: BatchSize
    bank: AttentionBank | None = None


@dataclass(frozen=True)
class StageCheckpoints:
    """The checkpoints of one stage: states of its training after some steps, and the network after the last step."""

    all: Checkpoints
    name: str

    def load(self, state: "TrainingState") -> int:
        """Load the newest undamaged state into a training, and return its number of steps; 0 if there is none."""
        # Names end in the step with leading zeros, so the last one is the newest.
        for name in reversed(self._unfinished()):
            kept = self.all.get(name)
            if kept is not None:
                step = int(kept[0]["step"])
                _load_network(state.network, kept[1])
                _load_optimizer(state.optimizer, kept[1], kept[0]["optimizer"])
                state.precision.load_state_dict(kept[0]["precision"])
                state.losses[:step] = kept[1]["losses"].to(state.losses)
                state.at_once.size = kept[0]["images_at_once"]
                if state.bank is not None:
                    state.bank.maps.copy_(kept[1]["attention_maps"])
                return step
        return 0

    def load_finished(self, network: nn.Module) -> Tensor | None:
        """Load the trained network and return the losses of its steps; None if the stage is not finished."""
        kept = self.all.get(self.name)
        if kept is None:
            return None
        _load_network(network, kept[1])
        return kept[1]["losses"]

    def keep(self, step: int, state: "TrainingState") -> None:
        """Keep the state after ``step`` steps and the one before it; older ones are removed."""
        tensors, numbers = _optimizer_state(state.optimizer)
        tensors |= _network_state(state.network) | {"losses": state.losses[:step].cpu()}
        if state.bank is not None:
            tensors["attention_maps"] = state.bank.maps.cpu()
        # Numbers go into the JSON of the file.
        notes = {
            "step": step,
            "optimizer": numbers,
            "precision": state.precision.state_dict(),
            "images_at_once": state.at_once.size,
        }
        # First write, then remove: a crash in between leaves one state too many, never one too few.
        self.all.put(f"{self.name}-{step:09d}", notes, tensors)
        self.all.remove(*self._unfinished()[:-_KEPT])

    def finish(self, network: nn.Module, losses: Tensor) -> None:
        """Keep the trained network, and remove the states of its training."""
        if self.all.put(self.name, {}, _network_state(network) | {"losses": losses.cpu()}):
            self.all.remove(*self._unfinished())

    def _unfinished(self) -> list[str]:
        return [name for name in self.all.names() if name.startswith(f"{self.name}-")]


def _is_first_process() -> bool:
    return launched_processes() == 1 or os.environ.get("RANK", "0") == "0"


def _network_state(network: nn.Module) -> dict[str, Tensor]:
    # Copies, because safetensors refuses tensors that share memory.
    return {f"network.{name}": tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _load_network(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    prefix = "network."
    network.load_state_dict({name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)})


def _optimizer_state(optimizer: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state of an optimiser: tensors by name, and numbers by name.

    The names are ``"optimizer.3.momentum_buffer"`` and ``"3.step"`` for the weight of index 3.
    """
    tensors, numbers = {}, {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value.detach().cpu().clone()
            else:
                numbers[f"{index}.{key}"] = value
    return tensors, numbers


def _load_optimizer(optimizer: Any, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    state: dict[int, dict[str, Any]] = {}
    prefix = "optimizer."
    kept = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    for name, value in (kept | dict(numbers)).items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    # Learning rate and other options stay those that the optimiser was created with.
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
