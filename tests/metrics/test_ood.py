"""The metrics against their slow definitions and against scikit-learn, and their properties."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from skdfb.metrics import aupr_score, auroc_score, fpr_at_tpr

METRICS = [auroc_score, aupr_score, fpr_at_tpr]

# Few different values, so that ties are common.
scores = st.lists(st.integers(-5, 5), min_size=1, max_size=12)
deterministic = settings(derandomize=True, deadline=None)


def oracle_auroc(id_scores, ood_scores):
    won = sum(1.0 if s > t else 0.5 if s == t else 0.0 for s in id_scores for t in ood_scores)
    return won / (len(id_scores) * len(ood_scores))


def oracle_aupr(positives, negatives):
    area, last_recall = 0.0, 0.0
    for threshold in sorted(set(positives) | set(negatives), reverse=True):
        true_positives = sum(s >= threshold for s in positives)
        false_positives = sum(t >= threshold for t in negatives)
        recall = true_positives / len(positives)
        area += (recall - last_recall) * true_positives / (true_positives + false_positives)
        last_recall = recall
    return area


def oracle_fpr(id_scores, ood_scores, tpr):
    keeping = [t for t in set(id_scores) if Fraction(sum(s >= t for s in id_scores), len(id_scores)) >= Fraction(tpr)]
    return sum(s >= max(keeping) for s in ood_scores) / len(ood_scores)


@deterministic
@given(scores, scores)
def test_auroc_counts_pairs(id_scores, ood_scores):
    assert auroc_score(id_scores, ood_scores) == pytest.approx(oracle_auroc(id_scores, ood_scores), abs=1e-12)


@deterministic
@given(scores, scores)
def test_auroc_of_swapped_arguments_is_one_minus_auroc(id_scores, ood_scores):
    assert auroc_score(id_scores, ood_scores) == pytest.approx(1 - auroc_score(ood_scores, id_scores), abs=1e-12)


@deterministic
@given(scores, scores)
def test_aupr_follows_its_definition(id_scores, ood_scores):
    assert aupr_score(id_scores, ood_scores) == pytest.approx(oracle_aupr(id_scores, ood_scores))
    expected = oracle_aupr([-s for s in ood_scores], [-s for s in id_scores])
    assert aupr_score(id_scores, ood_scores, positive="ood") == pytest.approx(expected)


@deterministic
@given(scores, scores, st.sampled_from(["0.05", "0.5", "0.55", "0.7", "0.95", "1"]))
def test_fpr_follows_its_definition(id_scores, ood_scores, tpr):
    assert fpr_at_tpr(id_scores, ood_scores, tpr=float(tpr)) == pytest.approx(oracle_fpr(id_scores, ood_scores, tpr))


@deterministic
@given(scores, scores)
def test_agrees_with_scikit_learn(id_scores, ood_scores):
    labels = [1] * len(id_scores) + [0] * len(ood_scores)
    joined = np.array(id_scores + ood_scores, dtype=float)
    assert auroc_score(id_scores, ood_scores) == pytest.approx(roc_auc_score(labels, joined))
    assert aupr_score(id_scores, ood_scores) == pytest.approx(average_precision_score(labels, joined))
    ood_first = average_precision_score(1 - np.array(labels), -joined)
    assert aupr_score(id_scores, ood_scores, positive="ood") == pytest.approx(ood_first)


@deterministic
@given(scores, scores)
@pytest.mark.parametrize("metric", METRICS)
def test_only_the_order_of_scores_counts(metric, id_scores, ood_scores):
    id_scores, ood_scores = np.array(id_scores, dtype=float), np.array(ood_scores, dtype=float)
    expected = metric(id_scores, ood_scores)
    assert 0 <= expected <= 1
    for increasing in (np.exp, np.arctan, lambda s: s**3 - 7, lambda s: np.where(s == 5, np.inf, s)):
        assert metric(increasing(id_scores), increasing(ood_scores)) == expected
    assert metric(id_scores[::-1], ood_scores[::-1]) == expected


@deterministic
@given(scores, scores, st.floats(0.01, 1), st.floats(0.01, 1))
def test_fpr_grows_with_tpr(id_scores, ood_scores, one, other):
    low, high = sorted((one, other))
    assert fpr_at_tpr(id_scores, ood_scores, tpr=low) <= fpr_at_tpr(id_scores, ood_scores, tpr=high)


@pytest.mark.parametrize("n", [20, 40, 60, 100, 180, 1000])
@pytest.mark.parametrize("percent", [5, 7, 29, 55, 57, 70, 95, 100])
def test_fpr_accepts_exactly_enough_id_images(n, percent):
    n_accepted = math.ceil(Fraction(percent, 100) * n)
    # OOD and ID images have the same scores, so the accepted share is that of the ID images.
    assert fpr_at_tpr(np.arange(n), np.arange(n), tpr=percent / 100) == n_accepted / n


def test_infinite_scores_are_ranked():
    id_scores, ood_scores = [np.inf, np.inf, 0.0], [-np.inf, np.inf]
    assert auroc_score(id_scores, ood_scores) == pytest.approx(oracle_auroc(id_scores, ood_scores))
    assert aupr_score(id_scores, ood_scores) == pytest.approx(oracle_aupr(id_scores, ood_scores))
    assert fpr_at_tpr(id_scores, ood_scores) == 0.5


def test_perfect_constant_and_inverted_scores():
    assert [metric([2, 3], [0, 1]) for metric in METRICS] == [1, 1, 0]
    assert [metric([1, 1], [1, 1]) for metric in METRICS] == [0.5, 0.5, 1]
    assert [metric([0, 1], [2, 3]) for metric in (auroc_score, fpr_at_tpr)] == [0, 1]


def test_many_images_are_fast_and_exact():
    # There are 4e10 pairs. Their number must not overflow, and they must not be held in memory.
    assert auroc_score(np.arange(200_000) + 0.5, np.arange(200_000)) == pytest.approx(0.5 + 1 / 400_000, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "is empty"),
        ([[1.0, 2.0]], r"shape \(1, 2\)"),
        (1.0, r"shape \(\)"),
        ([1.0, np.nan], "1 NaN of 2"),
        (["1.0"], "dtype <U3"),
        ([1j], "dtype complex128"),
        ([[1.0], [1.0, 2.0]], "cannot be made an array"),
    ],
)
def test_bad_scores_are_refused_by_name(metric, bad, message):
    with pytest.raises(ValueError, match=rf"^id_scores .*{message}"):
        metric(bad, [0.0])
    with pytest.raises(ValueError, match=rf"^ood_scores .*{message}"):
        metric([0.0], bad)


@pytest.mark.parametrize("tpr", [0.0, -0.1, 1.1, 95, np.nan])
def test_bad_tpr_is_refused(tpr):
    with pytest.raises(ValueError, match=r"^tpr=.*at most 1"):
        fpr_at_tpr([1.0], [0.0], tpr=tpr)


def test_bad_positive_is_refused():
    with pytest.raises(ValueError, match=r"positive='in'.*'id' or 'ood'"):
        aupr_score([1.0], [0.0], positive="in")


def test_arguments_are_not_modified():
    id_scores, ood_scores = np.array([3.0, 1.0, 2.0]), np.array([2.0, 0.0])
    for metric in METRICS:
        metric(id_scores, ood_scores)
    assert id_scores.tolist() == [3.0, 1.0, 2.0]
    assert ood_scores.tolist() == [2.0, 0.0]
