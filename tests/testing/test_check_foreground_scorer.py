"""The checks of scorers: every built-in scorer passes, and each check finds the scorer that is broken for it."""

import inspect
import random
from unittest import mock

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import EstimatorCheckFailedWarning, NotFittedError

import skdfb.scorers
from skdfb.scorers import MSP, ODIN, Energy, ScorerEnsemble, TemperatureScaled, ViM
from skdfb.testing import check_foreground_scorer, parametrize_scorers_with_checks
from skdfb.testing._scorers._suite import CHECKS
from tests.scorers.helpers import BUILT_IN, default_instance


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


GOOD = [NearestMean(), NearestMeanEstimator(), Layers(), Perturbing(), HeldOut()]
COMPOSITES = [
    ScorerEnsemble([MSP(), ViM()]),
    ScorerEnsemble([("a", Energy()), ("b", Energy(temperature=2))], random_state=3),
    TemperatureScaled(MSP()),
]
SCORERS = [default_instance(scorer) for scorer in BUILT_IN] + [ODIN(), *COMPOSITES]


# ------------------------------------------------------------------------------------------------------ what passes


@pytest.mark.parametrize("scorer", [*SCORERS, *GOOD], ids=lambda scorer: type(scorer).__name__)
def test_good_scorers_pass(scorer):
    before = dict(vars(scorer))
    results = check_foreground_scorer(scorer)
    assert {result["status"] for result in results} == {"passed"}
    assert [result["exception"] for result in results] == [None] * len(results)
    assert vars(scorer) == before


def test_every_public_scorer_is_checked():
    public = {
        thing
        for name, thing in vars(skdfb.scorers).items()
        if not name.startswith("_") and hasattr(thing, "score_samples") and not getattr(thing, "_is_protocol", False)
    }
    assert public == {type(scorer) for scorer in SCORERS}


@parametrize_scorers_with_checks(GOOD)
def test_checks_one_by_one(scorer, check):
    check(scorer)


def names_of(scorer):
    return [result["check_name"] for result in check_foreground_scorer(scorer, on_fail=None)]


def test_checks_that_apply():
    plain, every = names_of(NearestMean()), [check.__name__ for check in CHECKS]
    assert plain[0] == "check_scorer_protocol"
    assert len(plain) >= 27
    parameters = ["clone", "get_and_set_params", "init_only_stores", "fit_keeps_parameters"]
    assert set(names_of(NearestMeanEstimator())) - set(plain) == {f"check_scorer_{name}" for name in parameters}
    assert set(names_of(Layers())) - set(plain) == {"check_scorer_streamed_activations"}
    assert set(names_of(HeldOut())) - set(plain) == {"check_scorer_held_out_images"}
    assert set(names_of(Perturbing())) - set(plain) == {"check_scorer_perturbation_objective"}
    assert len(every) == len(plain) + 7


# ------------------------------------------------------------------------------------------------- what does not pass

BROKEN = []


def breaks(check, message, *also):
    """Register a class that the named check must find, saying ``message``; the checks in ``also`` may find it, too."""

    def register(broken):
        BROKEN.append(
            pytest.param(broken, f"check_scorer_{check}", message, {f"check_scorer_{name}" for name in also},
                         id=f"{check}-{broken.__name__}")
        )  # fmt: skip
        return broken

    return register


EVERY_CHECK = [check.__name__.removeprefix("check_scorer_") for check in CHECKS]


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


@breaks("output", "gave a score of .*; wanted scores <= 0")
class NoLogProbability(NearestMean):
    output = "log_probability"

    def score_samples(self, representation):
        return 10 + super().score_samples(representation)


@breaks("shape", r"returned shape \(60, 1\), given 60 images; wanted \(60,\)", *EVERY_CHECK)
class Column(NearestMean):
    def score_samples(self, representation):
        return super().score_samples(representation)[:, None]


@breaks("shape", r"returned shape \(\), given 1 images; wanted \(1,\)", "one_image")
class Squeezed(NearestMean):
    def score_samples(self, representation):
        return super().score_samples(representation).squeeze()


