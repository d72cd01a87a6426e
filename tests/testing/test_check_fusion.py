"""The checks of fusions: good ones pass, and each check fails for a fusion that is broken in its way."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from skdfb.testing import check_fusion, parametrize_with_checks
from tests.testing.helpers import BrokenClasses, names_of, statuses_of


class ScaledSum:
    """A fusion in a few lines of NumPy: each part divided by its standard deviation, and added."""

    def fit(self, parts):
        self.scales_ = {name: np.std(scores) for name, scores in self.checked(parts).items()}
        return self

    def combine(self, parts):
        if set(parts) != set(self.scales_):
            raise ValueError(f"expected parts named {list(self.scales_)}, got {list(parts)}")
        return sum(scores / self.scales_[name] for name, scores in sorted(self.checked(parts).items()))

    def checked(self, parts):
        if not np.isfinite(list(parts.values())).all():
            raise ValueError("expected finite scores")
        return parts


class ScaledSumEstimator(ScaledSum, BaseEstimator):
    def __init__(self, weight=1.0):
        self.weight = weight

    def fit(self, parts):
        self.weight_ = self.weight
        return super().fit(parts)

    def combine(self, parts):
        return self.weight_ * super().combine(parts)


class Pair(ScaledSum):
    """A fusion of two parts that checks names, uses output kinds and learns nothing from the scores."""

    learns_from_scores = False

    def check_names(self, names):
        if len(list(names)) != 2:
            raise ValueError("expected two parts")

    def fit(self, parts, outputs=None):
        self.check_names(parts)
        self.scales_ = dict.fromkeys(self.checked(parts), 1.0)
        self.exponentiate_ = {name for name in parts if (outputs or {}).get(name) == "log_probability"}
        return self

    def combine(self, parts):
        return super().combine(
            {name: np.exp(scores) if name in self.exponentiate_ else scores for name, scores in parts.items()}
        )


breaks = BrokenClasses(check_fusion)
EVERY_CHECK = breaks.every
GOOD = [ScaledSum(), ScaledSumEstimator(), Pair()]


@parametrize_with_checks(check_fusion, GOOD)
def test_good_fusions_pass(instance, check):
    check(instance)


def test_checks_that_apply():
    plain = names_of(check_fusion, ScaledSum())
    assert plain[0] == "check_fusion_protocol"

    def further(fusion):
        return {name.removeprefix("check_fusion_") for name in set(names_of(check_fusion, fusion)) - set(plain)}

    parameters = {"clone", "get_and_set_params", "init_only_stores", "keeps_parameters", "set_params_after_fit"}
    assert further(ScaledSumEstimator()) == parameters
    assert further(Pair()) == {"names", "outputs", "learns_nothing"}
    assert len(breaks.every) == len(plain) + 8


# -------------------------------------------------------------------------------------------------------- what fails


@breaks("protocol", "expected the method combine, got none", *EVERY_CHECK)
class NoCombine:
    def fit(self, parts):
        return self


@breaks("protocol", r"combine: expected a method that can be called with 1 argument.s., got missing", *EVERY_CHECK)
class TwoArguments(ScaledSum):
    def combine(self, parts, outputs):
        return super().combine(parts)


@breaks("protocol", "expected learns_from_scores to be True or False, got 'no'")
class UnknownDeclaration(ScaledSum):
    learns_from_scores = "no"


@breaks("protocol", "check_names: expected a method, got 'foreground'")
class NamesAreNoMethod(ScaledSum):
    check_names = "foreground"


@breaks("inputs_unchanged", r"fit: expected .*, got changes in parts\['background'\]")
class Centring(ScaledSum):
    def fit(self, parts):
        super().fit(parts)
        parts["background"] -= parts["background"].mean()
        return self


@breaks(
    "inputs_unchanged",
    r"combine: expected .*, got changes in parts\['foreground'\]",
    "batches",
    "joblib",
    "monotone",
    "part_order",
    "pickle",
    "result_keeps_state",
)
class PoppingAPart(ScaledSum):
    def combine(self, parts):
        joint = super().combine(parts)
        parts.pop("foreground")
        return joint


@breaks("shape", r"combine: expected shape \(60,\), one score per image, got \(60, 1\)", "direction")
class Column(ScaledSum):
    def combine(self, parts):
        return super().combine(parts)[:, None]


@breaks("dtype", "combine: expected floating-point numbers, .*, got int64")
class Rounded(ScaledSum):
    def combine(self, parts):
        return super().combine(parts).astype(np.int64)


@breaks(
    "finite",
    "combine: expected finite scores, got 1 that are NaN or infinite",
    "batches",
    "deterministic",
    "joblib",
    "part_order",
    "pickle",
    "refit",
    "result_keeps_state",
    "row_order",
)
class InfiniteAtTheMinimum(ScaledSum):
    def combine(self, parts):
        joint = super().combine(parts)
        return np.where(joint == joint.min(), -np.inf, joint)


@breaks("row_order", "given images in another order", "batches")
class Numbered(ScaledSum):
    def combine(self, parts):
        joint = super().combine(parts)
        return joint + 1e-3 * np.arange(len(joint))


@breaks("batches", "given images one at a time")
class CentredByBatch(ScaledSum):
    def combine(self, parts):
        joint = super().combine(parts)
        return joint - joint.mean()


@breaks("monotone", "a background raised by 0.1 standard deviations")
class Difference(ScaledSum):
    def combine(self, parts):
        signs = {"foreground": 1, "background": -1}
        return super().combine({name: signs.get(name, 1) * scores for name, scores in parts.items()})


@breaks("monotone", "a foreground raised by 1000 standard deviations")
class Peaked(ScaledSum):
    """Scores too high count as unusual."""

    def combine(self, parts):
        joint = super().combine(parts)
        return np.minimum(joint, 20 - 0.1 * joint)


@breaks("direction", "expected lower joint scores for images whose parts are all low, got .* for low parts")
class Constant(ScaledSum):
    def combine(self, parts):
        return 0.0 * super().combine(parts)


@breaks("part_order", "given the parts in another order")
class FirstPartCountsTwice(ScaledSum):
    def combine(self, parts):
        return super().combine(parts) + next(iter(parts.values()))


@breaks("part_order", "given the parts in another order")
class ByPosition(ScaledSum):
    """Parts in the order of fit, though a mapping has none."""

    def fit(self, parts):
        super().fit(parts)
        self.names_ = list(parts)
        return self

    def combine(self, parts):
        return super().combine(parts) + parts[self.names_[0]]


@breaks("other_names", "expected a ValueError with a message, got KeyError: .*, given the parts")
class NamesUnchecked(ScaledSum):
    def combine(self, parts):
        self.checked(parts)
        return sum(parts[name] / scale for name, scale in sorted(self.scales_.items()))


@breaks("other_names", r"got no error, given the parts \['foreground'\] after fit on")
class AnyNames(ScaledSum):
    def combine(self, parts):
        known = [
            scores / self.scales_[name] for name, scores in sorted(self.checked(parts).items()) if name in self.scales_
        ]
        return sum(known)


@breaks("nan", "fit: expected a ValueError with a message, got no error, given one NaN in foreground")
class LearnsFromNaN(ScaledSum):
    def fit(self, parts):
        return super().fit({name: np.nan_to_num(scores) for name, scores in parts.items()})


@breaks("nan", "combine: expected a ValueError with a message, got no error, given one NaN in foreground")
class IgnoresNaN(ScaledSum):
    def combine(self, parts):
        return super().combine({name: np.nan_to_num(scores) for name, scores in parts.items()})


@breaks("nan", "combine: expected a ValueError with a message, got NotFittedError: NaN, given one NaN")
class WrongError(ScaledSum):
    def combine(self, parts):
        if np.isnan(list(parts.values())).any():
            raise NotFittedError("NaN")
        return super().combine(parts)


@breaks(
    "names", "check_names: expected no error for the names of all checks, got ValueError: no background", *EVERY_CHECK
)
class RefusesTheNames(Pair):
    def check_names(self, names):
        if "background" in list(names):
            raise ValueError("no background")


@breaks(
    "names",
    r"expected fit and check_names to accept the same names, got \['foreground'\] accepted by check_names alone",
)
class ChecksTooLate(Pair):
    def check_names(self, names):
        pass

    def fit(self, parts, outputs=None):
        if len(parts) != 2:
            raise ValueError("expected two parts")
        return super().fit(parts, outputs)


@breaks("names", "expected fit and check_names to accept the same names, got .* accepted by fit alone")
class ChecksTooMuch(Pair):
    def fit(self, parts, outputs=None):
        self.scales_ = dict.fromkeys(self.checked(parts), 1.0)
        self.exponentiate_ = {name for name in parts if (outputs or {}).get(name) == "log_probability"}
        return self


@breaks("outputs", "expected finite scores for a foreground of the output kind 'probability', got KeyError")
class LogitsOnly(Pair):
    def fit(self, parts, outputs=None):
        for output in (outputs or {}).values():
            {"logit": 1, "log_probability": 1}[output]
        return super().fit(parts, outputs)


@breaks("outputs", "expected finite scores for a foreground of the output kind 'log_probability', got 60 that are NaN")
class LogOfLogarithms(Pair):
    def combine(self, parts):
        joint = super().combine(parts)
        return joint * np.nan if self.exponentiate_ else joint


@breaks("learns_nothing", "given other scores in fit, and learns_from_scores=False")
class LearnsAllTheSame(Pair):
    def fit(self, parts, outputs=None):
        super().fit(parts, outputs)
        self.scales_ = {name: np.std(scores) for name, scores in parts.items()}
        return self


@breaks("global_random_state", "got another of NumPy, given")
class SeedingNumPy(ScaledSum):
    def fit(self, parts):
        np.random.seed(0)  # noqa: NPY002
        return super().fit(parts)


@breaks(
    "result_keeps_state",
    "given other data in combine in between",
    "batches",
    "joblib",
    "monotone",
    "pickle",
    "row_order",
)
class LearningWhereCombining(ScaledSum):
    def combine(self, parts):
        joint = super().combine(parts)
        if len(joint) > 1:
            self.scales_ = {name: np.std(scores) for name, scores in parts.items()}
        return joint


@breaks("refit", "given an earlier fit on other data")
class Remembering(ScaledSum):
    def fit(self, parts):
        return self if hasattr(self, "scales_") else super().fit(parts)


@breaks("refit", "given an earlier fit on other data")
class Collecting(ScaledSum):
    def fit(self, parts):
        before = getattr(self, "scales_", {})
        super().fit(parts)
        self.scales_ = {name: max(scale, before.get(name, 0)) for name, scale in self.scales_.items()}
        return self


@breaks("deterministic", "given the same data twice", "part_order", "refit")
class Unseeded(ScaledSum):
    def fit(self, parts):
        super().fit(parts)
        self.scales_ = {name: scale * np.random.default_rng().uniform(1, 2) for name, scale in self.scales_.items()}
        return self


@breaks("pickle", "whose attributes pickle can store, got", "joblib")
class HoldingALambda(ScaledSum):
    def fit(self, parts):
        self.term_ = lambda scores: scores
        return super().fit(parts)


@breaks("joblib", "given a round trip through joblib", "pickle")
class ForgettingWhenPickled(ScaledSum):
    def __getstate__(self):
        return {name: dict.fromkeys(scales, 1.0) for name, scales in vars(self).items()}


@breaks("fit_returns_self", "fit: expected the object itself, got None")
class FitWithoutSelf(ScaledSum):
    def fit(self, parts):
        super().fit(parts)


@breaks("clone", "expected the scores of the original, got scores that differ by")
class HidingASetting(ScaledSumEstimator):
    sign = 1.0

    def combine(self, parts):
        return self.sign * super().combine(parts)


@breaks("get_and_set_params", "set_params: expected the object itself, got None")
class ReturningNothing(ScaledSumEstimator):
    def set_params(self, **params):
        super().set_params(**params)


@breaks("init_only_stores", r"__init__: expected parameters alone, got \['scales_'\] as well")
class Preparing(ScaledSumEstimator):
    def __init__(self, weight=1.0):
        super().__init__(weight)
        self.scales_ = {}


@breaks("keeps_parameters", r"fit: expected parameters as before, got changes in \['weight'\]", "refit")
class Tuning(ScaledSumEstimator):
    def fit(self, parts):
        super().fit(parts)
        self.weight = 2.0
        return self


@breaks("set_params_after_fit", "combine: expected the scores of before, got TypeError: .*, given another weight in")
class ReadingAParameter(ScaledSumEstimator):
    def combine(self, parts):
        return self.weight * super().combine(parts)


@breaks("set_params_after_fit", "expected the scores of before, got scores that differ by .*, given another weight in")
class ComparingAParameter(ScaledSumEstimator):
    def combine(self, parts):
        return super().combine(parts) * (1.0 if self.weight == 1.0 else 2.0)


def instance_of(broken):
    instance = broken()
    if broken is HidingASetting:
        instance.sign = 2.0
    return instance


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # those of NumPy, on the way to NaN
@pytest.mark.parametrize(("broken", "check", "message", "also"), breaks.cases)
def test_a_broken_fusion_is_found(broken, check, message, also):
    breaks.assert_found(instance_of(broken), check, message, also)


def test_every_check_can_fail():
    breaks.assert_every_check_can_fail()


def test_any_names_and_any_number_of_parts_may_be_refused():
    class TwoParts(ScaledSum):
        def fit(self, parts):
            if set(parts) != {"foreground", "background"}:
                raise ValueError("expected foreground and background")
            return super().fit(parts)

    statuses = statuses_of(check_fusion, TwoParts())
    # A class inside of a function cannot be pickled, and two checks find that.
    assert {name for name, status in statuses.items() if status == "failed"} == {
        "check_fusion_pickle",
        "check_fusion_joblib",
    }
