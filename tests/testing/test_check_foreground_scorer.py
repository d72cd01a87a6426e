"""The checks of scorers: good ones pass, and each check fails for a scorer that is broken in its way."""

import random
from unittest import mock

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from skdfb.testing import check_foreground_scorer, parametrize_with_checks
from tests.testing.helpers import BrokenClasses, names_of, statuses_of


class NearestMean:
    """A scorer in ten lines of NumPy."""

    def fit(self, representation, y):
        features = self.features_of(representation)
        y = np.zeros(len(features)) if y is None else y
        self.means_ = [features[y == label].mean(axis=0) for label in np.unique(y)]
        return self

    def score_samples(self, representation):
        features = self.features_of(representation)
        return -np.min([np.linalg.norm(features - mean, axis=1) for mean in self.means_], axis=0)

    def features_of(self, representation):
        return representation.features.numpy().astype(np.float64)


class NearestMeanEstimator(NearestMean, BaseEstimator):
    def __init__(self, scale=1.0, random_state=None):
        self.scale = scale
        self.random_state = random_state

    def score_samples(self, representation):
        return self.scale * super().score_samples(representation)


class Layers(NearestMean):
    needs_activations = ("layers", "feature_map")

    def fit(self, representation, y):
        sums = [self.features_of(batch).sum(axis=0) for batch in representation.batches()]
        self.means_ = [np.sum(sums, axis=0) / len(representation)]
        return self

    def features_of(self, representation):
        maps = representation.activations["feature_map"].mean((2, 3))
        return torch.cat([representation.activations["layer1"], maps], dim=1).numpy().astype(np.float64)


class Perturbing(NearestMean):
    input_perturbation = 0.1

    def perturbation_objective(self, logits):
        return logits.logsumexp(1)

    def score_samples(self, representation):
        if representation.input_perturbation != 0.1:
            raise RuntimeError("these images are not perturbed")
        return super().score_samples(representation)


class HeldOut(NearestMean):
    learns_from_held_out = True

    def fit(self, representation, y, held_out=None):
        return super().fit(representation, y)


class OnDevice(NearestMean):
    def score_on_device(self, representation):
        return torch.from_numpy(self.score_samples(representation))


breaks = BrokenClasses(check_foreground_scorer)
EVERY_CHECK = breaks.every
GOOD = [NearestMean(), NearestMeanEstimator(), Layers(), Perturbing(), HeldOut(), OnDevice()]


# ------------------------------------------------------------------------------------------------------ what passes


@parametrize_with_checks(check_foreground_scorer, GOOD)
def test_good_scorers_pass(instance, check):
    check(instance)


@pytest.mark.parametrize("scorer", GOOD, ids=lambda scorer: type(scorer).__name__)
def test_the_scorer_is_not_changed(scorer):
    before = dict(vars(scorer))
    check_foreground_scorer(scorer)
    assert vars(scorer) == before


def test_checks_that_apply():
    plain = names_of(check_foreground_scorer, NearestMean())
    assert plain[0] == "check_scorer_protocol"
    assert len(plain) >= 27

    def further(scorer):
        names = set(names_of(check_foreground_scorer, scorer)) - set(plain)
        return {name.removeprefix("check_scorer_") for name in names}

    parameters = {"clone", "get_and_set_params", "init_only_stores", "keeps_parameters", "fit_returns_self"}
    assert further(NearestMeanEstimator()) == parameters
    assert further(Layers()) == {"streamed_activations"}
    assert further(HeldOut()) == {"held_out_images"}
    assert further(Perturbing()) == {"perturbation_objective"}
    assert further(OnDevice()) == {"scores_on_device"}
    assert len(breaks.every) == len(plain) + 9


# ------------------------------------------------------------------------------------------------- what fails


@breaks("protocol", "without score_samples", *EVERY_CHECK)
class NoScoreSamples:
    def fit(self, representation, y):
        return self


@breaks("protocol", "needs_activations is 'feature_map'", *EVERY_CHECK)
class UnknownActivations(NearestMean):
    needs_activations = "feature_map"


@breaks("protocol", "output is 'logits'", "output")
class UnknownOutput(NearestMean):
    output = "logits"


@breaks("protocol", "8 features are too many")
class RefusesSizes(NearestMean):
    def check_sizes(self, n_features, n_classes, n_images):
        raise ValueError(f"{n_features} features are too many")


