import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import Entropy
from tests.scorers.helpers import fit_and_score, quick, random_representation, representation_of_logits
from tests.scorers.softmax_oracle import decimal_softmax, logit_rows, long_decimals


def entropy_oracle(logits):
    with long_decimals():
        return np.array([float(sum(p * p.ln() for p in decimal_softmax(row) if p > 0)) for row in logits])


@given(logits=logit_rows)
@quick
def test_oracle(logits):
    scores = fit_and_score(Entropy(), representation_of_logits(logits))
    np.testing.assert_allclose(scores, entropy_oracle(logits), rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1.0, 100.0, 1e30])
@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("K", [2, 7])
def test_oracle_on_features(scale, rank, K):
    representation = random_representation(n=8, rank=rank, scale=scale, K=K)
    np.testing.assert_allclose(
        fit_and_score(Entropy(), representation), entropy_oracle(representation.logits.numpy()), rtol=1e-6
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_ties_at_huge_margins(dtype):
    margins = np.arange(10.0, 700.0, 0.5)
    logits = np.stack([margins, np.zeros_like(margins)], axis=1).astype(dtype)
    scores = fit_and_score(Entropy(), representation_of_logits(logits))
    assert (np.diff(scores) > 0).all()
    # p log p of the smaller probability, and 1 - p of the larger.
    np.testing.assert_allclose(scores, -(margins + 1) * np.exp(-margins), rtol=1e-3)


def test_huge_logits_score_0():
    assert (fit_and_score(Entropy(), random_representation(scale=1e30)) == 0).all()
    assert fit_and_score(Entropy(), representation_of_logits([[1e308, -1e308, 0.0]])).tolist() == [0]


def test_range():
    logits = np.random.default_rng(0).normal(size=(50, 6))
    scores = fit_and_score(Entropy(), representation_of_logits(logits))
    assert ((scores > -np.log(6)) & (scores < 0)).all()
    assert np.isclose(fit_and_score(Entropy(), representation_of_logits(np.full((1, 6), 3.0)))[0], -np.log(6))


@given(logits=logit_rows, shift=st.integers(-1000, 1000))
@quick
def test_shift_invariant(logits, shift):
    # Multiples of 2^-20, so that the shift is exact.
    logits = np.round(logits * 2**20) / 2**20
    moved = fit_and_score(Entropy(), representation_of_logits(logits + shift))
    assert np.array_equal(moved, fit_and_score(Entropy(), representation_of_logits(logits)))


@given(logits=logit_rows, seed=st.integers(0, 1000))
@quick
def test_order_of_classes_does_not_matter(logits, seed):
    order = np.random.default_rng(seed).permutation(logits.shape[1])
    moved = fit_and_score(Entropy(), representation_of_logits(logits[:, order]))
    np.testing.assert_allclose(moved, fit_and_score(Entropy(), representation_of_logits(logits)), rtol=1e-12)


@given(logits=logit_rows, factor=st.floats(1.5, 10))
@quick
def test_larger_logits_are_more_certain(logits, factor):
    scores = fit_and_score(Entropy(), representation_of_logits(logits))
    sharper = fit_and_score(Entropy(), representation_of_logits(logits * factor))
    assert (sharper >= scores - 1e-12).all()


def test_one_class_raises_an_error():
    with pytest.raises(ValueError, match="1 class"):
        Entropy().fit(random_representation(K=1))


def test_output():
    assert Entropy.output == "probability"
