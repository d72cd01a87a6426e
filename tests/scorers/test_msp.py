from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from skdfb.scorers import MSP
from tests.scorers.helpers import fit_and_score, quick, random_representation, representation_of_logits


def log_msp_oracle(logits, temperature=1.0):
    """The logarithm of the largest softmax probability, from the definition, in long decimals."""
    scores = []
    with localcontext() as context:
        context.prec = 400
        for row in logits:
            exponentials = [(Decimal(float(z)) / Decimal(temperature)).exp() for z in row]
            scores.append(float((max(exponentials) / sum(exponentials)).ln()))
    return np.array(scores)


logit_rows = arrays(
    np.float64, st.tuples(st.integers(1, 4), st.integers(2, 5)), elements=st.floats(-300, 300, allow_subnormal=False)
)


@given(logits=logit_rows)
@quick
def test_oracle(logits):
    scores = fit_and_score(MSP(), representation_of_logits(logits))
    np.testing.assert_allclose(scores, log_msp_oracle(logits), rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 100.0])
@pytest.mark.parametrize("rank", [None, 2])
def test_oracle_on_features(scale, rank):
    representation = random_representation(n=10, rank=rank, scale=scale)
    np.testing.assert_allclose(
        fit_and_score(MSP(), representation), log_msp_oracle(representation.logits.numpy()), rtol=1e-6
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_ties_at_huge_margins(dtype):
    margins = np.arange(10.0, 700.0, 0.5)
    logits = np.stack([margins, np.zeros_like(margins)], axis=1).astype(dtype)
    scores = fit_and_score(MSP(), representation_of_logits(logits))
    # The probability itself saturates, in float64 from a margin of 37.
    assert len(np.unique(1 / (1 + np.exp(-margins)))) < 100
    assert (np.diff(scores) > 0).all()
    np.testing.assert_allclose(scores, -np.exp(-margins), rtol=1e-4)


def test_beyond_the_floating_point_range():
    assert fit_and_score(MSP(), representation_of_logits([[1e300, -1e300], [5.0, 5.0]])).tolist() == [0, -np.log(2)]


@given(logits=logit_rows, shift=st.integers(-1000, 1000))
@quick
def test_shift_invariant(logits, shift):
    # Multiples of 2^-20, so that the shift is exact.
    logits = np.round(logits * 2**20) / 2**20
    moved = fit_and_score(MSP(), representation_of_logits(logits + shift))
    assert np.array_equal(moved, fit_and_score(MSP(), representation_of_logits(logits)))


@given(logits=logit_rows, seed=st.integers(0, 1000))
@quick
def test_order_of_classes_does_not_matter(logits, seed):
    order = np.random.default_rng(seed).permutation(logits.shape[1])
    moved = fit_and_score(MSP(), representation_of_logits(logits[:, order]))
    np.testing.assert_allclose(moved, fit_and_score(MSP(), representation_of_logits(logits)), rtol=1e-12)


def test_range():
    logits = np.random.default_rng(0).normal(size=(50, 6))
    probabilities = np.exp(fit_and_score(MSP(), representation_of_logits(logits)))
    assert ((probabilities > 1 / 6) & (probabilities < 1)).all()
    assert np.isclose(fit_and_score(MSP(), representation_of_logits(np.zeros((1, 6))))[0], np.log(1 / 6))