@breaks("output", "expected scores <= 0 for the declared output .*, got 9")
class NoLogProbability(NearestMean):
    output = "log_probability"

    def score_samples(self, representation):
        return 10 + super().score_samples(representation)


@breaks("shape", r"expected shape \(60,\), .*, got \(60, 1\), given 60 images", *EVERY_CHECK)
class Column(NearestMean):
    def score_samples(self, representation):
        return super().score_samples(representation)[:, None]


@breaks("shape", r"expected shape \(1,\), .*, got \(\), given 1 images", "one_image")
class Squeezed(NearestMean):
    def score_samples(self, representation):
        return super().score_samples(representation).squeeze()


@breaks("shape", r"expected shape \(60,\), .*, got \(37,\), given 60 images", *EVERY_CHECK)
class FirstBatch(NearestMean):
    def score_samples(self, representation):
        return super().score_samples(next(iter(representation.batches())))


@breaks("dtype", "expected floating-point numbers, .*, got int64", "float32")
class Integers(NearestMean):
    def score_samples(self, representation):
        return (100 * super().score_samples(representation)).astype(np.int64)


@breaks("finite", "expected finite scores, got 1 that are NaN or infinite, .* given 200 training images", *EVERY_CHECK)
class NaN(NearestMean):
    def score_samples(self, representation):
        scores = super().score_samples(representation)
        return np.where(scores == scores.min(initial=0), np.nan, scores)


@breaks("row_order", "given images in another order", "batches")
class Numbered(NearestMean):
    def score_samples(self, representation):
        return super().score_samples(representation) + 1e-3 * np.arange(len(representation))


@breaks("batches", "given images one at a time")
class BatchNormalised(NearestMean):
    def score_samples(self, representation):
        scores = super().score_samples(representation)
        return scores - scores.sum() / max(len(scores), 1)


@breaks("batches", "given images one at a time")
class Rounded(NearestMean):
    def score_samples(self, representation):
        scores = super().score_samples(representation)
        return scores * (1 + 3e-5 * (len(scores) > 1))


@breaks("batches", "given images in three batches")
class OnlySmallBatches(NearestMean):
    def score_samples(self, representation):
        return super().score_samples(representation) + (1 < len(representation) < 10)


@breaks("float32", "given float32 instead of float64")
class LostDigits(NearestMean):
    def score_samples(self, representation):
        dtype = np.result_type(representation.features.numpy(), np.float32)
        return (super().score_samples(representation) + 1e6).astype(dtype)


@breaks("float16", "given float16 features")
class HalfPrecision(NearestMean):
    def features_of(self, representation):
        return representation.features.numpy()


@breaks("inputs_unchanged", "fit: expected .*, got changes in features;", *EVERY_CHECK)
class Centring(NearestMean):
    def fit(self, representation, y):
        representation.features.sub_(representation.features.mean(0))
        return super().fit(representation, y)


@breaks("inputs_unchanged", "score_samples: expected .*, got changes in logits;", *EVERY_CHECK)
class ScalingLogits(NearestMean):
    def score_samples(self, representation):
        representation.logits.mul_(2)
        return super().score_samples(representation)


@breaks("inputs_unchanged", "fit: expected .*, got changes in weight and bias;", *EVERY_CHECK)
class ScalingHead(NearestMean):
    def fit(self, representation, y):
        representation.weight.mul_(2)
        representation.bias.mul_(2)
        return super().fit(representation, y)


@breaks("inputs_unchanged", "fit: expected .*, got changes in y;", *EVERY_CHECK)
class Relabelling(NearestMean):
    def fit(self, representation, y):
        super().fit(representation, y)
        if y is not None:
            y[:] = 0
        return self


@breaks("inputs_unchanged", r"score_samples: expected .*, got changes in activations\['layer1'\]", *EVERY_CHECK)
class ScalingActivations(Layers):
    def score_samples(self, representation):
        representation.activations["layer1"].mul_(2)
        return super().score_samples(representation)


@breaks("inputs_unchanged", r"score_samples: expected .*, got changes in activations\['layer1'\]", *EVERY_CHECK)
class DroppingActivations(Layers):
    def score_samples(self, representation):
        scores = super().score_samples(representation)
        representation.activations.pop("layer1")
        return scores


@breaks("memory_mapped", "fit: expected .*, got changes in features;", *EVERY_CHECK)
class WritingToFeatures(NearestMean):
    def fit(self, representation, y):
        super().fit(representation, y)
        representation.features[-1, -1] += 1
        return self


