"""One training run: a trainer, a network and data, on Lightning Fabric."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm.auto import tqdm

from skdfb.augmentation import Batch
from skdfb.augmentation._geometry import zoom_and_flip
from skdfb.augmentation._mixup import mixup
from skdfb.exceptions import TrainingDivergedError
from skdfb.images import BatchSize, Images, iterate_batches
from skdfb.networks import DenseClassifier
from skdfb.training._attention import AttentionKeeper, attention_bank
from skdfb.training._checkpoints import StageCheckpoints, TrainingState
from skdfb.training._objectives import ClassificationLoss, DenseLoss, n_valid
from skdfb.training._sampling import shuffled_batches, step_seed
from skdfb.training._schedule import learning_rate_factor
from skdfb.utils import isolated_rng, launched_processes

if TYPE_CHECKING:
    from skdfb.training._trainer import Trainer

__all__ = ["CLASSIFIER_SCALES", "DENSE_SCALES", "TrainingRun"]

CLASSIFIER_SCALES, DENSE_SCALES = (1.25, 1.25), (0.5, 2.0)
_CLASSIFIER_MIXUP = 0.1
_BAR_LABELS = {"classifier": "training the classifier", "dense": "training the dense network"}
_STEPS_BETWEEN_CHECKS = 50  # reading a loss waits for the GPU
_TRUE_PRECISIONS = {torch.float64: "64-true", torch.bfloat16: "bf16-true", torch.float16: "16-true"}


class TrainingRun:
    """What a :class:`Trainer` becomes once it meets a network and data."""

    def __init__(
        self,
        trainer: Trainer,
        network: DenseClassifier,
        images: Images,
        labels: npt.NDArray[Any],
        masks: npt.NDArray[Any] | None,
        device: torch.device,
        seed: int,
        n_jobs: int | None,
    ) -> None:
        self.trainer, self.network, self.images, self.masks = trainer, network, images, masks
        self.labels = torch.as_tensor(labels, dtype=torch.long)
        self.n_jobs = n_jobs
        self.dtype = torch.promote_types(network.dtype, torch.float32)  # the engine rounds to halves, if at all
        self.n_steps = trainer.n_steps(len(images))
        self.stage = "classifier" if masks is None else "dense"
        self.n_classes = network.num_classes - (masks is not None)
        self.scale_range = self._resolve_scales()
        self.mixup_alpha = self._resolve_mixup()
        self.fabric = _fabric(device, trainer.precision, network.dtype)
        self.at_once = BatchSize(min(trainer.batch_size, len(images)))
        # with masks, an augmentation can do without
        self.bank = None if masks is not None else attention_bank(trainer.augmentation, images, self.fabric.device)
        self.seed = self.fabric.broadcast(seed)  # processes that train together must agree
        self._check_share()

    def _check_share(self) -> None:
        batch_size, n_processes = min(self.trainer.batch_size, len(self.images)), self.fabric.world_size
        if batch_size < n_processes:
            raise ValueError(
                f"a batch of {batch_size} images cannot be shared by {n_processes} processes; raise batch_size or "
                "launch fewer processes."
            )

    def _resolve_scales(self) -> tuple[float, float] | None:
        if self.trainer.scale_range == "auto":
            return CLASSIFIER_SCALES if self.masks is None else DENSE_SCALES
        if self.trainer.scale_range is None:
            return None
        low, high = self.trainer.scale_range
        return float(low), float(high)

    def _resolve_mixup(self) -> float:
        if self.masks is not None:
            return 0.0
        return _CLASSIFIER_MIXUP if self.trainer.mixup == "auto" else float(self.trainer.mixup or 0)

    def train(self, verbose: int, checkpoints: StageCheckpoints | None = None) -> dict[str, list[float]]:
        """Train the network in place and return the loss and the learning rate of every step."""
        if checkpoints is not None and (losses := checkpoints.load_finished(self.network)) is not None:
            self.network.to(self.fabric.device).eval()
            return self._history(losses)
        loss_module: nn.Module = (
            ClassificationLoss(self.network)
            if self.masks is None
            else DenseLoss(self.network, self.trainer.classification_weight)
        )
        model, optimizer = self.fabric.setup(loss_module, self._optimizer(loss_module))
        try:
            model.train()
            losses = self._loop(model, optimizer, verbose, checkpoints)
            self._share_buffers()
            self._warn_if_halved()
        finally:
            self.network.eval()
            self.network.zero_grad()  # gradients would double what the network holds
        if checkpoints is not None and self.fabric.global_rank == 0:
            checkpoints.finish(self.network, losses)
        return self._history(losses)

    def _history(self, losses: Tensor) -> dict[str, list[float]]:
        rates = [self._learning_rate(step) for step in range(self.n_steps)]
        return {"loss": losses.tolist(), "learning_rate": rates}

    def _loop(self, model: nn.Module, optimizer: Any, verbose: int, checkpoints: StageCheckpoints | None) -> Tensor:
        losses = torch.zeros(self.n_steps, dtype=self.dtype, device=self.fabric.device)
        rates = [self._learning_rate(step) for step in range(self.n_steps)]
        precision = self.fabric.strategy.precision
        state = TrainingState(self.network, optimizer, precision, losses, self.at_once, self.bank)
        first = 0 if checkpoints is None else checkpoints.load(state)
        n_checked = first
        with (
            closing(self._batches(first)) as batches,  # stops the readers also where a step fails
            tqdm(total=self.n_steps, initial=first, desc=_BAR_LABELS[self.stage], disable=not verbose) as bar,
        ):
            for step, batch in enumerate(batches, first):
                self._set_rate(optimizer, rates[step])
                losses[step] = self._backward(model, optimizer, batch, step)
                if self.trainer.clip_grad_norm is not None:
                    self.fabric.clip_gradients(model, optimizer, max_norm=self.trainer.clip_grad_norm)
                optimizer.step()
                due = checkpoints is not None and checkpoints.is_due(step + 1)
                if due or (step + 1) % _STEPS_BETWEEN_CHECKS == 0 or step + 1 == self.n_steps:
                    self._check_losses(losses, n_checked, step + 1, rates)
                    n_checked = step + 1
                if checkpoints is not None and due and self.fabric.global_rank == 0:
                    checkpoints.keep(step + 1, state)
                bar.update()
        return losses

    def _backward(self, model: nn.Module, optimizer: Any, batch: Batch, step: int) -> Tensor:
        """Set the gradients of a batch's loss, which is returned; in pieces, where the memory is too short for all."""
        n_pixels = None if batch.masks is None else n_valid(batch.masks)

        def add_up() -> Tensor:
            optimizer.zero_grad()
            total = torch.zeros((), dtype=self.dtype, device=self.fabric.device)
            with isolated_rng(self._step_seed(step), self.fabric.device):  # dropout, stochastic depth
                for start in range(0, len(batch.images), self.at_once.size):
                    piece = batch[start : start + self.at_once.size]
                    loss = model(piece.images, piece.targets, piece.masks, len(batch.images), n_pixels)
                    self.fabric.backward(loss)
                    total += loss.detach()
            return total

        if self.fabric.world_size > 1:  # processes that wait for each other must all do the same
            return add_up()
        before = [buffer.clone() for buffer in self.network.buffers()]
        while (done := self.at_once.attempt(add_up, min(self.at_once.size, len(batch.images)))) is None:
            with torch.no_grad():  # batch statistics have seen images that come again
                for buffer, value in zip(self.network.buffers(), before, strict=True):
                    buffer.copy_(value)
        return done[0]

    def _warn_if_halved(self) -> None:
        normalised = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.network.modules())
        but = ", but for batch normalisation, which saw smaller batches" if normalised else ""
        self.at_once.warn_if_halved(
            f"the training of the {self.stage} stage", f"Gradients were added up to those of the whole batch{but}."
        )

    def _share_buffers(self) -> None:
        """Give all processes the first one's batch statistics; the weights are equal as they are."""
        for buffer in self.network.buffers() if self.fabric.world_size > 1 else ():
            buffer.copy_(self.fabric.broadcast(buffer.cpu()))

    def _step_seed(self, step: int) -> int:
        """Return the seed of one step's random numbers, which no two processes share."""
        return step_seed(self.seed, step) + self.fabric.global_rank

    def _optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        options: dict[str, Any] = {"lr": self.trainer.learning_rate, "weight_decay": self.trainer.weight_decay}
        if self.trainer.optimizer == "sgd":
            return torch.optim.SGD(module.parameters(), momentum=self.trainer.momentum, **options)
        return torch.optim.AdamW(module.parameters(), **options)

    def _learning_rate(self, step: int) -> float:
        warmup = self.trainer.warmup_steps
        warmup = min(500, self.n_steps // 5) if warmup is None else warmup
        factor = learning_rate_factor(step, self.n_steps, warmup, self.trainer.schedule)
        return float(self.trainer.learning_rate * factor)

    @staticmethod
    def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate

    def _batches(self, first_step: int) -> Generator[Batch]:
        """Yield the augmented batch of each step from ``first_step`` on, or this process's share of it."""
        size = self.network.preprocessor.image_size
        steps = first_step, self.n_steps
        whole, shared = (
            shuffled_batches(len(self.images), self.trainer.batch_size, *steps, self.seed) for _ in range(2)
        )
        rank, world_size = self.fabric.global_rank, self.fabric.world_size
        loaded = iterate_batches(
            self.images,
            (indices[rank::world_size] for indices in shared),
            self.network.preprocessor,
            device=self.fabric.device,
            dtype=self.dtype,
            size=self._reading_size(size),
            n_jobs=self.n_jobs,
        )
        keeper = None if self.bank is None else AttentionKeeper(self.bank, self.network, self.fabric, self.at_once)
        for step, (all_indices, (indices, images)) in enumerate(zip(whole, loaded, strict=True), first_step):
            generator = torch.Generator().manual_seed(self._step_seed(step))
            batch = Batch(images, *self._targets(indices))
            if keeper is not None:
                keeper.look_at(batch, all_indices)
                batch = replace(batch, attention_maps=keeper.bank[indices])
            yield self._augment(batch, size, generator)

    def _targets(self, indices: npt.NDArray[np.intp]) -> tuple[Tensor, Tensor | None]:
        labels = F.one_hot(self.labels[torch.from_numpy(indices)], self.n_classes)
        targets = labels.to(self.fabric.device, self.dtype)
        if self.masks is None:
            return targets, None
        masks = torch.from_numpy(np.asarray(self.masks[indices], dtype=np.int64))
        return targets, masks.to(self.fabric.device)

    def _reading_size(self, size: int) -> int:
        """Return the side to read images at: larger than the input only where enlarging would lose detail."""
        largest = 1.0 if self.scale_range is None else max(1.0, self.scale_range[1])
        native = max(self.images.size) if self.images.size is not None else round(size * largest)
        return int(min(max(native, size), round(size * largest)))

    def _augment(self, batch: Batch, size: int, generator: torch.Generator) -> Batch:
        if self.trainer.augmentation is not None:
            batch = _check_augmented(self.trainer.augmentation.augment(batch, generator), batch)
        if self.scale_range is not None or self.trainer.flip:
            batch = zoom_and_flip(batch, self.scale_range or (1.0, 1.0), self.trainer.flip, size, generator)
        if self.mixup_alpha:
            batch = mixup(batch, self.mixup_alpha, generator)
        return batch

    def _check_losses(self, losses: Tensor, first: int, end: int, rates: list[float]) -> None:
        """Average the losses of steps ``first`` to ``end - 1`` over the processes and refuse any that is not finite."""
        mean: Any = self.fabric.all_reduce(losses[first:end])
        losses[first:end] = mean
        bad = (~torch.isfinite(losses[first:end])).nonzero()
        if len(bad):
            step = first + int(bad[0])
            raise TrainingDivergedError(
                f"the loss of the {self.stage} stage became {float(losses[step])} at step {step + 1} of "
                f"{self.n_steps}, with a learning rate of {rates[step]:.3g}; lower learning_rate, set "
                "clip_grad_norm=1.0, or use precision='32-true'."
            )


def _check_augmented(batch: Any, before: Batch) -> Batch:
    """Return what an augmentation made of a batch; it can be anybody's."""
    found, wanted = (_described(each) for each in (batch, before))
    if found != wanted:
        raise ValueError(
            f"augmentation made {found} of {wanted}; as many images of as many channels are wanted, with targets and "
            "masks of the same form, in the same types, on the same device."
        )
    return batch  # type: ignore[no-any-return]


def _described(batch: Any) -> str:
    """Return in words what an augmentation may not change."""
    if not isinstance(batch, Batch):
        return f"a {type(batch).__name__}"
    images, targets = batch.images, batch.targets
    masks = "no masks" if batch.masks is None else f"masks ({len(batch.masks)}, ...)"
    return (
        f"a Batch of images ({', '.join(map(str, images.shape[:2]))}, ...) of {images.dtype} on {images.device}, "
        f"targets {tuple(targets.shape)} of {targets.dtype} and {masks}"
    )


def _fabric(device: torch.device, precision: str, dtype: torch.dtype) -> Fabric:
    """Return an engine of its own: nothing is shared with other trainings in the process.

    Under torchrun or ``fabric run`` the launched processes train together, a share of each batch each.
    """
    precision = _TRUE_PRECISIONS.get(dtype, precision)
    n_processes = launched_processes()
    n_local = int(os.environ["LOCAL_WORLD_SIZE"]) if n_processes > 1 else 1
    devices: Any = [device.index or 0] if device.type == "cuda" and n_processes == 1 else n_local
    # unused weights are common: a backbone's last norm, which only its own head would use
    strategy = "ddp_find_unused_parameters_true" if n_processes > 1 else "auto"
    fabric = Fabric(
        accelerator=device.type,
        strategy=os.environ.get("LT_STRATEGY", strategy),  # the options of `fabric run` go before
        devices=os.environ.get("LT_DEVICES", devices),
        num_nodes=n_processes // n_local,
        precision=precision,  # type: ignore[arg-type]
    )
    if n_processes > 1 and "LT_CLI_USED" not in os.environ:
        fabric.launch()
    return fabric
