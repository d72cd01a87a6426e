from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import KLMatching, Representation
from tests.scorers.helpers import fit_and_score, quick, random_representation, representation_of_logits
from tests.scorers.softmax_oracle import decimal_softmax, long_decimals

SMALLEST = Decimal(float(np.finfo(np.float64).tiny))


def kl_matching_oracle(train, test):
    """KL matching by the paper, in long decimals, from logits."""
    with long_decimals(450):
        train_p = [decimal_softmax(row) for row in train]
        predicted = [int(np.argmax(row)) for row in train]
        templates = []
        for k in sorted(set(predicted)):
            members = [p for p, label in zip(train_p, predicted, strict=True) if label == k]
            templates.append([sum(column) / len(members) for column in zip(*members, strict=True)])
        scores = []
        for row in test:
            p = decimal_softmax(row)
            divergences = [
                sum(pj * (pj / max(dj, SMALLEST)).ln() for pj, dj in zip(p, d, strict=True) if pj > 0)
                for d in templates
            ]
            scores.append(float(-min(divergences)))
    return np.array(scores)


def fit_and_score_logits(train, test):
    return KLMatching().fit(representation_of_logits(train)).score_samples(representation_of_logits(test))


@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), K=st.integers(2, 5), scale=st.floats(0.1, 50))
@quick
def test_oracle(seed, n, K, scale):
    rng = np.random.default_rng(seed)
    train, test = scale * rng.normal(size=(n, K)), scale * rng.normal(size=(4, K))
    np.testing.assert_allclose(
        fit_and_score_logits(train, test), kl_matching_oracle(train, test), rtol=1e-6, atol=1e-14
    )


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 30.0, 500.0, 1e30])
@pytest.mark.parametrize("rank", [None, 2])
def test_oracle_on_features(scale, rank):
    representation = random_representation(n=12, rank=rank, scale=scale)
    logits = representation.logits.numpy()
    expected = kl_matching_oracle(logits, logits)
    np.testing.assert_allclose(fit_and_score(KLMatching(), representation), expected, rtol=1e-6, atol=1e-14)


def test_oracle_where_training_and_new_images_are_saturated():
    # All probabilities round to 0 and 1.
    train = np.array([[50.0, 0, 3], [60.0, 1, 0], [0.0, 55, 0], [0.0, 45, 2]])
    test = np.array([[46.0, 0, 0], [70.0, 0, 0], [0.0, 44, 1], [0.0, 300, 2], [41.0, 41, 0]])
    expected = kl_matching_oracle(train, test)
    np.testing.assert_allclose(fit_and_score_logits(train, test), expected, rtol=1e-9)
    assert len(np.unique(expected)) == len(test)
    assert np.abs(expected[:4]).max() < 1e-16


def test_templates():
    logits = np.log([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8]])
    scorer = KLMatching().fit(representation_of_logits(logits))
    assert scorer.template_classes_.tolist() == [0, 2]
    assert scorer.log_templates_.dtype == np.float64
    np.testing.assert_allclose(np.exp(scorer.log_templates_), [[0.6, 0.3, 0.1], [0.1, 0.1, 0.8]], rtol=1e-12)


def test_predictions_count_and_not_labels():
    logits = np.log([[0.7, 0.3], [0.6, 0.4], [0.1, 0.9]])
    representation = representation_of_logits(logits)
    scorer = KLMatching().fit(representation, [1, 1, 0])
    np.testing.assert_allclose(np.exp(scorer.log_templates_), [[0.65, 0.35], [0.1, 0.9]], rtol=1e-12)


def test_softmax_equal_to_a_template_scores_zero():
    logits = np.random.default_rng(0).normal(size=(1, 5))
    np.testing.assert_allclose(fit_and_score_logits(logits, logits + 7), [0], atol=1e-15)


def test_direction_of_the_divergence():
    train, test = np.log([[0.9, 0.1]]), np.log([[0.5, 0.5]])
    expected = 0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1)
    np.testing.assert_allclose(fit_and_score_logits(train, test), [-expected], rtol=1e-12)


def test_only_one_class_is_ever_predicted():
    rng = np.random.default_rng(0)
    train = rng.normal(size=(10, 4)) + np.array([10, 0, 0, 0])
    test = rng.normal(size=(5, 4)) * 3
    np.testing.assert_allclose(fit_and_score_logits(train, test), kl_matching_oracle(train, test), rtol=1e-9)


@pytest.mark.parametrize("size", [800.0, 1e30, 1e308])
def test_divergence_from_a_template_with_zeros_is_finite(size):
    scores = fit_and_score_logits([[size, 0.0, 0.0]], [[0.0, size, 0.0], [size, 0.0, 0.0]])
    np.testing.assert_allclose(scores, [np.log(np.finfo(np.float64).tiny), 0], rtol=1e-12)
    assert np.isfinite(fit_and_score_logits([[size, -size]], [[-size, size]])).all()


@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 1e4))
@quick
def test_range(seed, scale):
    rng = np.random.default_rng(seed)
    scores = fit_and_score_logits(scale * rng.normal(size=(6, 4)), scale * rng.normal(size=(6, 4)))
    assert ((scores <= 0) & (scores >= np.log(np.finfo(np.float64).tiny))).all()


@given(seed=st.integers(0, 10**6), copies=st.integers(2, 4))
@quick
def test_copies_of_the_training_set_do_not_matter(seed, copies):
    rng = np.random.default_rng(seed)
    train, test = rng.normal(size=(8, 4)), rng.normal(size=(6, 4))
    repeated = fit_and_score_logits(np.tile(train, (copies, 1)), test)
    np.testing.assert_allclose(repeated, fit_and_score_logits(train, test), rtol=1e-9, atol=1e-14)


@given(seed=st.integers(0, 10**6))
@quick
def test_shift_invariant(seed):
    rng = np.random.default_rng(seed)
    train, test = rng.normal(size=(8, 4)), rng.normal(size=(6, 4))
    moved = fit_and_score_logits(train + rng.normal(size=(8, 1)), test + rng.normal(size=(6, 1)))
    np.testing.assert_allclose(moved, fit_and_score_logits(train, test), rtol=1e-9, atol=1e-13)


@given(seed=st.integers(0, 10**6))
@quick
def test_order_of_classes_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    train, test, order = rng.normal(size=(8, 4)), rng.normal(size=(6, 4)), rng.permutation(4)
    moved = fit_and_score_logits(train[:, order], test[:, order])
    np.testing.assert_allclose(moved, fit_and_score_logits(train, test), rtol=1e-9, atol=1e-14)


def test_nan_in_fit():
    good = random_representation()
    logits = good.logits.clone()
    logits[2] = torch.nan
    bad = Representation(features=good.features, logits=logits, weight=good.weight, bias=good.bias)
    with pytest.raises(ValueError, match=r"representation\.logits hold NaN or infinity: expected finite numbers"):
        KLMatching().fit(bad)


def test_one_class_raises_an_error():
    with pytest.raises(ValueError, match="1 class"):
        KLMatching().fit(random_representation(K=1))


def test_output():
    assert KLMatching.output == "probability"
