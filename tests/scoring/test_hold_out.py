"""How many images are held out, and which: the threshold must be finite, or the fit must not begin."""

import logging
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from skdfb.calibration import ConformalCalibrator, stratified_holdout
from skdfb.fusion import TailProbabilityFusion
from skdfb.scorers import Energy
from skdfb.scoring import HeldOutSplit, JointScore, hold_out
from skdfb.scoring._hold_out import HeldOut, check_number, learning_share, number_to_hold_out
from skdfb.scoring._joint_score import _lowered_by_rounding

quick = settings(derandomize=True, deadline=None)


@pytest.mark.parametrize(
    ("n_held_out", "n_needed", "share"),
    [(100, 19, 50), (38, 19, 19), (37, 19, 18), (36, 19, 17), (29, 19, 10), (28, 19, 10), (20, 19, 10), (12, 19, 6)],
)
def test_share_that_is_learned_from(n_held_out, n_needed, share):
    assert learning_share(n_held_out, n_needed) == share


@pytest.mark.parametrize(("n_needed", "total"), [(19, 29), (9, 17), (1, 2), (99, 109)])
def test_number_to_hold_out(n_needed, total):
    assert number_to_hold_out(n_needed) == total
    assert total - learning_share(total, n_needed) >= n_needed
    assert total == 2 or total - 1 - learning_share(total - 1, n_needed) < n_needed


def test_one_outlier_does_not_move_the_threshold():
    scores = np.random.default_rng(0).normal(size=200)
    lowered = _lowered_by_rounding(np.append(scores, -1e9))
    assert (lowered[:-1] < scores).all()
    assert_allclose(lowered[:-1], scores, atol=1e-5)