@breaks("shape", r"returned shape \(37,\), given 60 images; wanted \(60,\)", *EVERY_CHECK)
class FirstBatch(NearestMean):
    def score_samples(self, representation):
        return super().score_samples(next(iter(representation.batches())))


@breaks("dtype", "numbers of type int64", "float32")
class Integers(NearestMean):
    def score_samples(self, representation):
        return (100 * super().score_samples(representation)).astype(np.int64)


@breaks("finite", "returned 1 scores that are NaN or infinite", *EVERY_CHECK)
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


@breaks("batches", "given images in three parts")
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


@breaks("inputs_unchanged", "fit changed features", *EVERY_CHECK)
class Centring(NearestMean):
    def fit(self, representation, y):
        representation.features.sub_(representation.features.mean(0))
        return super().fit(representation, y)


@breaks("inputs_unchanged", "score_samples changed logits", *EVERY_CHECK)
class ScalingLogits(NearestMean):
    def score_samples(self, representation):
        representation.logits.mul_(2)
        return super().score_samples(representation)


@breaks("inputs_unchanged", "fit changed weight and bias", *EVERY_CHECK)
class ScalingHead(NearestMean):
    def fit(self, representation, y):
        representation.weight.mul_(2)
        representation.bias.mul_(2)
        return super().fit(representation, y)


@breaks("inputs_unchanged", "fit changed y", *EVERY_CHECK)
class Relabelling(NearestMean):
    def fit(self, representation, y):
        super().fit(representation, y)
        if y is not None:
            y[:] = 0
        return self


@breaks("inputs_unchanged", r"score_samples changed activations\['layer1'\]", *EVERY_CHECK)
class ScalingActivations(Layers):
    def score_samples(self, representation):
        representation.activations["layer1"].mul_(2)
        return super().score_samples(representation)


@breaks("inputs_unchanged", r"score_samples changed activations\['layer1'\]", *EVERY_CHECK)
class DroppingActivations(Layers):
    def score_samples(self, representation):
        scores = super().score_samples(representation)
        representation.activations.pop("layer1")
        return scores


@breaks("memory_mapped", "fit changed features", *EVERY_CHECK)
class WritingToFeatures(NearestMean):
    def fit(self, representation, y):
        super().fit(representation, y)
        representation.features[-1, -1] += 1
        return self


@breaks("global_random_state", "changed the global random state of NumPy")
class SeedingNumPy(NearestMean):
    def fit(self, representation, y):
        np.random.seed(0)  # noqa: NPY002
        return super().fit(representation, y)


@breaks("global_random_state", "changed the global random state of Python and torch")
class DrawingWhereScoring(NearestMean):
    def score_samples(self, representation):
        random.random()
        torch.rand(1)
        return super().score_samples(representation)


@breaks("scoring_keeps_state", "given other images to score in between", "row_order", "batches")
class LearningWhereScoring(NearestMean):
    def score_samples(self, representation):
        scores = super().score_samples(representation)
        if len(representation) == 200:
            self.means_[0] = self.features_of(representation).mean(0)
        return scores


@breaks("refit", "given a fit on other images before")
class Remembering(NearestMean):
    def fit(self, representation, y):
        return self if hasattr(self, "means_") else super().fit(representation, y)


@breaks("refit", "given a fit on other images before")
class Collecting(NearestMean):
    def fit(self, representation, y):
        before = getattr(self, "means_", [])
        super().fit(representation, y)
        self.means_ = before + self.means_
        return self


@breaks("deterministic", "given the same images twice", "refit", "float32", "float16", "memory_mapped")
class Unseeded(NearestMean):
    def fit(self, representation, y):
        super().fit(representation, y)
        self.means_ = np.random.default_rng().normal(size=(1, representation.n_features))
        return self


@breaks("pickle", "cannot be stored by pickle", "joblib")
class HoldingALambda(NearestMean):
    def fit(self, representation, y):
        self.distance_ = lambda: 0
        return super().fit(representation, y)


