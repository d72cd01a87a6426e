"""What a training keeps on disk, so that a broken one goes on where it was."""

import json
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
from skdfb.utils import read_file, write_file

__all__ = ["Checkpoints", "StageCheckpoints", "TrainingState"]

_KEPT = 2  # unfinished states of a stage: were the newest lost, the one before it is there
_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Checkpoints:
    """A folder of what one ``fit`` has reached: finished stages, and the newest states of the stage it is in.

    ``fingerprint`` says by name what a ``fit`` is made of; a folder of another one is refused. Nothing that is cut or
    changed is ever taken: each file holds a digest of itself.
    """

    folder: Path
    every: int
    fingerprint: Mapping[str, str]

    def prepare(self) -> None:
        """Make the folder and try to write to it, before hours are spent.

        Raises
        ------
        CheckpointError
            If nothing can be written there.
        ValueError
            If it holds what another ``fit`` has written.
        """
        trial = self.folder / f"trial{_SUFFIX}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_file(trial, "", {"zeros": torch.zeros(1024)})
            trial.unlink()
        except Exception as error:
            raise CheckpointError(
                f"checkpoint_dir={str(self.folder)!r} cannot be written to ({error}); free some space, or give another "
                "folder."
            ) from error
        for path in self._files():
            self._read(path)

    def get(self, name: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return what was kept under a name; None where it is absent or damaged."""
        path = self.folder / f"{name}{_SUFFIX}"
        return self._read(path) if path.is_file() else None

    def put(self, name: str, notes: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bool:
        """Keep notes and tensors under a name, and tell whether they are kept.

        Where they cannot be written, a warning says so and all goes on.
        """
        text = json.dumps({"fingerprint": dict(self.fingerprint), "notes": dict(notes)})
        try:
            write_file(self.folder / f"{name}{_SUFFIX}", text, tensors)
        except Exception as error:  # the disk may be full, the folder gone: the training is worth more than its copy
            warnings.warn(
                f"the checkpoint {name!r} cannot be written to {str(self.folder)!r} ({error}). The training goes on in"
                " memory alone, and tries again at the next one; free some space.",
                CheckpointWarning,
                stacklevel=2,
            )
            return False
        return True

    def remove(self, *names: str) -> None:
        """Remove what was kept under names."""
        for name in names:
            (self.folder / f"{name}{_SUFFIX}").unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Return the names of all that is kept, in order."""
        return [path.name.removesuffix(_SUFFIX) for path in self._files()]

    def stage(self, name: str) -> "StageCheckpoints":
        """Return the checkpoints of one stage."""
        return StageCheckpoints(self, name)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{_SUFFIX}"))

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        try:
            text, tensors = read_file(path)
        except InvalidModelError:
            return None
        document = json.loads(text)
        self._check_same(document["fingerprint"])
        return document["notes"], tensors

    def _check_same(self, other: Mapping[str, str]) -> None:
        """Refuse what was kept by a ``fit`` of something else, and say what."""
        names = sorted(set(other) | set(self.fingerprint))
        changed = [
            f"{name} was {other.get(name, 'absent')} and is {self.fingerprint.get(name, 'absent')}"
            for name in names
            if other.get(name) != self.fingerprint.get(name)
        ]
        if changed:
            raise ValueError(
                f"checkpoint_dir={str(self.folder)!r} holds the checkpoints of another fit: {'; '.join(changed)}. Give "
                "fit what it had then, or another folder, or empty this one."
            )


@dataclass(frozen=True)
class TrainingState:
    """All that a step of a training changes. Random numbers are none of it: they follow from the seed and the step."""

    network: nn.Module
    optimizer: Any
    precision: Any  # holds the scale of 16-bit gradients
    losses: Tensor
    at_once: BatchSize
    bank: AttentionBank | None = None


@dataclass(frozen=True)
class StageCheckpoints:
    """The checkpoints of one stage: the states of its training after some steps, and the network after all."""

    all: Checkpoints
    name: str

    def load(self, state: "TrainingState") -> int:
        """Bring a training to the newest state that is whole, and return its number of steps."""
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
        """Bring the network to the end of the stage, and return the losses of its steps; None before its end."""
        kept = self.all.get(self.name)
        if kept is None:
            return None
        _load_network(network, kept[1])
        return kept[1]["losses"]

    def is_due(self, step: int) -> bool:
        """Tell whether the state after so many steps is to be kept."""
        return step % self.all.every == 0

    def keep(self, step: int, state: "TrainingState") -> None:
        """Keep the state after so many steps, beside the one before."""
        tensors, numbers = _optimizer_state(state.optimizer)
        tensors |= _network_state(state.network) | {"losses": state.losses[:step].cpu()}
        if state.bank is not None:
            tensors["attention_maps"] = state.bank.maps.cpu()
        notes = {
            "step": step,
            "optimizer": numbers,
            "precision": state.precision.state_dict(),
            "images_at_once": state.at_once.size,
        }
        self.all.put(f"{self.name}-{step:09d}", notes, tensors)
        self.all.remove(*self._unfinished()[:-_KEPT])

    def finish(self, network: nn.Module, losses: Tensor) -> None:
        """Keep the end of the stage, and let go of the states before."""
        if self.all.put(self.name, {}, _network_state(network) | {"losses": losses.cpu()}):
            self.all.remove(*self._unfinished())

    def _unfinished(self) -> list[str]:
        return [name for name in self.all.names() if name.startswith(f"{self.name}-")]


def _network_state(network: nn.Module) -> dict[str, Tensor]:
    # Copies: no two tensors of a file may share memory, and a training goes on changing them.
    return {f"network.{name}": tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _load_network(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    prefix = "network."
    network.load_state_dict({name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)})


def _optimizer_state(optimizer: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what an optimiser has learned of each weight: tensors by name, and numbers by name."""
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
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
