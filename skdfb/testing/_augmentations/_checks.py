"""Checks of an augmentation's protocol, of the batch that it returns, and of the batches that it must accept."""

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from skdfb.augmentation import AttentionBank, Batch
from skdfb.augmentation._batch import IGNORED
from skdfb.testing._augmentations._usage import N_CLASSES, N_IMAGES, SIDE, USAGE, accepted_stages, augmented, make_batch
from skdfb.testing._shared._demands import demand, demand_method, fresh_copy


def check_augmentation_protocol(name: str, augmentation: Any) -> None:
    """Check that the method exists, and that it accepts the batches of a stage of the training."""
    demand_method(name, augmentation, "augment", 2)
    accepted_stages(fresh_copy(augmentation))


def check_augmentation_batch(name: str, augmentation: Any) -> None:
    """Check that the result is a Batch."""
    for stage, before in USAGE.new_data(augmentation).items():
        _demand_batch(name, augmented(fresh_copy(augmentation), before), f"a batch of the {stage} stage")


def check_augmentation_images(name: str, augmentation: Any) -> None:
    """Check that there are as many finite images, of the same channels and type."""
    for stage, before in USAGE.new_data(augmentation).items():
        _demand_images(name, augmented(fresh_copy(augmentation), before), before, f"a batch of the {stage} stage")


def check_augmentation_targets(name: str, augmentation: Any) -> None:
    """Check that targets stay class probabilities."""
    for stage, before in USAGE.new_data(augmentation).items():
        _demand_targets(name, augmented(fresh_copy(augmentation), before), before, f"a batch of the {stage} stage")


def check_augmentation_masks(name: str, augmentation: Any) -> None:
    """Check that masks stay integers of classes, background or -1, and that none appear or vanish."""
    for stage, before in USAGE.new_data(augmentation).items():
        _demand_masks(name, augmented(fresh_copy(augmentation), before), before, f"a batch of the {stage} stage")


def check_augmentation_one_image(name: str, augmentation: Any) -> None:
    """Check a batch of one image, which has no other image to mix with."""
    for stage in accepted_stages(augmentation):
        _demand_accepted(name, augmentation, f"1 image of the {stage} stage", stage, n=1)


def check_augmentation_other_sizes(name: str, augmentation: Any) -> None:
    """Check images that are not square, and masks of another size than their images."""
    sizes: tuple[tuple[tuple[int, int], tuple[int, int]], ...] = (
        # Images and masks: not square, masks smaller than the images, masks larger than the images.
        ((12, 20), (12, 20)),
        ((SIDE, SIDE), (8, 8)),
        ((8, 8), (20, 20)),
    )
    for stage in accepted_stages(augmentation):
        for size, mask_size in sizes:
            masks = "" if stage == "classifier" else f" with masks of {mask_size[0]} x {mask_size[1]}"
            given = f"images of {size[0]} x {size[1]} pixels{masks} in the {stage} stage"
            _demand_accepted(name, augmentation, given, stage, size=size, mask_size=mask_size)


def check_augmentation_dtypes(name: str, augmentation: Any) -> None:
    """Check that images and targets keep double and half precision."""
    for stage in accepted_stages(augmentation):
        # A batch has the type of the network's weights.
        for dtype in (torch.float64, torch.bfloat16):
            _demand_accepted(name, augmentation, f"{dtype} in the {stage} stage", stage, dtype=dtype)


def check_augmentation_no_gradient(name: str, augmentation: Any) -> None:
    """Check that no tensor of the result requires a gradient, which would keep memory from step to step."""
    for stage, before in USAGE.new_data(augmentation).items():
        after = augmented(fresh_copy(augmentation), before)
        tensors = {field.name: getattr(after, field.name) for field in fields(after)}
        graded = [field for field, tensor in tensors.items() if isinstance(tensor, Tensor) and tensor.requires_grad]
        demand(
            not graded,
            f"{name}.augment: expected tensors without a gradient, got one for {' and '.join(graded)}, given a batch "
            f"of the {stage} stage; compute under torch.no_grad().",
        )


