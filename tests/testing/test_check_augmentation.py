"""The checks of augmentations: good ones pass, and each check fails for one that is broken in its way."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator

from skdfb.augmentation import AttentionBank, BackMix
from skdfb.testing import check_augmentation, parametrize_with_checks
from tests.testing.helpers import BrokenClasses, names_of


class HalfOfAnother:
    """The example of the protocol's docstring."""

    def augment(self, batch, generator):
        other = torch.randperm(len(batch.images), generator=generator)
        images, middle = batch.images.clone(), batch.images.shape[-1] // 2
        images[..., middle:] = batch.images[other][..., middle:]
        return replace(batch, images=images, targets=(batch.targets + batch.targets[other]) / 2)


class Noise(BaseEstimator):
    def __init__(self, scale=0.1):
        self.scale = scale

    def augment(self, batch, generator):
        noise = torch.randn(batch.images.shape, generator=generator).to(batch.images)
        return replace(batch, images=batch.images + self.scale * noise)


class MasksOnly(HalfOfAnother):
    """For the dense stage alone."""

    def augment(self, batch, generator):
        if batch.masks is None:
            raise ValueError("expected a batch with masks")
        return replace(batch, masks=torch.where(batch.masks == 0, -1, batch.masks))


class WithBank(HalfOfAnother):
    """It reads attention maps where there are any."""

    def attention_bank(self, n_images):
        return AttentionBank(n_images, 4)

    def augment(self, batch, generator):
        if batch.masks is None and batch.attention_maps.shape[1:] != (4, 4):
            raise RuntimeError("expected the maps of the bank")
        return super().augment(batch, generator)


breaks = BrokenClasses(check_augmentation)
EVERY_CHECK = breaks.every
EVERY_FORM = ("dtypes", "one_image", "other_sizes")  # checks of the whole batch
GOOD = [HalfOfAnother(), Noise(), MasksOnly(), WithBank(), BackMix(), BackMix(donors="training set")]


@parametrize_with_checks(check_augmentation, GOOD)
def test_good_augmentations_pass(instance, check):
    check(instance)


def test_checks_that_apply():
    plain = names_of(check_augmentation, HalfOfAnother())
    assert plain[0] == "check_augmentation_protocol"

    def further(augmentation):
        names = set(names_of(check_augmentation, augmentation)) - set(plain)
        return {name.removeprefix("check_augmentation_") for name in names}

    assert further(Noise()) == {"clone", "get_and_set_params", "init_only_stores", "keeps_parameters"}
    assert further(WithBank()) == {"attention_bank"}
    assert len(breaks.every) == len(plain) + 5


def test_both_stages_are_checked():
    """BackMix reads masks in one stage, the maps of its bank in the other."""
    batches = []

    class Recording(BackMix):
        def augment(self, batch, generator):
            batches.append((batch.masks is not None, batch.attention_maps is not None))
            return super().augment(batch, generator)

    check_augmentation(Recording(), on_fail=None)
    assert set(batches) == {(True, False), (False, True)}


# -------------------------------------------------------------------------------------------------------- what fails


@breaks("protocol", "expected the method augment, got none", *EVERY_CHECK)
class NoAugment:
    pass


@breaks("protocol", r"augment: expected a method that can be called with 2 argument.s., got too many", *EVERY_CHECK)
class NoGenerator(HalfOfAnother):
    def augment(self, batch):
        return batch


@breaks(
    "protocol", "augment: expected a batch of at least one stage to be accepted, got ValueError: never", *EVERY_CHECK
)
class NeverAccepts(HalfOfAnother):
    def augment(self, batch, generator):
        raise ValueError("never")


@breaks("batch", "augment: expected a Batch, got tuple, given a batch of the classifier stage", *EVERY_CHECK)
class Tuple(HalfOfAnother):
    def augment(self, batch, generator):
        batch = super().augment(batch, generator)
        return batch.images, batch.targets


@breaks("images", r"expected images of shape \(6, 3, H, W\), got \(5, 3, 16, 16\)", *EVERY_FORM)
class OneTooFew(HalfOfAnother):
    def augment(self, batch, generator):
        batch = super().augment(batch, generator)
        return replace(batch, images=batch.images[1:])


