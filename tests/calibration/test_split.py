"""The choice of held-out images: shares, equal chances, refusals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skdfb.calibration import ConformalCalibrator, stratified_holdout

class_sizes = st.lists(st.integers(2, 30), min_size=1, max_size=8)
fractions = st.floats(0.02, 0.5) | st.sampled_from([0.1, 0.2, 0.25, 1 / 3, 0.5])


@settings(derandomize=True, deadline=None)
@given(class_sizes, fractions, st.integers(0, 1000))
def test_every_class_gets_its_share(sizes, fraction, seed):
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    if fraction * y.size < 1:
        y = np.tile(y, math.ceil(1 / fraction))
    train, held_out = stratified_holdout(y, fraction, seed)

    np.testing.assert_array_equal(np.sort(np.concatenate([train, held_out])), np.arange(y.size))
    for part in (train, held_out):
        assert np.all(np.diff(part) > 0)
        assert part.dtype == np.intp
    assert len(held_out) >= 1
    assert abs(len(held_out) - fraction * y.size) < 1 + 1e-9
    for size, n_held_out in zip(np.bincount(y), np.bincount(y[held_out], minlength=len(sizes)), strict=True):
        assert abs(n_held_out - fraction * size) < 1 + 1e-9
        assert n_held_out < size


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5])
def test_every_image_has_the_same_chance(fraction):
    y = np.repeat([0, 1, 2, 3], [2, 3, 7, 25])
    n_splits = 4000
    counts = np.zeros(y.size)
    rng = np.random.RandomState(0)
    for _ in range(n_splits):
        counts[stratified_holdout(y, fraction, rng)[1]] += 1
    deviations = (counts / n_splits - fraction) / np.sqrt(fraction * (1 - fraction) / n_splits)
    # 37 nearly normal deviations: the largest stays below 4 unless the chances differ.
    assert np.abs(deviations).max() < 4


def test_members_of_a_class_are_chosen_at_random():
    y = np.zeros(10, dtype=int)
    pairs = {tuple(stratified_holdout(y, 0.2, seed)[1]) for seed in range(2000)}
    # Systematic sampling without shuffling would reach only 5 of the 45 pairs.
    assert len(pairs) == 45


def test_held_out_images_calibrate_small_classes():
    # Scores depend on the class, and most classes are too small for a share of their own.
    rng = np.random.RandomState(0)
    sizes = [3] * 40 + [200]
    alpha, rejected = 0.1, []
    for _ in range(400):
        y = np.repeat(np.arange(len(sizes)), sizes)
        scores = rng.normal(size=y.size) - 3 * (y < 40)
        new = rng.normal(size=y.size) - 3 * (y < 40)
        _, held_out = stratified_holdout(y, 0.2, rng)
        rejected.append(np.mean(new < ConformalCalibrator(alpha).fit(scores[held_out]).offset_))
    assert np.mean(rejected) <= alpha + 2 * np.std(rejected) / np.sqrt(len(rejected))
    assert np.mean(rejected) >= alpha - 0.03


def test_seed_decides():
    y = np.repeat(["a", "b"], 20)
    one, same, other = (stratified_holdout(y, 0.25, seed)[1].tolist() for seed in (0, 0, 1))
    assert one == same
    assert one != other


def test_global_random_state_is_untouched():
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    stratified_holdout(np.zeros(20), 0.1, 0)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_small_classes_are_refused_by_name():
    y = ["cat"] * 5 + ["dog"] + ["bird"] * 5
    with pytest.raises(ValueError, match=r"class 'dog' has 1 image.*at least 2.*give more images"):
        stratified_holdout(y, 0.2, 0)
    with pytest.raises(ValueError, match=r"class 'dog' has 1 image"):
        stratified_holdout(np.array(y, dtype=object), 0.2, 0)
    with pytest.raises(ValueError, match=r"class 4 has 1 image.*1 other classes"):
        stratified_holdout([3, 3, 4, 5], 0.5, 0)
    train, held_out = stratified_holdout(y, 0.2, 0, min_per_class=1)
    assert len(train) + len(held_out) == 11


@pytest.mark.parametrize("seed", range(20))
def test_less_than_one_held_out_image_is_refused_whatever_the_seed(seed):
    with pytest.raises(ValueError, match=r"calibration_fraction=0.1 of 3 images.*at least 0.334 or give more"):
        stratified_holdout([0, 0, 0], 0.1, seed)
    assert len(stratified_holdout([0, 0, 0], 0.334, seed)[1]) in (1, 2)
    assert len(stratified_holdout([0] * 10, 0.1, seed)[1]) == 1


@pytest.mark.parametrize("fraction", [0, -0.1, 0.51, 1, np.nan])
def test_bad_fraction_is_refused(fraction):
    with pytest.raises(ValueError, match=r"calibration_fraction=.*at most 0.5"):
        stratified_holdout([0] * 20, fraction, 0)


@pytest.mark.parametrize("y", [[], [[0, 1], [0, 1]], 3])
def test_bad_labels_are_refused(y):
    with pytest.raises(ValueError, match="y has shape"):
        stratified_holdout(y, 0.5, 0)


def test_bad_min_per_class_is_refused():
    with pytest.raises(ValueError, match="min_per_class=0 must be at least 1"):
        stratified_holdout([0] * 20, 0.5, 0, min_per_class=0)


def test_a_tenth_by_default():
    assert len(stratified_holdout(np.arange(100) % 2, random_state=0)[1]) == 10


def test_one_small_class_is_told_alone():
    with pytest.raises(
        ValueError, match=r"class 2 has 1 image\(s\): expected at least 2, .*; give more images of it or leave"
    ):
        stratified_holdout(np.array([0] * 10 + [1] * 10 + [2]), 0.2, random_state=0)
