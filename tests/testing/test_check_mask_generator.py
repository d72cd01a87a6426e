"""The checks of mask generators: good ones pass, and each check fails for a generator that is broken in its way."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator

from skdfb.testing import check_mask_generator, parametrize_with_checks
from tests.testing.helpers import BrokenClasses, names_of, statuses_of


class BrightPixels:
    """A generator in a few lines of NumPy: the foreground is brighter than the mean of its image."""

    def fit_transform(self, X, y):
        return np.where(self.bright(X), y[:, None, None], y.max() + 1)

    def bright(self, X):
        grey = np.stack([np.asarray(image).mean(axis=0) for image in X.read(np.arange(len(X)))])
        return grey > grey.mean(axis=(1, 2), keepdims=True)


class Learned(BrightPixels):
    """A generator with transform: foreground pixels of new images get the class whose foreground is as large."""

    def fit_transform(self, X, y):
        sizes = self.bright(X).sum(axis=(1, 2))
        self.sizes_ = np.array([sizes[y == label].mean() for label in range(y.max() + 1)])
        return super().fit_transform(X, y)

    def transform(self, X):
        bright = self.bright(X)
        nearest = np.abs(bright.sum(axis=(1, 2))[:, None] - self.sizes_).argmin(axis=1)
        return np.where(bright, nearest[:, None, None], len(self.sizes_))


class BrightEstimator(BrightPixels, BaseEstimator):
    def __init__(self, backbone=None, mask_size=None, random_state=None):
        self.backbone = backbone
        self.mask_size = mask_size
        self.random_state = random_state

    def fit_transform(self, X, y):
        masks = super().fit_transform(X, y)
        if self.mask_size is None:
            return masks
        rows, columns = (np.arange(self.mask_size) * side // self.mask_size for side in masks.shape[1:])
        return masks[:, rows][:, :, columns]


breaks = BrokenClasses(check_mask_generator)
EVERY_CHECK = breaks.every
EVERY_FORM = ("float_pixels", "in_detector", "n_classes")  # checks of shape, type and values at once
GOOD = [BrightPixels(), Learned(), BrightEstimator()]


@parametrize_with_checks(check_mask_generator, GOOD)
def test_good_generators_pass(instance, check):
    check(instance)


def test_checks_that_apply():
    plain = names_of(check_mask_generator, BrightPixels())
    assert plain[0] == "check_mask_generator_protocol"

    def further(generator):
        names = set(names_of(check_mask_generator, generator)) - set(plain)
        return {name.removeprefix("check_mask_generator_") for name in names}

    assert further(BrightEstimator()) == {"clone", "get_and_set_params", "init_only_stores", "keeps_parameters"}
    assert further(Learned()) == {"transform", "result_keeps_state", "pickle", "joblib"}
    assert len(breaks.every) == len(plain) + 8


# -------------------------------------------------------------------------------------------------------- what fails


@breaks("protocol", "expected the method fit_transform, got none", *EVERY_CHECK)
class NoFitTransform:
    def fit(self, X, y):
        return self


@breaks(
    "protocol", r"fit_transform: expected a method that can be called with 2 argument.s., got too many", *EVERY_CHECK
)
class NoLabels(BrightPixels):
    def fit_transform(self, X):
        return super().fit_transform(X, np.zeros(len(X), dtype=int))


@breaks("inputs_unchanged", "fit_transform: expected .*, got changes in y;")
class Relabelling(BrightPixels):
    def fit_transform(self, X, y):
        masks = super().fit_transform(X, y)
        y[:] = 0
        return masks


@breaks("inputs_unchanged", "fit_transform: expected .*, got changes in the pixels that X.read returned;")
class DarkeningInPlace(BrightPixels):
    def bright(self, X):
        bright = super().bright(X)
        X.read(np.arange(len(X)))[0].zero_()
        return bright


@breaks("inputs_unchanged", "transform: expected .*, got changes in the pixels that X.read returned;")
class DarkeningNewImages(Learned):
    def transform(self, X):
        masks = super().transform(X)
        X.read(np.arange(len(X)))[0].zero_()
        return masks


@breaks("shape", r"expected masks of shape \(12, H, W\), got \(12, 1024\)", *EVERY_FORM)
class Flat(BrightPixels):
    def fit_transform(self, X, y):
        masks = super().fit_transform(X, y)
        return masks.reshape(len(masks), -1)


@breaks("shape", r"expected masks of shape \(12, H, W\), got \(11, 32, 32\)", *EVERY_FORM)
class OneTooFew(BrightPixels):
    def fit_transform(self, X, y):
        return super().fit_transform(X, y)[1:]


@breaks("dtype", "expected masks of integers, got float64", *EVERY_FORM)
class Floats(BrightPixels):
    def fit_transform(self, X, y):
        return super().fit_transform(X, y).astype(float)


@breaks("values", r"expected classes 0\.\.2 and 3 for the background, got values in -1\.\.2", *EVERY_FORM)
class NegativeBackground(BrightPixels):
    def fit_transform(self, X, y):
        return np.where(self.bright(X), y[:, None, None], -1)


@breaks("n_classes", r"expected classes 0\.\.1 and 2 for the background, got values in 0\.\.3, given 2 classes")
class AlwaysThreeClasses(BrightPixels):
    def fit_transform(self, X, y):
        return np.where(self.bright(X), y[:, None, None], 3)


@breaks("several_sizes", "or a ValueError with a message, got AttributeError: .*, given images of several sizes")
class OneTensorOnly(BrightPixels):
    def bright(self, X):
        grey = X.read(np.arange(len(X))).float().mean(dim=1).numpy()
        return grey > grey.mean(axis=(1, 2), keepdims=True)


@breaks(
    "several_sizes", "expected one array of masks, got a list that cannot be made an array, given images of several"
)
class MasksOfSeveralSizes(BrightPixels):
    def fit_transform(self, X, y):
        images = [np.asarray(image).mean(axis=0) for image in X.read(np.arange(len(X)))]
        masks = [np.where(grey > grey.mean(), label, y.max() + 1) for grey, label in zip(images, y, strict=True)]
        return np.stack(masks) if X.size else masks


@breaks(
    "float_pixels", "expected the masks of the same pixels as integers, got other values in 1[0-9]?.* % of the pixels"
)
class FixedThreshold(BrightPixels):
    def bright(self, X):
        return np.stack([np.asarray(image).mean(axis=0) for image in X.read(np.arange(len(X)))]) > 127


@breaks("in_detector", "expected masks of the classifier that a detector hands over as backbone, got TypeError")
class BackboneByName(BrightEstimator):
    def fit_transform(self, X, y):
        self.name_ = "pre" + (self.backbone or "")
        return super().fit_transform(X, y)


@breaks("in_detector", r"expected masks of shape \(12, 16, 16\) for the parameter mask_size, got \(12, 32, 32\)")
class IgnoresTheMaskSize(BrightEstimator):
    def fit_transform(self, X, y):
        return BrightPixels.fit_transform(self, X, y)


@breaks("transform", r"transform: expected masks of shape \(8, 32, 32\), got \(8, 1024\), given 8 new images")
class FlatForNewImages(Learned):
    def transform(self, X):
        masks = super().transform(X)
        return masks.reshape(len(masks), -1)


@breaks("transform", r"transform: expected classes 0\.\.2 and 3 for the background, got values in 0\.\.4")
class AnotherBackgroundForNewImages(Learned):
    def transform(self, X):
        masks = super().transform(X)
        return masks + (masks == len(self.sizes_))


@breaks("global_random_state", "got another of torch, given")
class DrawingFromTorch(BrightPixels):
    def fit_transform(self, X, y):
        import torch

        torch.rand(1)
        return super().fit_transform(X, y)


@breaks("refit", "given an earlier fit_transform on other data")
class Remembering(BrightPixels):
    def fit_transform(self, X, y):
        self.masks_ = getattr(self, "masks_", None) if hasattr(self, "masks_") else super().fit_transform(X, y)
        return self.masks_


@breaks("deterministic", "given the same data twice", "refit")
class Unseeded(BrightPixels):
    def bright(self, X):
        bright = super().bright(X)
        return bright & (np.random.default_rng().random(bright.shape) > 0.01)


@breaks("clone", "expected the masks of the original, got masks that differ by")
class HidingASetting(BrightEstimator):
    inverted = False

    def bright(self, X):
        return super().bright(X) ^ self.inverted


@breaks("get_and_set_params", "set_params: expected the object itself, got None", "in_detector")
class ReturningNothing(BrightEstimator):
    def set_params(self, **params):
        super().set_params(**params)


@breaks("init_only_stores", r"__init__: expected parameters alone, got \['masks_'\] as well")
class Preparing(BrightEstimator):
    def __init__(self, backbone=None, mask_size=None, random_state=None):
        super().__init__(backbone, mask_size, random_state)
        self.masks_ = []


@breaks("keeps_parameters", r"fit_transform: expected parameters as before, got changes in \['mask_size'\]")
class StoringTheSize(BrightEstimator):
    def fit_transform(self, X, y):
        masks = super().fit_transform(X, y)
        self.mask_size = masks.shape[1]
        return masks


@breaks("result_keeps_state", "given other data in transform in between")
class LearningWhereTransforming(Learned):
    def transform(self, X):
        masks, first = super().transform(X), int(X.read(np.array([0]))[0].sum())
        if getattr(self, "first_", first) != first:
            self.sizes_ = np.roll(self.sizes_, 1)
        self.first_ = first
        return masks


@breaks("pickle", "whose attributes pickle can store, got", "joblib")
class HoldingALambda(Learned):
    def fit_transform(self, X, y):
        self.term_ = lambda grey: grey
        return super().fit_transform(X, y)


@breaks("joblib", "given a round trip through joblib", "pickle")
class ForgettingWhenPickled(Learned):
    def __getstate__(self):
        return {name: 0 * sizes for name, sizes in vars(self).items()}


def instance_of(broken):
    instance = broken()
    if broken is HidingASetting:
        instance.inverted = True
    return instance


@pytest.mark.parametrize(("broken", "check", "message", "also"), breaks.cases)
def test_a_broken_generator_is_found(broken, check, message, also):
    breaks.assert_found(instance_of(broken), check, message, also)


def test_every_check_can_fail():
    breaks.assert_every_check_can_fail()


def test_refusing_several_sizes_and_floats_is_allowed():
    class Strict(BrightPixels):
        def bright(self, X):
            pixels = X.read(np.arange(len(X)))
            if X.size is None or pixels[0].is_floating_point():
                raise ValueError("expected integers of one size")
            return super().bright(X)

    assert set(statuses_of(check_mask_generator, Strict()).values()) == {"passed"}
