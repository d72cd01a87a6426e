import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import Energy
from tests.scorers.helpers import fit_and_score, quick, random_representation, representation_of_logits


def energy_oracle(logits, temperature):
    scores = []
    for row in logits:
        largest = max(row)
        total = math.fsum(math.exp((float(z) - largest) / temperature) for z in row)
        scores.append(largest + temperature * math.log(total))
    return np.array(scores)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8, 1e30])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 1000.0])
@pytest.mark.parametrize("K", [2, 7])
@pytest.mark.parametrize("rank", [None, 2])
def test_oracle(scale, temperature, K, rank):
    representation = random_representation(scale=scale, K=K, rank=rank)
    scores = fit_and_score(Energy(temperature=temperature), representation)
    np.testing.assert_allclose(scores, energy_oracle(representation.logits.numpy(), temperature), rtol=1e-6, atol=1e-10)


@given(seed=st.integers(0, 10**6), c=st.floats(-100, 100), temperature=st.floats(0.1, 100))
@quick
def test_moves_with_the_logits(seed, c, temperature):
    logits = np.random.default_rng(seed).normal(size=(5, 3))
    scorer = Energy(temperature=temperature)
    moved = fit_and_score(scorer, representation_of_logits(logits + c))
    np.testing.assert_allclose(moved, fit_and_score(scorer, representation_of_logits(logits)) + c, rtol=0, atol=1e-11)


@given(seed=st.integers(0, 10**6), temperature=st.floats(0.1, 100))
@quick
def test_between_the_largest_logit_and_all_equal(seed, temperature):
    logits = np.random.default_rng(seed).normal(size=(5, 3))
    scores = fit_and_score(Energy(temperature=temperature), representation_of_logits(logits))
    largest = logits.max(axis=1)
    assert (scores >= largest).all()
    assert (scores <= largest + temperature * math.log(3) + 1e-12).all()


@pytest.mark.parametrize("temperature", [0, -1.0, float("inf"), float("nan"), "1", None])
def test_temperature_is_checked(temperature):
    with pytest.raises(ValueError, match="temperature"):
        Energy(temperature=temperature).fit(random_representation())