@breaks("images", r"expected images of torch.float32 on cpu, got torch.float64", *EVERY_FORM)
class Doubles(HalfOfAnother):
    def augment(self, batch, generator):
        batch = super().augment(batch, generator)
        return replace(batch, images=batch.images.double())


@breaks(
    "images",
    r"expected finite images, got 1 values that are NaN or infinite",
    "deterministic",
    "dtypes",
    "joblib",
    "one_image",
    "other_sizes",
    "pickle",
    "result_keeps_state",
)
class NaN(HalfOfAnother):
    def augment(self, batch, generator):
        batch = super().augment(batch, generator)
        batch.images[0, 0, 0, 0] = np.nan
        return batch


@breaks("targets", r"expected targets of shape \(6, 3\) of torch.float32 on cpu, got \(6,\)", *EVERY_FORM)
class Labels(HalfOfAnother):
    def augment(self, batch, generator):
        batch = super().augment(batch, generator)
        return replace(batch, targets=batch.targets.argmax(1))


@breaks(
    "targets",
    "expected targets >= 0 whose rows have the sums of before, got a smallest value of -",
    "dtypes",
    "other_sizes",
)
class NegativeTargets(HalfOfAnother):
    def augment(self, batch, generator):
        batch = super().augment(batch, generator)
        shift = torch.tensor([-1.0, 1.0, 0.0])
        return replace(batch, targets=batch.targets + shift.to(batch.targets))


@breaks("targets", "whose rows have the sums of before, got .* sums that differ by up to 1,", *EVERY_FORM)
class SummedTargets(HalfOfAnother):
    def augment(self, batch, generator):
        return replace(batch, targets=2 * super().augment(batch, generator).targets)


@breaks("masks", "expected no masks, got masks, given a batch of the classifier stage", *EVERY_FORM)
class InventedMasks(HalfOfAnother):
    def augment(self, batch, generator):
        batch = super().augment(batch, generator)
        return replace(batch, masks=torch.zeros_like(batch.images[:, 0], dtype=torch.int64))


@breaks("masks", "expected masks, got None, given a batch of the dense stage", *EVERY_FORM)
class LostMasks(HalfOfAnother):
    def augment(self, batch, generator):
        return replace(super().augment(batch, generator), masks=None)


@breaks("masks", r"expected integer masks of shape \(6, H, W\) on cpu, got torch.float32 of shape", *EVERY_FORM)
class FloatMasks(HalfOfAnother):
    def augment(self, batch, generator):
        masks = batch.masks if batch.masks is None else batch.masks.float()
        return replace(super().augment(batch, generator), masks=masks)


@breaks("masks", r"expected mask values in 0\.\.3 or -1, got values in -2\.\.3", *EVERY_FORM)
class AnotherIgnoredValue(HalfOfAnother):
    def augment(self, batch, generator):
        masks = batch.masks if batch.masks is None else torch.where(batch.masks == 0, -2, batch.masks)
        return replace(super().augment(batch, generator), masks=masks)


@breaks("one_image", "expected a Batch, got IndexError: .*, given 1 image of the classifier stage")
class NeedsASecondImage(HalfOfAnother):
    def augment(self, batch, generator):
        batch.images[1]
        return super().augment(batch, generator)


@breaks("other_sizes", "expected a Batch, got RuntimeError: .*, given images of 12 x 20 pixels")
class Transposing(HalfOfAnother):
    def augment(self, batch, generator):
        return super().augment(replace(batch, images=(batch.images + batch.images.mT) / 2), generator)


@breaks("other_sizes", "given images of 16 x 16 pixels with masks of 8 x 8 in the dense stage")
class MasksLikeImages(HalfOfAnother):
    def augment(self, batch, generator):
        batch = super().augment(batch, generator)
        if batch.masks is not None:
            batch.images[(batch.masks < 0)[:, None].expand_as(batch.images)] = 0
        return batch


@breaks("dtypes", "expected images of torch.float64 on cpu, got torch.float32")
class FloatsOnly(HalfOfAnother):
    def augment(self, batch, generator):
        batch = super().augment(batch, generator)
        return replace(batch, images=batch.images.float())


@breaks("no_gradient", "expected tensors without a gradient, got one for images")
class Trainable(HalfOfAnother):
    def augment(self, batch, generator):
        batch = super().augment(batch, generator)
        return replace(batch, images=batch.images * torch.ones((), dtype=batch.images.dtype, requires_grad=True))


