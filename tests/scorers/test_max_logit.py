import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import MaxLogit
from tests.scorers.helpers import fit_and_score, quick, random_representation, representation_of_logits


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("K", [1, 2, 7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_oracle(scale, K, dtype):
    representation = random_representation(scale=scale, K=K, dtype=dtype)
    oracle = [max(float(z) for z in row) for row in representation.logits.numpy()]
    assert fit_and_score(MaxLogit(), representation).tolist() == oracle


@given(seed=st.integers(0, 10**6), c=st.floats(-100, 100))
@quick
def test_moves_with_the_logits(seed, c):
    logits = np.random.default_rng(seed).normal(size=(5, 3))
    moved = fit_and_score(MaxLogit(), representation_of_logits(logits + c))
    np.testing.assert_allclose(
        moved, fit_and_score(MaxLogit(), representation_of_logits(logits)) + c, rtol=1e-12, atol=1e-12
    )