@breaks("global_random_state", "got another of NumPy, given")
class SeedingNumPy(NearestMean):
    def fit(self, representation, y):
        np.random.seed(0)  # noqa: NPY002
        return super().fit(representation, y)


@breaks("global_random_state", "got another of Python and torch, given")
class DrawingWhereScoring(NearestMean):
    def score_samples(self, representation):
        random.random()
        torch.rand(1)
        return super().score_samples(representation)


@breaks("result_keeps_state", "given other data in score_samples in between", "row_order", "batches")
class LearningWhereScoring(NearestMean):
    def score_samples(self, representation):
        scores, first = super().score_samples(representation), self.features_of(representation)[:1].sum()
        if len(representation) == 60 and getattr(self, "first_", first) != first:
            self.means_[0] = self.features_of(representation).mean(0)
        self.first_ = first
        return scores


@breaks("refit", "given an earlier fit on other data")
class Remembering(NearestMean):
    def fit(self, representation, y):
        return self if hasattr(self, "means_") else super().fit(representation, y)


@breaks("refit", "given an earlier fit on other data")
class Collecting(NearestMean):
    def fit(self, representation, y):
        before = getattr(self, "means_", [])
        super().fit(representation, y)
        self.means_ = before + self.means_
        return self


@breaks("deterministic", "given the same data twice", "refit", "float32", "float16", "memory_mapped")
class Unseeded(NearestMean):
    def fit(self, representation, y):
        super().fit(representation, y)
        self.means_ = np.random.default_rng().normal(size=(1, representation.n_features))
        return self


@breaks("pickle", "whose attributes pickle can store, got", "joblib")
class HoldingALambda(NearestMean):
    def fit(self, representation, y):
        self.distance_ = lambda: 0
        return super().fit(representation, y)


@breaks("pickle", "given a round trip through pickle", "joblib")
class ForgettingWhenPickled(NearestMean):
    def __getstate__(self):
        return {name: [0 * mean for mean in means] for name, means in vars(self).items()}


@breaks("joblib", "whose attributes joblib can store, got", "pickle")
class LosingItsState(NearestMean):
    def __reduce__(self):
        return LosingItsState, ()

    def __deepcopy__(self, memo):
        return LosingItsState()


@breaks("class_without_images", "150 scores of 150 that are NaN or infinite, given no image of class 1", "one_image",
        "fewer_images_than_features")  # fmt: skip
class MeansOfAllClasses(NearestMean):
    def fit(self, representation, y):
        features, y = self.features_of(representation), np.zeros(len(representation)) if y is None else y
        with np.errstate(invalid="ignore"):
            self.means_ = [features[y == k].sum(0) / (y == k).sum() for k in range(representation.n_classes)]
        return self


class Standardised(NearestMean):
    ddof = 0

    def fit(self, representation, y):
        super().fit(representation, y)
        features = self.features_of(representation)
        self.means_ = [features.mean(axis=0)]
        self.std_ = features.std(axis=0, ddof=self.ddof)
        return self

    def score_samples(self, representation):
        standardised = (self.features_of(representation) - self.means_[0]) / self.std_
        return -np.linalg.norm(standardised, axis=1)


breaks("constant_features", "NaN or infinite, given training images with the same features", "one_image")(Standardised)


@breaks("one_image", "NaN or infinite, given 1 training image", "constant_features")
class SampleDeviation(Standardised):
    ddof = 1


@breaks("signed_features", "NaN or infinite, given features of both signs")
class Roots(NearestMean):
    def features_of(self, representation):
        return np.sqrt(super().features_of(representation))


@breaks("fewer_images_than_features", "got LinAlgError: .*, given 5 training images of 8 features", "one_image",
        "constant_features")  # fmt: skip
class Inverting(NearestMean):
    def fit(self, representation, y):
        features = self.features_of(representation)
        if np.linalg.matrix_rank(features - features.mean(0)) < representation.n_features:
            raise np.linalg.LinAlgError("Singular matrix")
        return super().fit(representation, y)


@breaks("one_feature", "got IndexError: .*, given images of 1 feature")
class SecondFeature(NearestMean):
    def score_samples(self, representation):
        return super().score_samples(representation) + 0 * representation.features[:, 1].numpy()


@breaks("two_classes", "got IndexError: .*, given images of 2 classes", "one_class")
class ThirdLogit(NearestMean):
    def score_samples(self, representation):
        return super().score_samples(representation) + np.sort(representation.logits.numpy())[:, -3]


