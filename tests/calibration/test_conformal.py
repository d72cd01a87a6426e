"""The conformal threshold against its definition and in simulations."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skdfb.calibration import ConformalCalibrator

# Few different values, so that ties are common.
scores = st.lists(st.integers(-5, 5), min_size=1, max_size=60)
deterministic = settings(derandomize=True, deadline=None)


def oracle_p_values(held_out, tested):
    return [(1 + sum(h <= s for h in held_out)) / (len(held_out) + 1) for s in tested]


@deterministic
@given(scores, scores)
def test_p_values_follow_their_definition(held_out, tested):
    p_values = ConformalCalibrator(None).fit(held_out).p_values(tested)
    np.testing.assert_allclose(p_values, oracle_p_values(held_out, tested), rtol=1e-14)
    assert p_values.dtype == np.float64


@deterministic
@given(scores, scores, st.floats(0.001, 0.999) | st.sampled_from([0.05, 0.1, 1 / 3, 0.35, 0.7]))
def test_threshold_and_p_values_reject_the_same_images(held_out, tested, alpha):
    assume(len(held_out) >= ConformalCalibrator(alpha).number_needed)
    calibrator = ConformalCalibrator(alpha).fit(held_out)
    by_p_value = calibrator.p_values(tested) <= alpha
    by_threshold = np.array(tested) < calibrator.offset_
    np.testing.assert_array_equal(by_p_value, by_threshold)


@deterministic
@given(scores, st.randoms(use_true_random=False))
def test_order_of_held_out_images_does_not_matter(held_out, random):
    shuffled = held_out.copy()
    random.shuffle(shuffled)
    assume(len(held_out) >= 4)
    one, other = ConformalCalibrator(0.2).fit(held_out), ConformalCalibrator(0.2).fit(shuffled)
    assert one.offset_ == other.offset_
    np.testing.assert_array_equal(one.scores_, other.scores_)


@deterministic
@given(scores, scores)
def test_higher_scores_have_higher_p_values(held_out, tested):
    p_values = ConformalCalibrator(None).fit(held_out).p_values(sorted(tested))
    assert np.all(np.diff(p_values) >= 0)
    assert p_values.min() >= 1 / (len(held_out) + 1)
    assert p_values.max() <= 1


@pytest.mark.parametrize("percent", range(1, 100))
def test_rank_of_offset_is_not_lost_to_rounding(percent):
    alpha = percent / 100
    for n in (19, 39, 59, 99, 139, 199, 299, 999):
        rank = int(Fraction(percent, 100) * (n + 1))
        if rank:
            assert ConformalCalibrator(alpha).fit(np.arange(n)).offset_ == rank - 1


@pytest.mark.parametrize(("n", "rank"), [(19, 1), (20, 1), (38, 1), (39, 2), (58, 2), (59, 3)])
def test_rank_at_the_default_alpha(n, rank):
    assert ConformalCalibrator().fit(np.arange(n)[::-1]).offset_ == rank - 1


@pytest.mark.parametrize("alpha", [0.05, 0.2])
@pytest.mark.parametrize("n_held_out", [19, 50, 137])
def test_at_most_alpha_of_exchangeable_images_are_rejected(alpha, n_held_out):
    rng = np.random.default_rng(0)
    rejected = []
    for _ in range(1500):
        # Both parts come from one sample with heavy tails and ties, so they are exchangeable and nothing more.
        pool = np.round(rng.standard_t(2, size=n_held_out + 40), 1)
        calibrator = ConformalCalibrator(alpha).fit(pool[:n_held_out])
        rejected.append(np.mean(pool[n_held_out:] < calibrator.offset_))
    standard_error = np.std(rejected) / np.sqrt(len(rejected))
    assert np.mean(rejected) <= alpha + 2 * standard_error
    # A threshold that rejects nothing would pass the line above. Ties make the share a little smaller than alpha.
    assert np.mean(rejected) >= int(alpha * (n_held_out + 1)) / (n_held_out + 1) - 0.03


@pytest.mark.parametrize(("alpha", "needed"), [(0.05, 19), (0.1, 9), (0.07, 14), (1 / 49, 48), (1 / 3, 2), (0.5, 1)])
def test_too_few_held_out_images_are_refused_with_the_number_needed(alpha, needed):
    calibrator = ConformalCalibrator(alpha)
    assert calibrator.number_needed == needed
    if needed > 1:
        with pytest.raises(ValueError, match=rf"^{needed - 1} held-out .* expected at least {needed}\. .*alpha=None"):
            calibrator.fit(np.arange(needed - 1))
        assert not hasattr(calibrator, "offset_")
    assert calibrator.fit(np.arange(needed)).offset_ == 0


def test_without_alpha_nothing_is_rejected():
    calibrator = ConformalCalibrator(None).fit([3.0])
    assert calibrator.number_needed == 1
    assert calibrator.offset_ == -np.inf
    assert calibrator.p_values([-1e300, 5.0]).tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "is empty"),
        ([[1.0]], r"shape \(1, 1\)"),
        ([0.0, np.nan], "1 NaN or infinite values of 2"),
        ([np.inf, -np.inf, 0.0], "2 NaN or infinite values of 3"),
        (["a"], "dtype <U1"),
        ([[1.0], [1.0, 2.0]], "cannot be made an array"),
    ],
)
def test_bad_scores_are_refused(bad, message):
    with pytest.raises(ValueError, match=f"^scores .*{message}"):
        ConformalCalibrator().fit(bad)
    with pytest.raises(ValueError, match=f"^scores .*{message}"):
        ConformalCalibrator().fit(np.arange(19)).p_values(bad)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 5, "0.05"])
def test_bad_alpha_is_refused(alpha):
    with pytest.raises(ValueError, match="'alpha' parameter of ConformalCalibrator"):
        ConformalCalibrator(alpha).fit(np.arange(99))


def test_p_values_before_fit_are_refused():
    with pytest.raises(NotFittedError):
        ConformalCalibrator().p_values([0.0])


def test_is_an_estimator_and_does_not_modify_its_input():
    held_out = np.arange(39.0)[::-1].copy()
    calibrator = ConformalCalibrator(alpha=0.1).fit(held_out)
    assert held_out[0] == 38
    assert calibrator.get_params() == {"alpha": 0.1}
    assert not hasattr(clone(calibrator), "offset_")
    assert calibrator.scores_.tolist() == list(range(39))


# --------------------------------------------------------------------- groups


def grouped(held_out):
    """A flat list of scores with the group of each, from one list per group."""
    scores = [score for group in held_out for score in group]
    return scores, [f"video {place}" for place, group in enumerate(held_out) for _ in group]


def oracle_grouped_p_value(held_out, score):
    """Hierarchical conformal prediction (Lee, Barber and Willett 2023), in exact numbers."""
    at_most = sum(Fraction(sum(h <= score for h in group), len(group)) for group in held_out)
    return (1 + at_most) / (len(held_out) + 1)


groups_of_scores = st.lists(st.lists(st.integers(-5, 5), min_size=1, max_size=7), min_size=1, max_size=25)


@deterministic
@given(groups_of_scores, scores)
def test_p_values_of_groups_follow_their_definition(held_out, tested):
    calibrator = ConformalCalibrator(None).fit(*grouped(held_out))
    expected = [float(oracle_grouped_p_value(held_out, score)) for score in tested]
    np.testing.assert_allclose(calibrator.p_values(tested), expected, rtol=1e-12)


@deterministic
@given(groups_of_scores, scores, st.sampled_from([0.05, 0.1, 1 / 3, 0.35, 0.7]))
def test_threshold_and_p_values_of_groups_reject_the_same_images(held_out, tested, alpha):
    assume(len(held_out) >= ConformalCalibrator(alpha).number_needed)
    calibrator = ConformalCalibrator(alpha).fit(*grouped(held_out))
    by_threshold = np.array(tested) < calibrator.offset_
    np.testing.assert_array_equal(calibrator.p_values(tested) <= alpha, by_threshold)


@deterministic
@given(scores, st.sampled_from([0.05, 0.2, 0.7]))
def test_groups_of_one_image_change_nothing(held_out, alpha):
    assume(len(held_out) >= ConformalCalibrator(alpha).number_needed)
    one = ConformalCalibrator(alpha).fit(held_out)
    other = ConformalCalibrator(alpha).fit(held_out, range(len(held_out)))
    assert one.offset_ == other.offset_
    np.testing.assert_allclose(one.p_values(held_out), other.p_values(held_out), rtol=1e-12)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2])
def test_at_most_alpha_of_images_of_new_groups_are_rejected(alpha):
    """Images of a group share most of their score, and large groups have higher scores."""
    rng = np.random.default_rng(0)
    rejected = {"groups": [], "images": []}
    for _ in range(400):
        sizes = rng.integers(1, 30, size=64)
        means = rng.standard_t(3, size=64) + sizes / 15
        sets = [mean + 0.1 * rng.normal(size=size) for mean, size in zip(means, sizes, strict=True)]
        held_out, new = sets[:24], np.array([group[0] for group in sets[24:]])
        scores, groups = grouped(held_out)
        for name, arguments in (("groups", (scores, groups)), ("images", (scores,))):
            rejected[name].append(np.mean(new < ConformalCalibrator(alpha).fit(*arguments).offset_))
    means = {name: np.mean(shares) for name, shares in rejected.items()}
    errors = {name: np.std(shares) / np.sqrt(len(shares)) for name, shares in rejected.items()}
    assert means["groups"] <= alpha + 2 * errors["groups"]
    # A threshold that rejects nothing would pass the line above.
    assert means["groups"] >= alpha / 2
    assert means["images"] > means["groups"]


def test_too_few_groups_are_refused_however_many_images_there_are():
    calibrator = ConformalCalibrator(0.05)
    scores, groups = np.arange(360.0), np.repeat(np.arange(18), 20)
    with pytest.raises(ValueError, match=r"^18 groups of held-out scores .* expected at least 19\. Give more groups"):
        calibrator.fit(scores, groups)
    assert ConformalCalibrator(0.06).fit(scores, groups).offset_ > -np.inf
    assert ConformalCalibrator(None).fit(scores, groups).offset_ == -np.inf


def test_groups_are_kept_beside_the_sorted_scores():
    calibrator = ConformalCalibrator(None).fit([3.0, 1.0, 2.0], ["b", "a", "b"])
    assert calibrator.scores_.tolist() == [1, 2, 3]
    assert calibrator.groups_.tolist() == [1, 0, 0]
    assert calibrator.p_values([1.0, 2.0, 3.0]).tolist() == [2 / 3, 2.5 / 3, 1]
