"""How the checks use an augmentation, and the batches that they pass to it."""

from dataclasses import fields, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from skdfb.augmentation import Batch
from skdfb.testing._shared._demands import Array
from skdfb.testing._shared._usage import Usage

N_IMAGES, N_CLASSES, SIDE = 6, 3, 16


def make_batch(
    augmentation: Any,
    stage: str,
    *,
    seed: int = 1,
    n: int = N_IMAGES,
    size: tuple[int, int] = (SIDE, SIDE),
    mask_size: tuple[int, int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Batch:
    """Return a batch as the trainer makes it: masks in the dense stage, attention maps if there is a bank, donors."""
    options: dict[str, Any] = {"n": n, "size": size, "mask_size": mask_size, "dtype": dtype}
    batch = _batch_alone(augmentation, stage, seed=seed, **options)
    if not getattr(augmentation, "needs_donors", False):
        return batch
    return replace(batch, donors=_batch_alone(augmentation, stage, seed=seed + 1000, **options))


def _batch_alone(
    augmentation: Any,
    stage: str,
    *,
    seed: int,
    n: int,
    size: tuple[int, int],
    mask_size: tuple[int, int] | None,
    dtype: torch.dtype,
) -> Batch:
    """Return a batch without donors."""
    generator = torch.Generator().manual_seed(seed)
    # Drawn in float32 and then converted: the same batch in every type.
    images = torch.randn(n, 3, *size, generator=generator).to(dtype)
    targets = torch.eye(N_CLASSES, dtype=dtype)[torch.arange(n) % N_CLASSES]
    # With masks, a trainer supplies no attention maps.
    if stage == "dense":
        # (n, H, W) with classes 0..K-1 and K for the background
        masks = torch.randint(N_CLASSES + 1, (n, *(mask_size or size)), generator=generator)
        return Batch(images, targets, masks)
    if not hasattr(augmentation, "attention_bank"):
        return Batch(images, targets)
    # A trainer updates the bank before each step, so the maps differ from their start value.
    bank = augmentation.attention_bank(n)
    indices = torch.arange(n)
    bank.update(indices, torch.rand(bank.maps.shape, generator=generator))
    return Batch(images, targets, attention_maps=bank[indices])


def augmented(augmentation: Any, batch: Batch) -> Any:
    """Return what `augment` returns for a generator in a fixed state."""
    return augmentation.augment(batch, torch.Generator().manual_seed(0))


def accepted_stages(augmentation: Any) -> list[str]:
    """Return the stages whose batches are not refused by a ValueError.

    Raises
    ------
    AssertionError
        If there are none.
    """
    stages, reasons = [], []
    for stage in ("classifier", "dense"):
        try:
            augmented(augmentation, make_batch(augmentation, stage))
        except ValueError as error:
            reasons.append(error)
        else:
            stages.append(stage)
    if not stages:
        raise AssertionError(
            f"{type(augmentation).__name__}.augment: expected a batch of at least one stage to be accepted, got "
            f"ValueError: {reasons[0]}, given a batch of the classifier stage, and ValueError: {reasons[1]}, given one "
            "of the dense stage."
        )
    return stages


class AugmentationUsage(Usage):
    """Augmentations learn nothing: the result for a batch depends on the batch and the generator alone."""

    noun: ClassVar[str] = "batches"
    result_method: ClassVar[str] = "augment"

    def training_data(self, instance: Any, seed: int = 0) -> None:
        """Return None."""

    def fit(self, instance: Any, data: None) -> None:
        """Do nothing."""

    def new_data(self, instance: Any, seed: int = 1) -> dict[str, Batch]:
        """Return a batch of each stage that is accepted."""
        return {stage: make_batch(instance, stage, seed=seed) for stage in accepted_stages(instance)}

    def contents(self, data: dict[str, Batch] | None) -> dict[str, bytes]:
        """Return the bytes of all tensors of all batches."""
        found = {}
        for stage, batch in (data or {}).items():
            for name, tensor in _tensors(batch).items():
                found[f"{name} ({stage} stage)"] = tensor.numpy(force=True).tobytes()
        return found

    def result(self, fitted: Any, data: dict[str, Batch]) -> Array:
        """Return the values of all images, targets and masks in one row."""
        rows = []
        # Attention maps are left out: the trainer does not read them after this call.
        for batch in data.values():
            after = augmented(fitted, batch)
            tensors = (after.images, after.targets, after.masks)
            rows += [tensor.numpy(force=True).ravel() for tensor in tensors if tensor is not None]
        return np.concatenate(rows).astype(np.float64)


def _tensors(batch: Batch) -> dict[str, Tensor]:
    """Return the tensors of a batch and of its donors by name."""
    tensors: dict[str, Tensor] = {}
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Batch):
            tensors |= {f"{field.name}.{name}": tensor for name, tensor in _tensors(value).items()}
        elif value is not None:
            tensors[field.name] = value
    return tensors


USAGE = AugmentationUsage()
