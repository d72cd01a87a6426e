"""One training run: settings, a network and data, on Lightning Fabric."""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import tee
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skdfb._transfers import upload
from skdfb.augmentation import Batch
from skdfb.augmentation._geometry import zoom_and_flip
from skdfb.augmentation._mixup import mixup
from skdfb.exceptions import TrainingDivergedError
from skdfb.images import BatchSize, Images, Indices, read_batches
from skdfb.networks import DenseClassifier
from skdfb.networks._folding import folded_trunk
from skdfb.networks._stages import keep_frozen
from skdfb.training._attention import AttentionKeeper, attention_bank
from skdfb.training._buffers import KeptBuffers
from skdfb.training._checkpoints import StageCheckpoints, TrainingState
from skdfb.training._engine import make_engine, without_advice
from skdfb.training._objectives import ClassificationLoss, DenseLoss, n_valid
from skdfb.training._pace import Pace
from skdfb.training._sampling import (
    AUGMENTATION,
    DONORS,
    DROPOUT,
    FOREIGN,
    READING,
    random_images,
    shuffled_batches,
    step_seed,
)
from skdfb.training._schedule import learning_rates
from skdfb.training._settings import TrainingSettings, resolved_mixup, resolved_scales
from skdfb.utils import NetworkDraws, PackedMasks, isolated_rng

__all__ = ["TrainingRun"]

_LABELS = {"classifier": "training the classifier", "dense": "training the dense network"}
# Reading a loss on the CPU waits until the GPU has finished the step. In every step this would leave the GPU idle while
# the next step is prepared.
_STEPS_BETWEEN_CHECKS = 50

_Loaded = tuple[Indices, Tensor]