@given(
    counts=st.lists(st.integers(2, 80), min_size=1, max_size=6),
    n_needed=st.integers(1, 120),
    seed=st.integers(0, 2**32 - 1),
)
@quick
def test_auto_holds_out_enough_or_half(counts, n_needed, seed):
    y = np.repeat(np.arange(len(counts)), counts)
    n = len(y)
    if n < 10:  # a tenth would be less than one image
        n_needed = max(n_needed, 1)
    split = hold_out(y, "auto", n_needed, choice_seed=seed, order_seed=seed)
    assert_array_equal(np.sort(np.concatenate(split)), np.arange(n))
    n_held_out = len(split.held_out)
    assert n_held_out >= min(n_needed, n // 2)
    assert n_held_out <= max(np.ceil(n / 10), min(n_needed, np.ceil(n / 2)))
    assert split.fraction == n_held_out / n
    assert set(y[split.train]) == set(y), "every class keeps an image for training"


@given(n=st.integers(20, 400), fraction=st.floats(0.05, 0.5), seed=st.integers(0, 1000))
@quick
def test_a_given_fraction_is_kept(n, fraction, seed):
    y = np.arange(n) % 2
    split = hold_out(y, fraction, 10**6, choice_seed=seed, order_seed=seed)
    train, held_out = stratified_holdout(y, fraction, random_state=seed)
    assert_array_equal(split.train, train)
    assert_array_equal(np.sort(split.held_out), held_out)


def test_the_order_is_random_and_follows_the_seed():
    y = np.repeat([0, 1], 500)
    first, again, other = (hold_out(y, 0.5, choice_seed=0, order_seed=seed) for seed in (0, 0, 1))
    assert_array_equal(first.held_out, again.held_out)
    assert (first.held_out != other.held_out).any()
    assert set(y[first.held_out[:100]]) == {0, 1}


def test_what_auto_became_is_reported(caplog):
    y = np.repeat([0, 1], 120)
    with caplog.at_level(logging.INFO, "skdfb"):
        assert len(hold_out(y, "auto", 24, choice_seed=0).held_out) == 24
    assert not caplog.records
    hold_out(y, "auto", 29, choice_seed=0)
    assert "29 of 240 images (12.1 %) are held out instead of 10 %" in caplog.text


# ------------------------------------------------------------------ too few


@pytest.mark.parametrize("fusion", [None, TailProbabilityFusion()], ids=["nothing learns", "the fusion learns"])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("n_held_out", [1, 3, 6, 18, 28, 60, 98])
@pytest.mark.parametrize("n_images", [60, 240, 3000])
def test_the_remedies_of_the_error_work(fusion, alpha, n_held_out, n_images):
    """Each value that the message offers is tried."""
    joint_score = JointScore([("foreground", "dense", Energy())], fusion=fusion, alpha=alpha)
    needed = joint_score.n_held_out_needed
    if n_held_out >= needed:
        joint_score.check_number(n_held_out, n_images)
        return
    with pytest.raises(ValueError, match=rf"alpha={alpha:g} needs at least {needed}: ") as raised:
        joint_score.check_number(n_held_out, n_images)
    remedies = str(raised.value).partition("Pass ")[2]
    y = np.zeros(n_images, dtype=int)
    if fraction := re.search(r"calibration_fraction=([\d.]*\d)", remedies):
        split = hold_out(y, float(fraction[1]), choice_seed=0)
        joint_score.check_number(len(split.held_out), n_images)
    else:
        assert needed > n_images / 2
    if larger := re.search(r"alpha=([\d.]*\d)", remedies):
        joint_score.set_params(alpha=float(larger[1])).check_number(n_held_out, n_images)
        assert float(larger[1]) > alpha
    else:
        assert n_held_out < 3
    more = np.zeros(int(re.search(r"at least (\d+) images", remedies)[1]), dtype=int)
    joint_score.set_params(alpha=alpha).check_number(len(hold_out(more, "auto", needed).held_out), len(more))
    if n_held_out > 1 or fusion is None:
        joint_score.set_params(alpha=None).check_number(n_held_out, n_images)


def test_one_image_cannot_be_learned_from_and_set_the_threshold():
    joint_score = JointScore([("foreground", "dense", Energy())], fusion=TailProbabilityFusion(), alpha=None)
    with pytest.raises(ValueError, match=r"1 image\(s\) are held out: expected at least 2"):
        joint_score.check_number(1, 10)


def test_enough_images_pass():
    check_number(HeldOut(29, 240), 29, 0.05, learns=True)
    assert ConformalCalibrator(0.05).number_needed == 19


def test_the_split_knows_its_fraction():
    assert HeldOutSplit(np.arange(6), np.arange(6, 8)).fraction == 0.25


# --------------------------------------------------------------------- groups


@given(
    sizes=st.lists(st.integers(1, 20), min_size=20, max_size=80),
    n_needed=st.integers(1, 30),
    n_classes=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
@quick
def test_groups_are_held_out_whole(sizes, n_needed, n_classes, seed):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    y = groups % n_classes  # each class has groups of its own
    order = np.random.default_rng(seed).permutation(len(y))
    groups, y = groups[order], y[order]
    names = [f"video {group}" for group in groups]
    split = hold_out(y, "auto", n_needed, choice_seed=seed, order_seed=seed, groups=names)
    assert_array_equal(np.sort(np.concatenate(split)), np.arange(len(y)))
    held_out = set(groups[split.held_out])
    assert not held_out & set(groups[split.train])
    n = len(sizes)
    assert min(n_needed, n // 2) <= len(held_out) <= max(np.ceil(n / 10), min(n_needed, np.ceil(n / 2)))
    assert set(y[split.train]) == set(y)
    # Stratified: the groups of each class have their share, rounded up or down.
    for label in range(n_classes):
        share = len(set(groups[y == label])) * len(held_out) / n
        assert abs(len({group for group in held_out if group % n_classes == label}) - share) < 2
    # One group follows the other.
    changes = np.count_nonzero(np.diff(groups[split.held_out]))
    assert changes == len(held_out) - 1
    again = hold_out(y, "auto", n_needed, choice_seed=seed, order_seed=seed, groups=groups * 7 - 3)
    assert_array_equal(again.train, split.train)
    assert_array_equal(again.held_out, split.held_out)


def test_groups_of_several_classes_leave_each_class_for_the_training():
    """Class 1 is in three groups only, each of which holds more images of class 0."""
    groups = np.repeat(np.arange(12), 10)
    y = ((groups < 3) & (np.arange(120) % 10 < 2)).astype(int)
    for seed in range(30):
        split = hold_out(y, 0.5, choice_seed=seed, order_seed=seed, groups=groups)
        assert set(y[split.train]) == {0, 1}
        assert len(set(groups[split.held_out])) == 6
        assert 1 <= len(set(groups[split.held_out]) & {0, 1, 2}) <= 2


def test_what_auto_became_for_groups_is_reported(caplog):
    groups = np.arange(240) // 10
    hold_out(groups % 2, "auto", 5, choice_seed=0, groups=groups)
    assert "5 of 24 groups (20.8 %) are held out instead of 10 %" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": ["a"] * 7}, "groups has 7 labels for 80 images"),
        (
            {"groups": np.arange(80) // 10, "fraction": 0.1},
            "0.1 of 8 groups is less than one .* at least 0.125 or give",
        ),
        (
            {"groups": np.repeat([0, 1, 2, 2], 20)},
            "class 'cat' has images of one group only: expected at least 2 groups",
        ),
        ({"groups": np.repeat([0, 0, 0, 1], 20)}, "class 'cat' has images of one group only"),
    ],
)
def test_groups_that_cannot_be_held_out(changes, message):
    y = np.repeat(["cat", "dog"], [20, 60])
    with pytest.raises(ValueError, match=message) as raised:
        hold_out(y, **{"fraction": 0.5, "choice_seed": 0} | changes)
    if fraction := re.search(r"at least (0\.\d+) or give", str(raised.value)):
        hold_out(y, **changes | {"fraction": float(fraction[1]), "choice_seed": 0})


def test_classes_that_the_groups_share_too_evenly():
    """Each two of four groups are the only ones with a class: two of them cannot be held out, but one can."""
    pairs = [(first, second) for second in range(4) for first in range(second)]
    y, groups = np.repeat(np.arange(6), 2), np.ravel(pairs)
    with pytest.raises(ValueError, match=r"in 100 draws some class had no image left .*lower calibration_fraction"):
        hold_out(y, 0.5, choice_seed=0, groups=groups)
    split = hold_out(y, 0.25, choice_seed=0, groups=groups)
    assert set(y[split.train]) == set(y)


@pytest.mark.parametrize("fusion", [None, TailProbabilityFusion()], ids=["nothing learns", "the fusion learns"])
@pytest.mark.parametrize("size", [1, 4, 15])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
@pytest.mark.parametrize("n_groups", [8, 30, 60, 200])
def test_the_remedies_of_the_error_work_for_groups(fusion, size, alpha, n_groups):
    joint_score = JointScore([("foreground", "dense", Energy())], fusion=fusion, alpha=alpha)

    def held_out_of(n_groups, fraction):
        groups = np.repeat(np.arange(n_groups), size)
        split = hold_out(np.zeros(len(groups)), fraction, joint_score.number_needed(groups), groups=groups)
        return len(set(groups[split.held_out])), groups

    n_held_out, groups = held_out_of(n_groups, 0.126)
    needed = joint_score.number_needed(groups)
    if n_held_out >= needed:
        joint_score.check_number(n_held_out, n_groups, groups=groups)
        return
    with pytest.raises(
        ValueError, match=rf"{n_held_out} of {n_groups} groups are .* needs at least {needed}: "
    ) as raised:
        joint_score.check_number(n_held_out, n_groups, groups=groups)
    remedies = str(raised.value).partition("Pass ")[2]
    if fraction := re.search(r"calibration_fraction=([\d.]*\d)", remedies):
        enough, _ = held_out_of(n_groups, float(fraction[1]))
        joint_score.check_number(enough, n_groups, groups=groups)
    else:
        assert needed > n_groups / 2
    enough, more = held_out_of(int(re.search(r"at least (\d+) groups with", remedies)[1]), "auto")
    joint_score.check_number(enough, len(more), groups=more)
    own = int(re.search(r"an X_calibration of at least (\d+) groups", remedies)[1])
    joint_score.check_number(own, None, groups=np.repeat(np.arange(own), size))
    if larger := re.search(r"alpha=([\d.]*\d)", remedies):
        joint_score.set_params(alpha=float(larger[1])).check_number(n_held_out, n_groups, groups=groups)
    joint_score.set_params(alpha=None)
    if n_held_out > 1 or fusion is None:
        joint_score.check_number(n_held_out, n_groups, groups=groups)
    else:
        with pytest.raises(ValueError, match=r"1 group\(s\) are held out: expected at least 2"):
            joint_score.check_number(n_held_out, n_groups, groups=groups)


def test_the_remedies_for_own_images_work():
    joint_score = JointScore([("foreground", "dense", Energy())], alpha=0.05)
    with pytest.raises(
        ValueError, match=r"^10 images are held out, but .*Pass alpha=0\.091, or alpha=None.*19 images\.$"
    ):
        joint_score.check_number(10, None)
    joint_score.check_number(19, None)
    joint_score.set_params(alpha=0.091).check_number(10, None)