@breaks("one_class", "got IndexError: .*, given a background representation .* and zeros for y")
class SecondLogit(NearestMean):
    def score_samples(self, representation):
        return super().score_samples(representation) + np.sort(representation.logits.numpy())[:, -2]


@breaks("one_class", "got TypeError: .*, given a background representation .* and None for y")
class NeedsLabels(NearestMean):
    def fit(self, representation, y):
        self.counts_ = [len(y)]
        return super().fit(representation, y)


@breaks("unusual_images", "60 scores of 60 that are NaN or infinite, given new images whose features are all 0",
        "one_feature")  # fmt: skip
class Cosine(NearestMean):
    def features_of(self, representation):
        features = super().features_of(representation)
        return features / np.linalg.norm(features, axis=1, keepdims=True)


@breaks("unusual_images", "60 scores of 60 that are NaN or infinite, given new images with huge features")
class Exponential(NearestMean):
    def score_samples(self, representation):
        return -np.log(np.exp(-super().score_samples(representation)))


@breaks("no_images", "got IndexError: .*, given 0 images to score")
class FirstImage(NearestMean):
    def score_samples(self, representation):
        self.width_ = len(representation.features[0])
        return super().score_samples(representation)


@breaks("no_images", r"expected scores of shape \(0,\), got \(1,\), given 0 images to score")
class AtLeastOne(NearestMean):
    def score_samples(self, representation):
        return super().score_samples(representation) if len(representation) else np.zeros(1)


@breaks("no_images", "got a ValueError without a message, given 0 images to score")
class Silent(NearestMean):
    def score_samples(self, representation):
        if not len(representation):
            raise ValueError
        return super().score_samples(representation)


@breaks("no_images", "got NotFittedError: fit first, given 0 images to score")
class Unfitted(NearestMean):
    def score_samples(self, representation):
        if not len(representation):
            raise NotFittedError("fit first")
        return super().score_samples(representation)


@breaks("clone", r"what __init__ stores after clone, got \['means_'\] as well")
class CloningAll(NearestMeanEstimator):
    def __sklearn_clone__(self):
        other = type(self)(**self.get_params())
        vars(other).update(vars(self))
        return other


@breaks("clone", "expected the scores of the original, got scores that differ by")
class HidingASetting(NearestMeanEstimator):
    sign = 1.0

    def score_samples(self, representation):
        return self.sign * super().score_samples(representation)


@breaks("clone", "Cannot clone object", *EVERY_CHECK)
class CopyingAParameter(NearestMeanEstimator):
    def __init__(self, scale=1.0, random_state=None):
        self.scale = np.array(scale)
        self.random_state = random_state


@breaks("get_and_set_params", "get_params: expected the value that set_params was given, got random_state=None")
class NotSetting(NearestMeanEstimator):
    def set_params(self, **params):
        return self


@breaks("get_and_set_params", "set_params: expected the object itself, got None")
class ReturningNothing(NearestMeanEstimator):
    def set_params(self, **params):
        super().set_params(**params)


@breaks("init_only_stores", r"__init__: expected parameters alone, got \['means_'\] as well")
class Preparing(NearestMeanEstimator):
    def __init__(self, scale=1.0, random_state=None):
        super().__init__(scale, random_state)
        self.means_ = []


@breaks("init_only_stores", r"get_params: expected all parameters of __init__, got none named \['scale'\]")
class HidingAParameter(NearestMeanEstimator):
    def __init__(self, scale=1.0, random_state=None):
        super().__init__(scale, random_state)

    def get_params(self, deep=True):
        return {"random_state": self.random_state}


@breaks("keeps_parameters", r"fit: expected parameters as before, got changes in \['scale'\]")
class Tuning(NearestMeanEstimator):
    def fit(self, representation, y):
        self.scale = 2.0
        return super().fit(representation, y)


@breaks("keeps_parameters", r"fit: expected parameters as before, got changes in \['scale'\]", "refit")
class TuningInPlace(NearestMeanEstimator):
    def __init__(self, scale=(), random_state=None):
        super().__init__(scale, random_state)

    def fit(self, representation, y):
        self.scale.append(2.0)
        return super().fit(representation, y)

    def score_samples(self, representation):
        return self.scale[-1] * NearestMean.score_samples(self, representation)


@breaks("fit_returns_self", "fit: expected the object itself, got None")
class FitWithoutSelf(NearestMeanEstimator):
    def fit(self, representation, y):
        super().fit(representation, y)