class TrainingRun:
    """One training of a network, with everything that is fixed before its first step. With masks: the dense stage."""

    def __init__(
        self,
        settings: TrainingSettings,
        network: DenseClassifier,
        images: Images,
        labels: npt.NDArray[Any],
        masks: npt.NDArray[Any] | PackedMasks | None,
        device: torch.device,
        seed: int,
        n_jobs: int | None,
    ) -> None:
        # 1. Data and settings, with the "auto" values of the stage.
        dense = masks is not None
        self.settings, self.network, self.images, self.masks = settings, network, images, masks
        self.n_jobs = n_jobs
        self.stage = "dense" if dense else "classifier"
        self.n_classes = network.num_classes - dense
        self.n_steps = settings.n_steps(len(images))
        self.rates = learning_rates(self.n_steps, settings.learning_rate, settings.warmup_steps, settings.schedule)
        self.scale_range, self.mixup_alpha = (
            resolved_scales(settings, dense),
            resolved_mixup(settings, dense, len(images)),
        )
        # 2. The engine. Inputs have at least float32: the engine converts them to 16 bits where it computes in these.
        self.dtype = torch.promote_types(network.dtype, torch.float32)
        self.fabric = make_engine(device, settings.precision, network.dtype)
        self.labels = torch.as_tensor(labels, dtype=torch.long).to(self.fabric.device)
        self.seed = self.fabric.broadcast(seed)  # all processes must draw the same batches
        self.draws = NetworkDraws(network, compiled=settings.compile)
        self.at_once = BatchSize(min(settings.batch_size, len(images)))
        # In the dense stage the masks show the foreground, so an augmentation needs no attention maps.
        self.bank = None if dense else attention_bank(settings.augmentation, images, self.fabric.device)
        self.needs_donors = bool(getattr(settings.augmentation, "needs_donors", False))
        if self.at_once.size < self.fabric.world_size:
            raise ValueError(
                f"a batch of {self.at_once.size} images cannot be shared by {self.fabric.world_size} processes: "
                "expected at least one image per process; raise batch_size or launch fewer processes."
            )

    def train(self, checkpoints: StageCheckpoints | None = None) -> dict[str, list[float]]:
        """Train the network in place and return the loss and the learning rate of every step."""
        self.network.to(self.fabric.device)  # by its own method, before Fabric moves its parts
        # A stage that was finished before the interruption is loaded, not trained.
        if checkpoints is not None and (losses := checkpoints.load_finished(self.network)) is not None:
            self.network.eval()
            return {"loss": losses.tolist(), "learning_rate": self.rates}
        compiled = self.settings.compile
        loss_module: nn.Module = (
            ClassificationLoss(self.network, compiled=compiled)
            if self.masks is None
            else DenseLoss(self.network, self.settings.classification_weight, compiled=compiled)
        )
        with without_advice():
            model, optimizer = self.fabric.setup(loss_module, self._optimizer(loss_module))
        try:
            model.train()
            keep_frozen(self.network)
            # Where the network computes as it is written, and in all bits.
            as_written = not self.draws.is_global and self.settings.precision == "32-true"
            self.folded = folded_trunk(self.network) if as_written else None
            losses = self._run_steps(model, optimizer, checkpoints)
            # Only now: during the training each process has its own batch statistics.
            self._share_buffers()
            self._warn_if_halved()
        # Also after an error or Ctrl-C: the network stays usable. Gradients would double its memory.
        finally:
            self.network.eval()
            self.network.zero_grad()
        if checkpoints is not None and self.fabric.global_rank == 0:
            checkpoints.finish(self.network, losses)
        return {"loss": losses.tolist(), "learning_rate": self.rates}

    def _run_steps(self, model: nn.Module, optimizer: Any, checkpoints: StageCheckpoints | None) -> Tensor:
        """Run all steps, or the rest of them after a checkpoint, and return the loss of each step."""
        settings = self.settings
        # (n_steps,), on the device: storing a loss there does not wait for the GPU.
        losses = torch.zeros(self.n_steps, dtype=self.dtype, device=self.fabric.device)
        state = TrainingState(self.network, optimizer, self.fabric.strategy.precision, losses, self.at_once, self.bank)
        self.statistics = KeptBuffers(self.network)
        first = n_checked = 0 if checkpoints is None else checkpoints.load(state)
        with (
            closing(self._batches(first)) as batches,  # stops the reading threads, also if a step fails
            self._pace(first).shown(first) as pace,
        ):
            for step, batch in enumerate(batches, first):
                batch = self._augmented(batch, step)
                # 1. Loss, gradients and update.
                for group in optimizer.param_groups:
                    group["lr"] = self.rates[step]
                losses[step] = self._set_gradients(model, optimizer, batch, step)
                if settings.clip_grad_norm is not None:
                    # Not an error if the norm is no number: to know it, each step would wait for the GPU.
                    self.fabric.clip_gradients(
                        model, optimizer, max_norm=settings.clip_grad_norm, error_if_nonfinite=False
                    )
                optimizer.step()
                # Casts of the old weights stay cached until the outermost autocast ends, which may be around all steps.
                torch.clear_autocast_cache()
                # 2. Check the losses every 50 steps, and before each checkpoint: none may hold a diverged network.
                due = checkpoints is not None and (step + 1) % settings.checkpoint_every == 0
                if due or (step + 1) % _STEPS_BETWEEN_CHECKS == 0 or step + 1 == self.n_steps:
                    self._check_losses(losses, n_checked, step + 1)
                    n_checked = step + 1
                    pace.show(losses[step], self.rates[step])
                if checkpoints is not None and due and self.fabric.global_rank == 0:
                    checkpoints.keep(step + 1, state)
                pace.step_done(losses[step])
        return losses

    def _augmented(self, batch: Batch, step: int) -> Batch:
        """Augment a batch: user-defined, zoom and mirror, mixup.

        The random numbers follow from seed and step alone, so a training that continues from a checkpoint draws the
        same numbers as an uninterrupted one.
        """
        settings, size = self.settings, self.network.preprocessor.image_size
        generator = torch.Generator().manual_seed(self._step_seed(step, AUGMENTATION))
        if settings.augmentation is not None:
            with isolated_rng(self._step_seed(step, FOREIGN)):  # of an augmentation that draws without it
                batch = _check_augmented(settings.augmentation.augment(batch, generator), batch)
            batch = replace(batch, donors=None)  # frees their memory before the forward pass
        if self.scale_range is not None or settings.flip:
            batch = zoom_and_flip(batch, self.scale_range or (1.0, 1.0), settings.flip, size, generator)
        return mixup(batch, self.mixup_alpha, generator) if self.mixup_alpha else batch

    def _pace(self, first_step: int) -> Pace:
        """Return what shows the progress from a step on, and says how long it takes."""
        return Pace(
            _LABELS[self.stage],
            self.n_steps - first_step,
            min(self.settings.batch_size, len(self.images)),
            len(self.images),
            self.network,
            self.fabric.device,
            is_first=self.stage == "classifier",
        )

    def _set_gradients(self, model: nn.Module, optimizer: Any, batch: Batch, step: int) -> Tensor:
        """Set the gradients of the mean loss of a batch, and return the loss.

        If the batch does not fit into the memory, it is split into smaller pieces, whose gradients are added.
        """
        n_images, n_pixels = len(batch.images), None if batch.masks is None else n_valid(batch.masks)

        def add_up() -> Tensor:
            optimizer.zero_grad()
            total = torch.zeros((), dtype=self.dtype, device=self.fabric.device)
            # Dropout and stochastic depth are seeded in each attempt, so a repeated step draws the same numbers.
            with self.draws.seeded(self._step_seed(step, DROPOUT), self.fabric.device):
                for start in range(0, n_images, self.at_once.size):
                    piece = batch[start : start + self.at_once.size]
                    forward = partial(model, piece.images, piece.targets, piece.masks, n_images, n_pixels)
                    loss = forward() if self.folded is None else self.folded.run(forward)
                    self.fabric.backward(loss)
                    total += loss.detach()
            return total

        # Processes wait for each other in each backward pass. If one of them split its share, the others would wait
        # forever, so an error ends the training instead.
        if self.fabric.world_size > 1:
            return add_up()
        # Each forward pass updates the batch statistics. Those from before the step undo the updates of a failed
        # attempt; otherwise these images would count twice.
        self.statistics.keep()
        while (done := self.at_once.attempt(add_up, min(self.at_once.size, n_images))) is None:
            self.statistics.restore()
        return done[0]

    def _batches(self, first_step: int) -> Generator[Batch]:
        """Yield this process's share of the batch of each step from ``first_step`` on, before augmentation."""
        rank, world_size = self.fabric.global_rank, self.fabric.world_size
        # Reading runs ahead of the training, so the indices are needed twice: for the whole batch and for the share.
        whole, shared = tee(
            shuffled_batches(len(self.images), self.settings.batch_size, first_step, self.n_steps, self.seed)
        )
        shares: Iterator[Indices] = (indices[rank::world_size] for indices in shared)
        preprocessor, size, device = self.network.preprocessor, self._reading_size(), self.fabric.device
        loaded = read_batches(
            self.images,
            self._with_donors(shares, first_step) if self.needs_donors else shares,
            preprocessor,
            size=size,
            n_jobs=self.n_jobs,
            device=device,
        )
        keeper = None if self.bank is None else AttentionKeeper(self.bank, self.network, self.fabric, self.at_once)
        for all_indices, (indices, pixels) in zip(whole, self._isolated(loaded, first_step), strict=True):
            # Resized on the device, and in the dtype of the pixels: half precision would lose levels of 0..255.
            images = preprocessor(upload(pixels, device), size).to(self.dtype)
            rows = upload(torch.from_numpy(indices), device)
            batch = Batch(images, *self._targets(indices, rows))
            n = len(images) // 2 if self.needs_donors else len(images)  # images of the batch itself
            # Here and not while reading: the maps must be those of the network just before the step.
            if keeper is not None:
                keeper.update(batch[:n], rows[:n] if self.fabric.world_size == 1 else all_indices)
                batch = replace(batch, attention_maps=keeper.bank[rows])
            yield replace(batch[:n], donors=batch[n:]) if self.needs_donors else batch

    def _isolated(self, loaded: Iterator[_Loaded], first_step: int) -> Iterator[_Loaded]:
        """Let what a dataset draws in this thread follow from the seed, as long as no other threads read."""
        for step in range(first_step, self.n_steps):
            with isolated_rng(self._step_seed(step, READING)):
                batch = next(loaded)
            yield batch

    def _with_donors(self, shares: Iterator[Indices], first_step: int) -> Iterator[Indices]:
        """Append the donors of each step to its images: they are read together, and split afterwards."""
        for step, indices in enumerate(shares, first_step):
            donors = random_images(len(self.images), len(indices), self._step_seed(step, DONORS))
            yield np.concatenate([indices, donors])

    def _targets(self, indices: Indices, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return one-hot labels (b, K), and masks (b, S, S) if there are any, of images; ``rows`` is on the device."""
        targets = F.one_hot(self.labels[rows], self.n_classes).to(self.dtype)
        if self.masks is None:
            return targets, None
        # The loss needs int64, which takes eight times the memory of the stored bytes: so late as possible.
        masks = self.masks[indices]
        tensor = torch.from_numpy(masks if masks.dtype == np.uint8 else np.asarray(masks, dtype=np.int64))
        return targets, upload(tensor, self.fabric.device).long()

    def _reading_size(self) -> int:
        """Return the side at which images are read, in pixels.

        It is larger than the input of the network only if zooming in would otherwise lose detail.
        """
        size = self.network.preprocessor.image_size
        largest = 1.0 if self.scale_range is None else max(1.0, self.scale_range[1])
        # Images of several sizes have no common size: they are read large enough for the largest zoom.
        native = max(self.images.size) if self.images.size is not None else round(size * largest)
        return int(min(max(native, size), round(size * largest)))

    def _step_seed(self, step: int, stream: int) -> int:
        """Return the seed of one stream of random numbers in one step; it differs between processes."""
        return step_seed(self.seed, step, stream, self.fabric.global_rank)

    def _optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        options: dict[str, Any] = {"lr": self.settings.learning_rate, "weight_decay": self.settings.weight_decay}
        if self.settings.optimizer == "sgd":
            return torch.optim.SGD(module.parameters(), momentum=self.settings.momentum, **options)
        return torch.optim.AdamW(module.parameters(), **options)

    def _check_losses(self, losses: Tensor, first: int, end: int) -> None:
        """Average the losses of steps ``first`` to ``end - 1`` over the processes, and check that they are finite."""
        # All processes get the mean, so all of them stop at the same check.
        mean: Any = self.fabric.all_reduce(losses[first:end])
        losses[first:end] = mean
        bad = (~torch.isfinite(losses[first:end])).nonzero()
        if len(bad):
            step = first + int(bad[0])
            raise TrainingDivergedError(
                f"the loss of the {self.stage} stage became {float(losses[step])} at step {step + 1} of "
                f"{self.n_steps}, with a learning rate of {self.rates[step]:.3g}; lower learning_rate, set "
                "clip_grad_norm=1.0, or use precision='32-true'."
            )

    def _share_buffers(self) -> None:
        """Copy the batch statistics of the first process to all others. The weights are equal already."""
        for buffer in self.network.buffers() if self.fabric.world_size > 1 else ():
            buffer.copy_(self.fabric.broadcast(buffer.cpu()))

    def _warn_if_halved(self) -> None:
        # Gradients of pieces add up to those of the batch, but batch normalisation computes its statistics per piece.
        normalised = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.network.modules())
        but = ", but batch normalisation used smaller batches" if normalised else ""
        self.at_once.warn_if_halved(
            f"the training of the {self.stage} stage", f"The gradients of the parts were added{but}."
        )


def _check_augmented(batch: Any, before: Batch) -> Batch:
    """Return the batch that an augmentation returned, if it has the form of the batch ``before``."""
    # An augmentation may be a third-party object. A wrong form would fail later, far from its cause, or broadcast.
    found, expected = (_described(each) for each in (batch, before))
    if found != expected:
        raise ValueError(
            f"augmentation returned {found}: expected {expected}, with as many images and channels, and targets and "
            "masks of the same form, type and device."
        )
    return batch  # type: ignore[no-any-return]


def _described(batch: Any) -> str:
    """Describe the properties of a batch that an augmentation must not change."""
    if not isinstance(batch, Batch):
        return f"a {type(batch).__name__}"
    images, targets = batch.images, batch.targets
    masks = "no masks" if batch.masks is None else f"masks ({len(batch.masks)}, ...)"
    return (
        f"a Batch of images ({', '.join(map(str, images.shape[:2]))}, ...) of {images.dtype} on {images.device}, "
        f"targets {tuple(targets.shape)} of {targets.dtype} and {masks}"
    )
