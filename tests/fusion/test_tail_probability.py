"""Tail probabilities against their definition, Fisher's and Stouffer's rules, and the protocol of fusions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, norm
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skdfb.calibration import ConformalCalibrator
from skdfb.fusion import Fusion, TailProbabilityFusion, TemperatureFusion
from skdfb.metrics import auroc_score
from tests.utils.test_tail_probability import oracle as log_p_oracle

quick = settings(max_examples=40, deadline=None, derandomize=True)
RULES = ["fisher", "stouffer"]


def normal_parts(n=500, correlation=0.0, seed=0, scales=(1.0, 1.0)):
    """Two correlated normal parts of any scale."""
    rng = np.random.default_rng(seed)
    first, other = rng.normal(size=(2, n))
    second = correlation * first + math.sqrt(1 - correlation**2) * other
    return {"foreground": scales[0] * first, "background": scales[1] * second}


def oracle(learned, parts, rule):
    """The joint score of each image, by the definition, one number at a time."""

    def terms(images):
        sums = []
        for index in range(len(next(iter(images.values())))):
            log_p = [log_p_oracle(learned[name], images[name][index]) for name in learned]
            sums.append(sum(log_p) if rule == "fisher" else sum(norm.ppf(math.exp(value)) for value in log_p))
        return sums

    learned_sums = terms(learned)
    return [log_p_oracle(learned_sums, value) for value in terms(parts)]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n", [3, 40])
@pytest.mark.parametrize("scales", [(1.0, 1.0), (1e-9, 1e9)])
def test_oracle(rule, n, scales):
    learned, new = normal_parts(n, 0.5, seed=n, scales=scales), normal_parts(60, -0.3, seed=1, scales=scales)
    found = TailProbabilityFusion(rule).fit(learned).combine(new)
    np.testing.assert_allclose(found, oracle(learned, new, rule), rtol=1e-7)


@pytest.mark.parametrize("rule", RULES)
def test_no_scale_needs_tuning(rule):
    learned, new = normal_parts(300, 0.4), normal_parts(50, 0.4, seed=1)
    stretched = [
        {"foreground": 1e6 * parts["foreground"] - 3e5, "background": 1e-6 * parts["background"]}
        for parts in (learned, new)
    ]
    joint = TailProbabilityFusion(rule).fit(learned).combine(new)
    np.testing.assert_allclose(TailProbabilityFusion(rule).fit(stretched[0]).combine(stretched[1]), joint, rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
@given(seed=st.integers(0, 1000), n_parts=st.integers(1, 4), change=st.floats(0.01, 100.0))
@quick
def test_a_higher_part_never_lowers_the_score(rule, seed, n_parts, change):
    rng = np.random.default_rng(seed)
    learned = {f"background_{place}": rng.gumbel(size=80) for place in range(n_parts)}
    new = {name: rng.normal(scale=4, size=20) for name in learned}
    fusion = TailProbabilityFusion(rule).fit(learned)
    before = fusion.combine(new)
    raised = new | {"background_0": new["background_0"] + change}
    assert (fusion.combine(raised) >= before).all()
    assert (before <= 0).all()
    assert np.isfinite(before).all()


@pytest.mark.parametrize("rule", RULES)
def test_images_far_from_all_known_ones_keep_their_order(rule):
    fusion = TailProbabilityFusion(rule).fit(normal_parts())
    far = -np.logspace(1, 6, 50)
    joint = fusion.combine({"foreground": far, "background": np.zeros(50)})
    assert (np.diff(joint) < 0).all()
    assert np.isfinite(joint).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("correlation", [-0.9, 0.0, 0.5, 0.95])
def test_scores_are_tail_probabilities_however_correlated_the_parts_are(rule, correlation):
    fusion = TailProbabilityFusion(rule).fit(normal_parts(4000, correlation))
    p = np.exp(fusion.combine(normal_parts(4000, correlation, seed=1)))
    assert kstest(p, "uniform").statistic < 0.035


def test_the_lowest_part_dominates_fishers_rule_and_stouffers_weighs_all():
    learned = normal_parts(2000)
    one_low = {"foreground": np.array([-5.0]), "background": np.array([2.0])}
    both_moderate = {"foreground": np.array([-2.0]), "background": np.array([-2.0])}
    fisher, stouffer = (TailProbabilityFusion(rule).fit(learned) for rule in RULES)
    assert fisher.combine(one_low) < fisher.combine(both_moderate)
    assert stouffer.combine(one_low) > stouffer.combine(both_moderate)


@pytest.mark.parametrize("rule", ["fisher", "stouffer"])
def test_high_parts_cannot_compensate_for_one_that_is_low_enough(rule):
    parts = {name: np.random.default_rng(seed).normal(size=500) for seed, name in enumerate("abc")}
    far = {"a": np.array([-30.0]), "b": np.array([1e6]), "c": np.array([1e6])}
    assert TailProbabilityFusion(rule).fit(parts).combine(far) < np.log(0.01)


def test_joint_score_is_better_than_either_part():
    known, learned = normal_parts(400, seed=1), normal_parts(400)
    unknown = normal_parts(400, seed=2)
    unknown["foreground"][:200] -= 4
    unknown["background"][200:] -= 4
    joint = TailProbabilityFusion().fit(learned)
    alone = max(auroc_score(known[name], unknown[name]) for name in known)
    assert auroc_score(joint.combine(known), joint.combine(unknown)) > alone + 0.15


def test_one_part_keeps_its_order():
    learned, new = normal_parts(), normal_parts(50, seed=1)
    fusion = TailProbabilityFusion().fit({"foreground": learned["foreground"]})
    joint = fusion.combine({"foreground": new["foreground"]})
    np.testing.assert_array_equal(np.argsort(joint), np.argsort(new["foreground"]))


def test_the_order_of_the_mapping_does_not_matter():
    learned, new = normal_parts(scales=(1, 50)), normal_parts(20, seed=1, scales=(1, 50))
    turned = dict(reversed(new.items()))
    fusion = TailProbabilityFusion().fit(learned)
    np.testing.assert_array_equal(fusion.combine(turned), fusion.combine(new))


def test_a_rule_set_after_fit_waits_for_the_next_fit():
    learned, new = normal_parts(), normal_parts(20, seed=1)
    fusion = TailProbabilityFusion("fisher").fit(learned)
    before = fusion.combine(new)
    np.testing.assert_array_equal(fusion.set_params(rule="stouffer").combine(new), before)
    assert not np.allclose(fusion.fit(learned).combine(new), before)


@pytest.mark.parametrize("rule", RULES)
def test_very_high_parts_give_finite_scores(rule):
    joint = (
        TailProbabilityFusion(rule)
        .fit(normal_parts())
        .combine({"foreground": np.array([1e3, 1e300]), "background": np.array([1e5, 1e300])})
    )
    assert np.isfinite(joint).all()
    assert (joint <= 0).all()


def test_keeps_the_protocol():
    fusion = TailProbabilityFusion("stouffer")
    assert isinstance(fusion, Fusion)
    assert fusion.learns_from_scores
    assert clone(fusion).rule == "stouffer"
    with pytest.raises(NotFittedError):
        fusion.combine(normal_parts(3))


def test_parts_are_left_as_they_are():
    learned = normal_parts(30)
    for array in learned.values():
        array.setflags(write=False)
    assert list(TailProbabilityFusion().fit(learned).tails_) == ["foreground", "background"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "parts is empty: expected at least one part"),
        (
            {"foreground": [1.0, 2.0], "background": [1.0]},
            r"Expected one score per image in each part, got \[2, 1\] scores",
        ),
        ({"foreground": [np.nan, 2.0]}, r"parts\['foreground'\] holds 1 NaN"),
        ({"foreground": []}, "is empty"),
    ],
)
def test_bad_parts_are_named(parts, message):
    with pytest.raises(ValueError, match=message):
        TailProbabilityFusion().fit(parts)


def test_any_names_can_be_joined_but_none_at_all():
    fusion = TailProbabilityFusion()
    assert fusion.check_names(["a"]) is None
    assert fusion.check_names(iter(["foreground", "background_logit", "background_knn"])) is None
    with pytest.raises(ValueError, match="parts is empty: expected at least one part"):
        fusion.check_names(iter([]))


def test_other_parts_are_refused():
    fusion = TailProbabilityFusion().fit(normal_parts(20))
    with pytest.raises(ValueError, match=r"names given to fit, \['foreground', 'background'\], got \['foreground'\]"):
        fusion.combine({"foreground": np.zeros(2)})


def test_unknown_rules_are_refused():
    with pytest.raises(ValueError, match="'rule' parameter of TailProbabilityFusion"):
        TailProbabilityFusion("product").fit(normal_parts(5))


class Minimum:
    """A third-party fusion."""

    def fit(self, parts):
        self.scales = {name: np.std(scores) for name, scores in parts.items()}
        return self

    def combine(self, parts):
        return np.min([scores / self.scales[name] for name, scores in parts.items()], axis=0)


@pytest.mark.parametrize(
    "fusion",
    [TailProbabilityFusion("fisher"), TailProbabilityFusion("stouffer"), TemperatureFusion(), Minimum()],
    ids=["fisher", "stouffer", "temperature", "third-party"],
)
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_no_more_than_alpha_is_rejected_over_200_splits(fusion, alpha):
    """The conformal guarantee: fusion, threshold and test each have images of their own."""
    n_learn, n_threshold, n_test = 30, 41, 300
    rejected = []
    for split in range(200):
        parts = normal_parts(n_learn + n_threshold + n_test, 0.6, seed=split, scales=(1, 30))
        learning, setting, testing = (
            {name: scores[rows] for name, scores in parts.items()}
            for rows in (slice(n_learn), slice(n_learn, n_learn + n_threshold), slice(n_learn + n_threshold, None))
        )
        fusion.fit(learning)
        calibrator = ConformalCalibrator(alpha).fit(fusion.combine(setting))
        rejected.append(np.mean(fusion.combine(testing) < calibrator.offset_))
    standard_error = np.std(rejected, ddof=1) / math.sqrt(len(rejected))
    assert np.mean(rejected) <= alpha + 2 * standard_error
    # The rate that 41 images allow is floor(alpha * 42) / 42: it is not much lower either.
    assert np.mean(rejected) >= math.floor(alpha * 42) / 42 - 3 * standard_error