@breaks("streamed_activations", "got TypeError: .*, given activations in representation.batches")
class AllLayersAtOnce(Layers):
    def fit(self, representation, y):
        self.means_ = [self.features_of(representation).mean(axis=0)]
        return self


@breaks("streamed_activations", "expected the scores of all activations at once")
class GivingUpLayers(Layers):
    def fit(self, representation, y):
        super().fit(representation, y)
        self.means_ = [mean * (representation.activations is not None) for mean in self.means_]
        return self


@breaks("scores_on_device", "expected a tensor on cpu, got ndarray")
class ArrayOnDevice(NearestMean):
    def score_on_device(self, representation):
        return self.score_samples(representation)


@breaks("scores_on_device", "expected the scores of score_samples, got scores that differ")
class OtherOnDevice(OnDevice):
    def score_on_device(self, representation):
        return -super().score_on_device(representation)


@breaks("held_out_images", "held_out")
class NotTakingHeldOut(NearestMean):
    learns_from_held_out = True


@breaks("held_out_images", "fit: expected .*, got changes in features")
class WritingToHeldOut(HeldOut):
    def fit(self, representation, y, held_out=None):
        if held_out is not None:
            held_out[0].features.mul_(2)
        return super().fit(representation, y)


@breaks("held_out_images", "expected finite scores, got 60 that are NaN or infinite, given held_out=")
class BreakingOnHeldOut(HeldOut):
    def fit(self, representation, y, held_out=None):
        super().fit(representation, y)
        self.means_ = [np.nan * mean if held_out is not None else mean for mean in self.means_]
        return self


@breaks("perturbation_objective", "got one that depends on other rows")
class Centred(Perturbing):
    def perturbation_objective(self, logits):
        return logits.amax(1) - logits.mean()


@breaks("perturbation_objective", r"expected a tensor of shape \(60,\), got shape \(60, 4\)")
class AllLogits(Perturbing):
    def perturbation_objective(self, logits):
        return logits


@breaks("perturbation_objective", "expected a tensor of .*, got ndarray")
class NumPyObjective(Perturbing):
    def perturbation_objective(self, logits):
        return logits.detach().numpy().max(1)


@breaks("perturbation_objective", "got one without a gradient")
class Detached(Perturbing):
    def perturbation_objective(self, logits):
        return logits.detach().amax(1)


def instance_of(broken):
    instance = broken(scale=[]) if broken is TuningInPlace else broken()
    if broken is HidingASetting:
        instance.sign = 2.0
    return instance


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # those of NumPy, on the way to NaN
@pytest.mark.parametrize(("broken", "check", "message", "also"), breaks.cases)
def test_a_broken_scorer_is_found(broken, check, message, also):
    breaks.assert_found(instance_of(broken), check, message, also)


def test_every_check_can_fail():
    breaks.assert_every_check_can_fail()


def test_refusing_odd_data_is_allowed():
    class Strict(NearestMean):
        def fit(self, representation, y):
            if len(representation) < 150 or representation.n_classes < 4 or representation.n_features < 8:
                raise ValueError("too small")
            if y is None or len(set(y)) < 4:
                raise ValueError("a class is missing")
            return super().fit(representation, y)

        def score_samples(self, representation):
            if not len(representation):
                raise ValueError("no images")
            return super().score_samples(representation)

    failed = {name for name, status in statuses_of(check_foreground_scorer, Strict()).items() if status == "failed"}
    # A class inside of a function cannot be pickled, and two checks find that.
    assert failed == {"check_scorer_pickle", "check_scorer_joblib"}


def test_random_state_is_given():
    """Also to scorers without get_params, and to nested ones."""

    class Seeded(NearestMean):
        random_state = None

        def fit(self, representation, y):
            super().fit(representation, y)
            self.means_ = np.random.default_rng(self.random_state).normal(size=(1, representation.n_features))
            return self

    class Nesting(BaseEstimator):
        def __init__(self, inner):
            self.inner = inner

        def fit(self, representation, y):
            with mock.patch.object(Seeded, "random_state", self.inner.random_state):
                self.fitted_ = Seeded().fit(representation, y)
            return self

        def score_samples(self, representation):
            return self.fitted_.score_samples(representation)

    for scorer in Seeded(), Nesting(NearestMeanEstimator()):
        assert statuses_of(check_foreground_scorer, scorer)["check_scorer_deterministic"] == "passed"
        assert scorer.__dict__.get("random_state") is None