@breaks("pickle", "given a round trip through pickle", "joblib")
class ForgettingWhenPickled(NearestMean):
    def __getstate__(self):
        return {name: [0 * mean for mean in means] for name, means in vars(self).items()}


@breaks("joblib", "cannot be stored by joblib and score again", "pickle")
class LosingItsState(NearestMean):
    def __reduce__(self):
        return LosingItsState, ()

    def __deepcopy__(self, memo):
        return LosingItsState()


@breaks("class_without_images", "scores of 150 that are NaN or infinite, given no image of class 1", "one_image",
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


@breaks("fewer_images_than_features", "raised LinAlgError: .*, given 5 training images of 8 features", "one_image",
        "constant_features")  # fmt: skip
class Inverting(NearestMean):
    def fit(self, representation, y):
        features = self.features_of(representation)
        if np.linalg.matrix_rank(features - features.mean(0)) < representation.n_features:
            raise np.linalg.LinAlgError("Singular matrix")
        return super().fit(representation, y)


@breaks("one_feature", "raised IndexError: .*, given images of 1 feature")
class SecondFeature(NearestMean):
    def score_samples(self, representation):
        return super().score_samples(representation) + 0 * representation.features[:, 1].numpy()


@breaks("two_classes", "raised IndexError: .*, given images of 2 classes", "one_class")
class ThirdLogit(NearestMean):
    def score_samples(self, representation):
        return super().score_samples(representation) + np.sort(representation.logits.numpy())[:, -3]


@breaks("one_class", "raised IndexError: .*, given a background representation .* and zeros for y")
class SecondLogit(NearestMean):
    def score_samples(self, representation):
        return super().score_samples(representation) + np.sort(representation.logits.numpy())[:, -2]


@breaks("one_class", "raised TypeError: .*, given a background representation .* and None for y")
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


@breaks("no_images", "raised IndexError: .*, given 0 images to score")
class FirstImage(NearestMean):
    def score_samples(self, representation):
        self.width_ = len(representation.features[0])
        return super().score_samples(representation)


@breaks("no_images", r"gave scores of shape \(1,\), given 0 images to score; wanted \(0,\)")
class AtLeastOne(NearestMean):
    def score_samples(self, representation):
        return super().score_samples(representation) if len(representation) else np.zeros(1)


@breaks("no_images", "raised a ValueError without a message, given 0 images to score")
class Silent(NearestMean):
    def score_samples(self, representation):
        if not len(representation):
            raise ValueError
        return super().score_samples(representation)


@breaks("no_images", "raised NotFittedError: fit first, given 0 images to score")
class Unfitted(NearestMean):
    def score_samples(self, representation):
        if not len(representation):
            raise NotFittedError("fit first")
        return super().score_samples(representation)


@breaks("clone", r"has \['means_'\] after clone")
class CloningAll(NearestMeanEstimator):
    def __sklearn_clone__(self):
        other = type(self)(**self.get_params())
        vars(other).update(vars(self))
        return other


@breaks("clone", "Cannot clone object", *EVERY_CHECK)
class CopyingAParameter(NearestMeanEstimator):
    def __init__(self, scale=1.0, random_state=None):
        self.scale = np.array(scale)
        self.random_state = random_state


@breaks("get_and_set_params", "get_params gave random_state=None, given another to set_params before")
class NotSetting(NearestMeanEstimator):
    def set_params(self, **params):
        return self


@breaks("get_and_set_params", "set_params returned None, given parameters; wanted the scorer itself")
class ReturningNothing(NearestMeanEstimator):
    def set_params(self, **params):
        super().set_params(**params)


@breaks("init_only_stores", r"__init__ set \['means_'\] besides its parameters")
class Preparing(NearestMeanEstimator):
    def __init__(self, scale=1.0, random_state=None):
        super().__init__(scale, random_state)
        self.means_ = []


@breaks("init_only_stores", r"get_params leaves out \['scale'\]")
class HidingAParameter(NearestMeanEstimator):
    def __init__(self, scale=1.0, random_state=None):
        super().__init__(scale, random_state)

    def get_params(self, deep=True):
        return {"random_state": self.random_state}


@breaks("fit_keeps_parameters", r"fit changed its parameters \['scale'\]")
class Tuning(NearestMeanEstimator):
    def fit(self, representation, y):
        self.scale = 2.0
        return super().fit(representation, y)


@breaks("fit_keeps_parameters", r"fit changed its parameters \['scale'\]", "refit")
class TuningInPlace(NearestMeanEstimator):
    def __init__(self, scale=(), random_state=None):
        super().__init__(scale, random_state)

    def fit(self, representation, y):
        self.scale.append(2.0)
        return super().fit(representation, y)

    def score_samples(self, representation):
        return self.scale[-1] * NearestMean.score_samples(self, representation)


@breaks("fit_keeps_parameters", "fit returned None")
class FitWithoutSelf(NearestMeanEstimator):
    def fit(self, representation, y):
        super().fit(representation, y)


@breaks("streamed_activations", "fit raised TypeError: .*, given activations in representation.batches")
class AllLayersAtOnce(Layers):
    def fit(self, representation, y):
        self.means_ = [self.features_of(representation).mean(axis=0)]
        return self


@breaks("streamed_activations", "those of all activations at once")
class GivingUpLayers(Layers):
    def fit(self, representation, y):
        super().fit(representation, y)
        self.means_ = [mean * (representation.activations is not None) for mean in self.means_]
        return self


@breaks("held_out_images", "held_out")
class NotTakingHeldOut(NearestMean):
    learns_from_held_out = True


@breaks("held_out_images", "fit changed features")
class WritingToHeldOut(HeldOut):
    def fit(self, representation, y, held_out=None):
        if held_out is not None:
            held_out[0].features.mul_(2)
        return super().fit(representation, y)


@breaks("held_out_images", "60 scores that are NaN or infinite, given held_out=")
class BreakingOnHeldOut(HeldOut):
    def fit(self, representation, y, held_out=None):
        super().fit(representation, y)
        self.means_ = [np.nan * mean if held_out is not None else mean for mean in self.means_]
        return self


@breaks("perturbation_objective", "depends on other images")
class Centred(Perturbing):
    def perturbation_objective(self, logits):
        return logits.amax(1) - logits.mean()


@breaks("perturbation_objective", r"returned shape \(60, 4\)")
class AllLogits(Perturbing):
    def perturbation_objective(self, logits):
        return logits


@breaks("perturbation_objective", "returned ndarray")
class NumPyObjective(Perturbing):
    def perturbation_objective(self, logits):
        return logits.detach().numpy().max(1)


@breaks("perturbation_objective", "returned no gradient")
class Detached(Perturbing):
    def perturbation_objective(self, logits):
        return logits.detach().amax(1)


def instance_of(broken):
    return broken(scale=[]) if broken is TuningInPlace else broken()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # those of NumPy, on the way to NaN
@pytest.mark.parametrize(("broken", "check", "message", "also"), BROKEN)
def test_a_broken_scorer_is_found(broken, check, message, also):
    results = {result["check_name"]: result for result in check_foreground_scorer(instance_of(broken), on_fail=None)}
    assert results[check]["status"] == "failed"
    with pytest.raises(type(results[check]["exception"]), match=message) as raised:
        raise results[check]["exception"]
    if raised.type is AssertionError:
        assert str(raised.value).startswith(broken.__name__)
    failed = {name for name, result in results.items() if result["status"] == "failed"}
    assert failed <= {check} | also, "the other checks look at something else"


def test_every_check_can_fail():
    assert {case.values[1] for case in BROKEN} == {check.__name__ for check in CHECKS}


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

    results = check_foreground_scorer(Strict(), on_fail=None)
    # A class inside of a function cannot be pickled, and this is told.
    assert {result["check_name"] for result in results if result["status"] == "failed"} == {
        "check_scorer_pickle",
        "check_scorer_joblib",
    }


# ------------------------------------------------------------------------------------------------- how it is told


def test_the_first_failure_is_raised():
    with pytest.raises(AssertionError, match=r"^AtLeastOne gave scores of shape \(1,\), given 0 images"):
        check_foreground_scorer(AtLeastOne())


def test_failures_are_warned_of():
    with pytest.warns(EstimatorCheckFailedWarning, match="AtLeastOne") as told:
        results = check_foreground_scorer(AtLeastOne(), on_fail="warn")
    assert [warning.message.check_name for warning in told] == ["check_scorer_no_images"]
    assert [result["check_name"] for result in results if result["status"] == "failed"] == ["check_scorer_no_images"]


def test_expected_failures():
    scorer = AtLeastOne()
    results = check_foreground_scorer(scorer, expected_failed_checks={"check_scorer_no_images": "returns one"})
    by_name = {result.pop("check_name"): result for result in results}
    failed = by_name.pop("check_scorer_no_images")
    assert isinstance(failed.pop("exception"), AssertionError)
    assert failed == {
        "scorer": scorer, "status": "xfail", "expected_to_fail": True, "expected_to_fail_reason": "returns one",
    }  # fmt: skip
    passed = {
        "scorer": scorer, "exception": None, "status": "passed", "expected_to_fail": False,
        "expected_to_fail_reason": "",
    }  # fmt: skip
    assert list(by_name.values()) == [passed] * len(by_name)


def test_bad_arguments():
    with pytest.raises(TypeError, match=r"is the class NearestMean; wanted an instance"):
        check_foreground_scorer(NearestMean)
    with pytest.raises(TypeError, match=r"is the class NearestMean; wanted an instance"):
        parametrize_scorers_with_checks([NearestMean])
    with pytest.raises(ValueError, match=r"names \['check_no_such'\]; wanted names among \['check_scorer_batches'"):
        check_foreground_scorer(NearestMean(), expected_failed_checks={"check_no_such": ""})
    with pytest.raises(ValueError, match="on_fail is 'ignore'; wanted"):
        check_foreground_scorer(NearestMean(), on_fail="ignore")


def test_tests_of_pytest():
    mark = parametrize_scorers_with_checks(
        [NearestMean(), Energy(temperature=2.0), AtLeastOne()],
        expected_failed_checks=lambda scorer: (
            {"check_scorer_no_images": "why"} if isinstance(scorer, AtLeastOne) else {}
        ),
        xfail_strict=True,
    )
    assert mark.name == "parametrize"
    names, cases = mark.args
    assert names == ("scorer", "check")
    ids = [case.id for case in cases]
    assert len(set(ids)) == len(ids)
    assert ids[0] == "NearestMean-check_scorer_protocol"  # no address: it would differ between processes
    assert "Energy(temperature=2.0)-check_scorer_clone" in ids
    marked = {case.id: case.marks for case in cases if case.marks}
    assert list(marked) == ["AtLeastOne-check_scorer_no_images"]
    assert marked["AtLeastOne-check_scorer_no_images"][0].kwargs == {"reason": "why", "strict": True}


@parametrize_scorers_with_checks(
    [AtLeastOne()], expected_failed_checks=lambda scorer: {"check_scorer_no_images": "returns one"}, xfail_strict=True
)
def test_expected_failures_of_pytest(scorer, check):
    check(scorer)


def test_the_random_states_are_put_back():
    check = next(check for check in CHECKS if check.__name__ == "check_scorer_global_random_state")
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    for scorer in SeedingNumPy(), DrawingWhereScoring():
        with pytest.raises(AssertionError):
            check(type(scorer).__name__, scorer)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before  # noqa: NPY002


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
        results = check_foreground_scorer(scorer, on_fail=None)
        assert {result["check_name"]: result["status"] for result in results}["check_scorer_deterministic"] == "passed"
        assert scorer.__dict__.get("random_state") is None


def test_checks_say_what_they_are_for():
    assert all(inspect.getdoc(check).startswith("Check ") for check in CHECKS)
