"""Checkpoints: files with the state of a training, from which an interrupted training continues."""

import hashlib
import json
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from skdfb.augmentation import AttentionBank
from skdfb.exceptions import CheckpointError, CheckpointWarning, InvalidModelError
from skdfb.images import BatchSize
from skdfb.training._in_use import is_in_use
from skdfb.utils import is_first_process, read_file, write_file

__all__ = ["MARKER", "Checkpoints", "StageCheckpoints", "TrainingState"]

# Number of states that an unfinished stage keeps. The older one is used if the newest is damaged.
_KEPT = 2
_SUFFIX = ".safetensors"
# Begin of the names of subfolders.
_FOLDER = "fit-"
# Name of a small file in the folder of each training, from which its fingerprint is read.
MARKER = "split"


@dataclass(frozen=True)
class Checkpoints:
    """A folder with the progress of one ``fit``: the finished stages and the newest states of the present stage.

    ``fingerprint`` describes the data and parameters of the ``fit`` by name. Its digest is the name of the folder: each
    ``fit`` has a folder of its own. Each file holds a digest of its content, so damaged files are never used. If
    several processes train together, only the first one writes.
    """

    folder: Path
    fingerprint: Mapping[str, str]

    @classmethod
    def inside(cls, folder: Path, fingerprint: Mapping[str, str]) -> Self:
        """Return the checkpoints in the subfolder that belongs to a fingerprint."""
        digest = hashlib.sha256(json.dumps(dict(fingerprint), sort_keys=True).encode()).hexdigest()
        return cls(folder / f"{_FOLDER}{digest[:16]}", fingerprint)

    def prepare(self) -> None:
        """Create the folder and check, before any training, that files can be written to it.

        Raises
        ------
        CheckpointError
            If the folder cannot be written to.
        """
        # Each call uses its own name: several processes may try at the same time, and no process may remove the file
        # of another one. Some bytes are written, since an empty file fits on a full disk.
        trial = self.folder / f".trial-{uuid.uuid4().hex}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_file(trial, "", {"zeros": torch.zeros(1024)})
            trial.unlink()
        except Exception as error:
            raise CheckpointError(
                f"checkpoint_dir: {str(self.folder)!r} cannot be written to ({error}): expected a folder with "
                "free space and write permission; free some space, or pass another folder."
            ) from error

    def warn_of_unfinished(self, root: Path) -> None:
        """Warn if this training is new, but a similar one inside of ``root`` was left unfinished.

        A user may have changed something by accident, and would lose hours. A training that is still running is not
        meant: the fits of a cross-validation may run side by side.
        """
        if self.names() or not is_first_process():
            return
        others = [(self._differences(other.fingerprint), other) for other in _trainings(root) if other.is_abandoned()]
        if not others:
            return
        differences, nearest = min(others, key=lambda pair: (len(pair[0]), str(pair[1].folder)))
        warnings.warn(
            f"checkpoint_dir={str(root)!r} holds an unfinished fit, which this one does not continue: "
            f"{'; '.join(differences)}. To continue it, call fit as before; to forget it, delete "
            f"{str(nearest.folder)!r}.",
            CheckpointWarning,
            stacklevel=2,
        )

    def is_abandoned(self) -> bool:
        """Return whether a training began here, did not end, and is not running."""
        names = self.names()
        began = any(name.startswith(("classifier", "dense", "masks")) for name in names)
        return began and "dense" not in names and not is_in_use(self.folder)

    def get(self, name: str, *, mapped: bool = False) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return the notes and tensors that were stored under a name; None if the file is missing or damaged.

        With ``mapped``, tensors of more than a GiB are mapped to a temporary file.
        """
        return self._read(self.folder / f"{name}{_SUFFIX}", mapped)

    def put(self, name: str, notes: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bool:
        """Store notes and tensors under a name, and return whether they were written.

        If they cannot be written, there is a warning, and the training continues.
        """
        if not is_first_process():
            return False
        text = json.dumps({"fingerprint": dict(self.fingerprint), "notes": dict(notes)})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_file(self.folder / f"{name}{_SUFFIX}", text, tensors)
        # A full disk must not end a training of hours, which could still finish without checkpoints.
        except Exception as error:
            warnings.warn(
                f"the checkpoint {name!r} cannot be written to {str(self.folder)!r} ({error}). The training continues "
                "without it and will try to write the next one; free some space.",
                CheckpointWarning,
                stacklevel=2,
            )
            return False
        return True

    def remove(self, *names: str) -> None:
        """Remove the files of these names."""
        for name in names if is_first_process() else ():
            (self.folder / f"{name}{_SUFFIX}").unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return [path.name.removesuffix(_SUFFIX) for path in self._files()]

    def stage(self, name: str) -> "StageCheckpoints":
        """Return the checkpoints of one stage."""
        return StageCheckpoints(self, name)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{_SUFFIX}"))

    def _read(self, path: Path, mapped: bool) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        # A file can disappear after it was listed: the first process may remove it while the others read.
        try:
            text, tensors = read_file(path, mapped=mapped)
        except (InvalidModelError, FileNotFoundError):
            return None
        document = json.loads(text)
        # Only a file that was copied from another folder has another fingerprint.
        return (document["notes"], tensors) if document["fingerprint"] == dict(self.fingerprint) else None

    def _differences(self, other: Mapping[str, str]) -> list[str]:
        """Return how another fingerprint differs from this one, in words."""
        # The names of both: one of another version may have more entries, or fewer.
        names = sorted(set(other) | set(self.fingerprint))
        return [
            f"{name} was {other.get(name, 'absent')} and is {self.fingerprint.get(name, 'absent')}"
            for name in names
            if other.get(name) != self.fingerprint.get(name)
        ]


def _trainings(root: Path) -> Iterator[Checkpoints]:
    """Yield the checkpoints of each training of each fit inside of a folder."""
    for path in sorted(root.glob(f"{_FOLDER}*/{_FOLDER}*/{MARKER}{_SUFFIX}")):
        # Another process may be removing its files, or the user.
        with suppress(InvalidModelError, OSError):
            yield Checkpoints(path.parent, json.loads(read_file(path)[0])["fingerprint"])


@dataclass(frozen=True)
class TrainingState:
    """Everything that a training step changes.

    The states of random generators are not part of it: the random numbers of a step follow from the seed and the step.
    """

    network: nn.Module
    optimizer: Any
    # Holds the scale of the loss with float16, which changes during the training.
    precision: Any
    losses: Tensor
    at_once: BatchSize
    bank: AttentionBank | None = None


@dataclass(frozen=True)
class StageCheckpoints:
    """The checkpoints of one stage: some states of its training, and the network after the last step."""

    all: Checkpoints
    name: str

    def load(self, state: "TrainingState") -> int:
        """Load the newest undamaged state into a training, and return its number of finished steps."""
        for name in reversed(self._unfinished()):
            kept = self.all.get(name)
            if kept is not None:
                notes, tensors = kept
                step = int(notes["step"])
                _load_network(state.network, tensors)
                _load_optimizer(state.optimizer, tensors, notes["optimizer"])
                state.precision.load_state_dict(notes["precision"])
                state.losses[:step] = tensors["losses"].to(state.losses)
                # The number of images at a time changes the rounding of sums of gradients.
                state.at_once.size = notes["images_at_once"]
                if state.bank is not None:
                    state.bank.maps.copy_(tensors["attention_maps"])
                return step
        return 0

    def load_finished(self, network: nn.Module) -> Tensor | None:
        """Load the trained network and return the loss of each step; None if the stage is not finished."""
        kept = self.all.get(self.name)
        if kept is None:
            return None
        _load_network(network, kept[1])
        return kept[1]["losses"]

    def keep(self, step: int, state: "TrainingState") -> None:
        """Store the state after ``step`` steps, and remove all but the newest two."""
        tensors, numbers = _optimizer_state(state.optimizer)
        tensors |= _network_state(state.network) | {"losses": state.losses[:step].cpu()}
        if state.bank is not None:
            tensors["attention_maps"] = state.bank.maps.cpu()
        # Numbers of Python go into the JSON of the file, tensors beside it.
        notes = {
            "step": step,
            "optimizer": numbers,
            "precision": state.precision.state_dict(),
            "images_at_once": state.at_once.size,
        }
        # Zeros in front make the order of the names that of the steps.
        self.all.put(f"{self.name}-{step:09d}", notes, tensors)
        self.all.remove(*self._unfinished()[:-_KEPT])

    def finish(self, network: nn.Module, losses: Tensor) -> None:
        """Store the trained network, and remove the states of the unfinished training."""
        # Only if it was written: otherwise the newest state is still needed.
        if self.all.put(self.name, {}, _network_state(network) | {"losses": losses.cpu()}):
            self.all.remove(*self._unfinished())

    def _unfinished(self) -> list[str]:
        return [name for name in self.all.names() if name.startswith(f"{self.name}-")]


def _network_state(network: nn.Module) -> dict[str, Tensor]:
    return {f"network.{name}": _copy(tensor) for name, tensor in network.state_dict().items()}


def _copy(tensor: Tensor) -> Tensor:
    """Return a copy on the CPU: the next steps change the tensor, and safetensors wants the usual memory format."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _load_network(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    prefix = "network."
    network.load_state_dict({name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)})


def _optimizer_state(optimizer: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state that an optimiser has for each weight: tensors by name and numbers by name."""
    # Without the parameter groups: their settings follow from the trainer and the step.
    tensors, numbers = {}, {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = _copy(value)
            else:
                numbers[f"{index}.{key}"] = value
    return tensors, numbers


def _load_optimizer(optimizer: Any, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    state: dict[int, dict[str, Any]] = {}
    prefix = "optimizer."
    kept = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    # Names are "index.key", where index counts the weights.
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for name, value in (kept | dict(numbers)).items():
        place, _, key = name.partition(".")
        index = int(place)
        if isinstance(value, Tensor) and value.shape == weights[index].shape:
            # In the memory format of the weight: else each step of the optimiser would be slower than before.
            value = torch.empty_like(weights[index], dtype=value.dtype, device="cpu").copy_(value)
        state.setdefault(index, {})[key] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