@breaks(
    "inputs_unchanged",
    r"augment: expected .*, got changes in images \(classifier stage\) and images",
    "joblib",
    "pickle",
    "result_keeps_state",
)
class InPlace(HalfOfAnother):
    def augment(self, batch, generator):
        batch.images.mul_(0.5)
        return super().augment(batch, generator)


@breaks("global_random_state", "got another of torch, given", "deterministic", "joblib", "pickle", "result_keeps_state")
class GlobalTorch(HalfOfAnother):
    def augment(self, batch, generator):
        batch = super().augment(batch, generator)
        return replace(batch, images=batch.images + torch.rand(()).to(batch.images))


@breaks("global_random_state", "got another of Python and NumPy, given")
class GlobalNumPy(HalfOfAnother):
    def augment(self, batch, generator):
        np.random.random()  # noqa: NPY002
        random.random()
        return super().augment(batch, generator)


@breaks("deterministic", "given the same data twice", "joblib", "pickle", "result_keeps_state")
class Unseeded(HalfOfAnother):
    def augment(self, batch, generator):
        batch = super().augment(batch, generator)
        return replace(batch, images=batch.images + np.random.default_rng().random())


@breaks("result_keeps_state", "given other data in augment in between", "joblib", "pickle")
class Counting(HalfOfAnother):
    """What it returns depends on how often it was called, which no checkpoint stores."""

    calls = 0

    def augment(self, batch, generator):
        self.calls += 1
        batch = super().augment(batch, generator)
        return replace(batch, images=batch.images + self.calls)


@breaks("pickle", "whose attributes pickle can store, got", "joblib")
class HoldingALambda(HalfOfAnother):
    def __init__(self):
        self.identity = lambda images: images


@breaks("joblib", "given a round trip through joblib", "pickle")
class ForgettingWhenPickled(HalfOfAnother):
    def __init__(self):
        self.shift = 1.0

    def __getstate__(self):
        return {"shift": 0.0}

    def __deepcopy__(self, memo):
        return type(self)()

    def augment(self, batch, generator):
        batch = super().augment(batch, generator)
        return replace(batch, images=batch.images + self.shift)


@breaks("attention_bank", "attention_bank: expected an AttentionBank of 6 images, got list", *EVERY_CHECK)
class ListOfMaps(WithBank):
    def attention_bank(self, n_images):
        return [torch.zeros(4, 4)] * n_images


@breaks("attention_bank", "attention_bank: expected an AttentionBank of 6 images, got one of 10")
class FixedBank(WithBank):
    def attention_bank(self, n_images):
        return AttentionBank(10, 4)


@breaks("attention_bank", "attention_bank: expected a new AttentionBank for each call, got the same twice", "one_image")
class OneBank(WithBank):
    def __init__(self):
        self.bank = AttentionBank(6, 4)

    def attention_bank(self, n_images):
        return self.bank


@breaks("clone", "expected the batches of the original, got batches that differ by")
class HidingASetting(Noise):
    shift = 0.0

    def augment(self, batch, generator):
        batch = super().augment(batch, generator)
        return replace(batch, images=batch.images + self.shift)


@breaks("get_and_set_params", "set_params: expected the object itself, got None")
class ReturningNothing(Noise):
    def set_params(self, **params):
        super().set_params(**params)


@breaks("init_only_stores", r"__init__: expected parameters alone, got \['calls_'\] as well")
class Preparing(Noise):
    def __init__(self, scale=0.1):
        super().__init__(scale)
        self.calls_ = 0


@breaks(
    "keeps_parameters",
    r"augment: expected parameters as before, got changes in \['scale'\]",
    "joblib",
    "pickle",
    "result_keeps_state",
)
class Cooling(Noise):
    def augment(self, batch, generator):
        batch = super().augment(batch, generator)
        self.scale *= 0.9
        return batch


def instance_of(broken):
    instance = broken()
    if broken is HidingASetting:
        instance.shift = 1.0
    return instance


@pytest.mark.parametrize(("broken", "check", "message", "also"), breaks.cases)
def test_a_broken_augmentation_is_found(broken, check, message, also):
    breaks.assert_found(instance_of(broken), check, message, also)


def test_every_check_can_fail():
    breaks.assert_every_check_can_fail()
