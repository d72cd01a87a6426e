from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import GEN
from tests.scorers.helpers import fit_and_score, quick, random_representation, representation_of_logits
from tests.scorers.softmax_oracle import decimal_softmax, logit_rows, long_decimals


def gen_oracle(logits, gamma, n_top):
    scores = []
    with long_decimals():
        for row in logits:
            largest = sorted(decimal_softmax(row), reverse=True)[:n_top]
            bases = [p * (1 - p) for p in largest]
            scores.append(float(-sum((Decimal(gamma) * b.ln()).exp() for b in bases if b > 0)))
    return np.array(scores)


@given(logits=logit_rows, gamma=st.floats(0.01, 2), n_top=st.integers(1, 6))
@quick
def test_oracle(logits, gamma, n_top):
    scores = fit_and_score(GEN(gamma=gamma, n_top=n_top), representation_of_logits(logits))
    np.testing.assert_allclose(scores, gen_oracle(logits, gamma, n_top), rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1.0, 100.0, 1e30])
@pytest.mark.parametrize("rank", [None, 2])
def test_oracle_on_features(scale, rank):
    representation = random_representation(n=8, rank=rank, scale=scale, K=7)
    np.testing.assert_allclose(
        fit_and_score(GEN(n_top=4), representation), gen_oracle(representation.logits.numpy(), 0.1, 4), rtol=1e-6
    )


def test_defaults_are_those_of_the_paper():
    assert GEN().get_params() == {"gamma": 0.1, "n_top": 100}
    logits = np.random.default_rng(0).normal(size=(2, 120))
    scores = fit_and_score(GEN(), representation_of_logits(logits))
    np.testing.assert_allclose(scores, gen_oracle(logits, 0.1, 100), rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_ties_at_huge_margins(dtype):
    margins = np.arange(10.0, 7000.0, 5.0)
    logits = np.stack([margins, np.zeros_like(margins)], axis=1).astype(dtype)
    scores = fit_and_score(GEN(), representation_of_logits(logits))
    assert (np.diff(scores) > 0).all()
    # Both terms are exp(-gamma * margin).
    np.testing.assert_allclose(scores, -2 * np.exp(-0.1 * margins), rtol=1e-4)


def test_saturated_probability_alone():
    # With one term, the scores differ only by 1 - p of the largest probability.
    logits = [[50.0, 0.0], [60.0, 0.0], [700.0, 0.0]]
    scores = fit_and_score(GEN(n_top=1), representation_of_logits(logits))
    np.testing.assert_allclose(scores, -np.exp([-5.0, -6.0, -70.0]), rtol=1e-12)


def test_huge_logits_score_0():
    assert (fit_and_score(GEN(), random_representation(scale=1e30)) == 0).all()
    assert fit_and_score(GEN(), representation_of_logits([[1e308, -1e308, 0.0]])).tolist() == [0]


@given(logits=logit_rows, gamma=st.floats(0.01, 1), n_top=st.integers(1, 6))
@quick
def test_range(logits, gamma, n_top):
    scores = fit_and_score(GEN(gamma=gamma, n_top=n_top), representation_of_logits(logits))
    M = min(n_top, logits.shape[1])
    assert ((scores >= -M * 0.25**gamma * (1 + 1e-12)) & (scores <= 0)).all()


def test_exponent_one_is_gini_impurity():
    logits = np.random.default_rng(0).normal(size=(20, 5))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scores = fit_and_score(GEN(gamma=1.0), representation_of_logits(logits))
    np.testing.assert_allclose(scores, (p**2).sum(axis=1) - 1, rtol=1e-10)


@given(logits=logit_rows, shift=st.integers(-1000, 1000))
@quick
def test_shift_invariant(logits, shift):
    # Multiples of 2^-20, so that the shift is exact.
    logits = np.round(logits * 2**20) / 2**20
    moved = fit_and_score(GEN(n_top=3), representation_of_logits(logits + shift))
    assert np.array_equal(moved, fit_and_score(GEN(n_top=3), representation_of_logits(logits)))


@given(logits=logit_rows, seed=st.integers(0, 1000))
@quick
def test_order_of_classes_does_not_matter(logits, seed):
    order = np.random.default_rng(seed).permutation(logits.shape[1])
    moved = fit_and_score(GEN(n_top=3), representation_of_logits(logits[:, order]))
    np.testing.assert_allclose(moved, fit_and_score(GEN(n_top=3), representation_of_logits(logits)), rtol=1e-12)


def test_classes_beyond_the_largest_do_not_add_terms():
    near, far = [[2.0, 1.0, -60.0]], [[2.0, 1.0, -70.0]]
    two = [fit_and_score(GEN(n_top=2), representation_of_logits(logits))[0] for logits in (near, far)]
    three = [fit_and_score(GEN(n_top=3), representation_of_logits(logits))[0] for logits in (near, far)]
    assert np.isclose(*two, rtol=1e-12)
    assert three[0] < three[1] < two[0]


@pytest.mark.parametrize("gamma", [0, -0.1, float("inf"), float("nan"), "0.1", None])
def test_gamma_is_checked(gamma):
    with pytest.raises(ValueError, match="gamma"):
        GEN(gamma=gamma).fit(random_representation())


@pytest.mark.parametrize("n_top", [0, -1, 1.5, "all", None])
def test_n_top_is_checked(n_top):
    with pytest.raises(ValueError, match="n_top"):
        GEN(n_top=n_top).fit(random_representation())


def test_one_class_raises_an_error():
    with pytest.raises(ValueError, match="1 class"):
        GEN().fit(random_representation(K=1))


def test_output():
    assert GEN.output == "probability"