def check_augmentation_attention_bank(name: str, augmentation: Any) -> None:
    """Check that `attention_bank` returns a new bank with one map per image."""
    fresh = fresh_copy(augmentation)
    # A trainer writes to the bank, so two trainings must not share one.
    banks = [fresh.attention_bank(N_IMAGES) for _ in range(2)]
    expected = f"{name}.attention_bank: expected an AttentionBank of {N_IMAGES} images"
    demand(isinstance(banks[0], AttentionBank), f"{expected}, got {type(banks[0]).__name__}.")
    demand(len(banks[0].maps) == N_IMAGES, f"{expected}, got one of {len(banks[0].maps)}.")
    demand(
        banks[0] is not banks[1] and banks[0].maps is not banks[1].maps,
        f"{name}.attention_bank: expected a new AttentionBank for each call, got the same twice.",
    )


def _demand_accepted(name: str, augmentation: Any, given: str, stage: str, **options: Any) -> None:
    """Demand a batch of the right form, without an exception."""
    before = make_batch(augmentation, stage, **options)
    try:
        after = augmented(fresh_copy(augmentation), before)
    except Exception as error:
        raise AssertionError(
            f"{name}.augment: expected a Batch, got {type(error).__name__}: {error}, given {given}."
        ) from error
    _demand_batch(name, after, given)
    _demand_images(name, after, before, given)
    _demand_targets(name, after, before, given)
    _demand_masks(name, after, before, given)


def _demand_batch(name: str, after: Any, given: str) -> None:
    demand(isinstance(after, Batch), f"{name}.augment: expected a Batch, got {type(after).__name__}, given {given}.")


def _demand_images(name: str, after: Batch, before: Batch, given: str) -> None:
    images, n, channels = after.images, *before.images.shape[:2]
    demand(
        images.ndim == 4 and images.shape[:2] == (n, channels),
        f"{name}.augment: expected images of shape ({n}, {channels}, H, W), got {tuple(images.shape)}, given {given}.",
    )
    demand(
        images.dtype == before.images.dtype and images.device == before.images.device,
        f"{name}.augment: expected images of {before.images.dtype} on {before.images.device}, got {images.dtype} on "
        f"{images.device}, given {given}.",
    )
    # One NaN makes the loss of the whole batch NaN.
    bad = int((~torch.isfinite(images)).sum())
    demand(
        bad == 0, f"{name}.augment: expected finite images, got {bad} values that are NaN or infinite, given {given}."
    )


def _demand_targets(name: str, after: Batch, before: Batch, given: str) -> None:
    targets, old = after.targets, before.targets
    demand(
        (targets.shape, targets.dtype, targets.device) == (old.shape, old.dtype, old.device),
        f"{name}.augment: expected targets of shape {tuple(old.shape)} of {old.dtype} on {old.device}, got "
        f"{tuple(targets.shape)} of {targets.dtype} on {targets.device}, given {given}.",
    )
    # Sums, not ones: an augmentation before this one may have changed them.
    apart, tolerance = float((targets.sum(1) - old.sum(1)).abs().max()), 10 * torch.finfo(old.dtype).eps
    demand(
        targets.min() >= 0 and apart <= tolerance,  # False for NaN
        f"{name}.augment: expected targets >= 0 whose rows have the sums of before, got a smallest value of "
        f"{float(targets.min()):.3g} and sums that differ by up to {apart:.3g}, given {given}.",
    )


def _demand_masks(name: str, after: Batch, before: Batch, given: str) -> None:
    masks = after.masks
    if before.masks is None or masks is None:
        expected, got = ("no masks", "masks") if before.masks is None else ("masks", "None")
        demand(masks is before.masks, f"{name}.augment: expected {expected}, got {got}, given {given}.")
        return
    n, device = len(before.masks), before.masks.device
    # Masks of bool would hold two classes at most.
    integers = not masks.dtype.is_floating_point and masks.dtype != torch.bool
    demand(
        masks.ndim == 3 and len(masks) == n and masks.device == device and integers,
        f"{name}.augment: expected integer masks of shape ({n}, H, W) on {device}, got {masks.dtype} of shape "
        f"{tuple(masks.shape)} on {masks.device}, given {given}.",
    )
    # The loss leaves out ignored pixels, which show nothing of an image.
    low, high = int(masks.min()), int(masks.max())
    demand(
        low >= IGNORED and high <= N_CLASSES,
        f"{name}.augment: expected mask values in 0..{N_CLASSES} or {IGNORED}, got values in {low}..{high}, given "
        f"{given}.",
    )
