"""The bootstrap's cumulative sums must be the metrics of resampled scores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from skdfb.evaluation import _bootstrap
from skdfb.evaluation._bootstrap import (
    bootstrap_metrics,
    bootstrap_share,
    metrics_of_counts,
    oscr_of_counts,
    percentile_interval,
)
from skdfb.evaluation._table import METRICS
from skdfb.metrics import aupr_score, auroc_score, fpr_at_tpr, oscr_score

quick = settings(max_examples=80, deadline=None, derandomize=True)
EXACT = ("auroc", "fpr95")  # quotients of whole numbers; in the others the order of summation may round otherwise

scores = st.lists(st.sampled_from([-np.inf, -2.5, -1.0, 0.0, 1e-9, 0.5, 3.0, np.inf]), min_size=1, max_size=30)


def plain_metrics(id_scores, ood_scores):
    return {
        "auroc": auroc_score(id_scores, ood_scores),
        "aupr_in": aupr_score(id_scores, ood_scores, positive="id"),
        "aupr_out": aupr_score(id_scores, ood_scores, positive="ood"),
        "fpr95": fpr_at_tpr(id_scores, ood_scores),
    }


def assert_same(found, expected):
    assert list(found) == list(expected) == list(METRICS)
    for name, values in found.items():
        (assert_array_equal if name in EXACT else assert_allclose)(values, expected[name], **exactness(name))


def exactness(name):
    return {} if name in EXACT else {"rtol": 1e-13}


def resampled(id_scores, ood_scores, n_bootstrap, id_seed, ood_seed):
    """Explicit resamples: sorted scores drawn with replacement, one resample after the other."""
    draw_id, draw_ood = np.random.default_rng(id_seed), np.random.default_rng(ood_seed)
    id_scores, ood_scores = np.sort(id_scores), np.sort(ood_scores)
    found = [
        plain_metrics(
            id_scores[draw_id.integers(0, len(id_scores), len(id_scores))],
            ood_scores[draw_ood.integers(0, len(ood_scores), len(ood_scores))],
        )
        for _ in range(n_bootstrap)
    ]
    return {name: np.asarray([values[name] for values in found]) for name in METRICS}


@quick
@given(st.integers(1, 12), st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 60))
def test_histograms_have_the_metrics_of_their_scores(n_levels, seed, n_id, n_ood):
    rng = np.random.default_rng(seed)
    counts = [
        rng.multinomial(n, rng.dirichlet(np.full(n_levels, 0.5)), size=4) for n in (n_id, n_ood)
    ]  # many levels of none
    found = metrics_of_counts(*counts)
    levels = np.sort(rng.normal(size=n_levels))
    for row, (id_counts, ood_counts) in enumerate(zip(*counts, strict=True)):
        expected = plain_metrics(np.repeat(levels, id_counts), np.repeat(levels, ood_counts))
        assert_same({name: values[row] for name, values in found.items()}, expected)


@pytest.mark.parametrize("n_id", [1, 2, 19, 20, 21, 40, 59, 60, 100, 139, 399, 400, 401])
def test_95_percent_are_counted_in_whole_numbers(n_id):
    id_counts, ood_counts = np.ones((1, n_id), dtype=int), np.ones((1, n_id), dtype=int)
    expected = fpr_at_tpr(np.arange(n_id), np.arange(n_id), tpr=0.95)
    assert metrics_of_counts(id_counts, ood_counts)["fpr95"][0] == expected


@quick
@given(scores, scores, st.integers(0, 99))
def test_resamples_equal_explicit_ones(id_scores, ood_scores, seed):
    arguments = {"n_bootstrap": 5, "id_seed": seed, "ood_seed": seed + 1}
    found = bootstrap_metrics(np.asarray(id_scores), np.asarray(ood_scores), **arguments)
    assert_same(found, resampled(id_scores, ood_scores, **arguments))


@quick
@given(st.integers(1, 12), st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 60))
def test_histograms_have_the_oscr_of_their_scores(n_levels, seed, n_id, n_ood):
    rng = np.random.default_rng(seed)
    id_counts, ood_counts = (rng.multinomial(n, rng.dirichlet(np.full(n_levels, 0.5)), size=4) for n in (n_id, n_ood))
    correct_counts = rng.binomial(id_counts, 0.7)
    found = oscr_of_counts(correct_counts, ood_counts, n_id)
    levels = np.sort(rng.normal(size=n_levels))
    for row, (of_id, of_correct, of_ood) in enumerate(zip(id_counts, correct_counts, ood_counts, strict=True)):
        correct = np.concatenate([np.arange(n) < hits for n, hits in zip(of_id, of_correct, strict=True)])
        assert found[row] == oscr_score(np.repeat(levels, of_id), np.repeat(levels, of_ood), correct)


@quick
@given(scores, scores, st.integers(0, 99))
def test_resamples_of_oscr_equal_explicit_ones(id_scores, ood_scores, seed):
    id_scores, ood_scores = np.asarray(id_scores), np.asarray(ood_scores)
    correct = np.random.default_rng(seed).random(len(id_scores)) < 0.7
    arguments = {"n_bootstrap": 5, "id_seed": seed, "ood_seed": seed + 1}
    found = bootstrap_metrics(id_scores, ood_scores, **arguments, correct=correct)
    draw_id, draw_ood = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    order, ood_scores = np.lexsort((correct, id_scores)), np.sort(ood_scores)
    for value in found.pop("oscr"):
        drawn = order[draw_id.integers(0, len(order), len(order))]
        ood_drawn = ood_scores[draw_ood.integers(0, len(ood_scores), len(ood_scores))]
        assert value == oscr_score(id_scores[drawn], ood_drawn, correct[drawn])
    # The other metrics do not depend on the labels.
    assert_same(found, bootstrap_metrics(id_scores, ood_scores, **arguments))


def test_many_scores():
    rng = np.random.default_rng(0)
    id_scores, ood_scores = rng.normal(1, 1, 700), rng.normal(0, 1, 900).round(2)
    arguments = {"n_bootstrap": 100, "id_seed": 1, "ood_seed": 2}
    assert_same(bootstrap_metrics(id_scores, ood_scores, **arguments), resampled(id_scores, ood_scores, **arguments))


@pytest.mark.parametrize("most_counts", [1, 300, 1000, 10**6])
def test_the_number_at_once_makes_no_difference(monkeypatch, most_counts):
    rng = np.random.default_rng(0)
    id_scores, ood_scores = rng.normal(1, 1, 61), rng.normal(0, 1, 77)
    arguments = {"n_bootstrap": 23, "id_seed": 1, "ood_seed": 2}
    expected = resampled(id_scores, ood_scores, **arguments)
    monkeypatch.setattr(_bootstrap, "_MOST_COUNTS", most_counts)
    assert_same(bootstrap_metrics(id_scores, ood_scores, **arguments), expected)


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(_bootstrap, "_MOST_COUNTS", 1000)
    seen, original = [], _bootstrap.metrics_of_counts
    monkeypatch.setattr(
        _bootstrap, "metrics_of_counts", lambda *counts: seen.append([c.shape for c in counts]) or original(*counts)
    )
    rng = np.random.default_rng(0)
    bootstrap_metrics(rng.normal(size=100), rng.normal(size=300), n_bootstrap=7, id_seed=0, ood_seed=0)
    assert seen == [[(2, 400)] * 2] * 3 + [[(1, 400)] * 2]


def test_order_and_scale_make_no_difference():
    rng = np.random.default_rng(0)
    id_scores, ood_scores = rng.normal(1, 1, 50).round(1), rng.normal(0, 1, 60).round(1)
    arguments = {"n_bootstrap": 20, "id_seed": 1, "ood_seed": 2}
    expected = bootstrap_metrics(id_scores, ood_scores, **arguments)
    shuffled = bootstrap_metrics(rng.permutation(id_scores), rng.permutation(ood_scores), **arguments)
    scaled = bootstrap_metrics(np.exp(id_scores), np.exp(ood_scores), **arguments)
    for name in METRICS:
        assert_array_equal(shuffled[name], expected[name])
        assert_array_equal(scaled[name], expected[name])


def test_each_side_has_its_own_draws():
    rng = np.random.default_rng(0)
    id_scores, constant = rng.normal(size=50), np.zeros(40)
    first, second = (
        bootstrap_metrics(id_scores, constant, n_bootstrap=20, id_seed=1, ood_seed=seed) for seed in (2, 3)
    )
    assert_array_equal(first["auroc"], second["auroc"])
    assert np.ptp(first["auroc"]) > 0
    other = bootstrap_metrics(id_scores, constant, n_bootstrap=20, id_seed=4, ood_seed=2)
    assert not np.array_equal(first["auroc"], other["auroc"])
    # With one seed for both sides, equal scores would be drawn alike.
    alike = bootstrap_metrics(id_scores, id_scores, n_bootstrap=20, id_seed=1, ood_seed=1)
    assert_array_equal(alike["auroc"], 0.5)
    assert np.ptp(bootstrap_metrics(id_scores, id_scores, n_bootstrap=20, id_seed=1, ood_seed=2)["auroc"]) > 0


def test_intervals_contain_the_true_value_about_as_often_as_they_should():
    rng, held, true = np.random.default_rng(0), 0, 0.7602499389065233  # normal cdf of 1 / sqrt(2)
    for seed in range(200):
        values = bootstrap_metrics(
            rng.normal(1, 1, 60), rng.normal(0, 1, 80), n_bootstrap=200, id_seed=seed, ood_seed=1000 + seed
        )
        low, high = percentile_interval(values["auroc"], 0.9)
        held += low <= true <= high
    assert 0.84 < held / 200 < 0.96


def test_shares():
    hits = np.arange(50) < 20
    values = bootstrap_share(hits, n_bootstrap=4000, seed=0)
    assert_allclose(values * 50, np.round(values * 50), atol=1e-9)
    explicit = np.random.default_rng(1).choice(hits, (4000, 50)).mean(1)
    assert values.mean() == pytest.approx(explicit.mean(), abs=0.01)
    assert values.std() == pytest.approx(explicit.std(), rel=0.1)
    assert_array_equal(bootstrap_share(hits, n_bootstrap=9, seed=3), bootstrap_share(hits, n_bootstrap=9, seed=3))
    assert_array_equal(bootstrap_share(np.zeros(9, dtype=bool), n_bootstrap=9, seed=0), 0)
    assert_array_equal(bootstrap_share(np.ones(9, dtype=bool), n_bootstrap=9, seed=0), 1)


def test_percentiles():
    values = np.random.default_rng(0).permutation(101) / 100
    assert percentile_interval(values, 0.9) == pytest.approx((0.05, 0.95))
    assert percentile_interval(values, 0.5) == pytest.approx((0.25, 0.75))
