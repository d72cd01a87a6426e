"""Tail probabilities follow their definition, rise with the score, and do not depend on its scale."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skdfb.utils import TailProbability

quick = settings(max_examples=60, deadline=None, derandomize=True)


def oracle(learned, score):
    """log p of one score, by the definition, for scores that the learned ones or their tails decide."""
    learned = sorted(float(s) for s in learned)
    n = len(learned)
    size = min(n, max(10, round(0.1 * n)))
    t = learned[size - 1]
    if score < t:
        beta = sum(t - s for s in learned[:size]) / size
        return np.log(sum(s <= t for s in learned) / (n + 1)) - (t - score) / beta
    if score > learned[-1]:
        lowest = learned[n - size]
        beta = sum(s - lowest for s in learned[n - size :]) / size
        return np.log1p(-(1 / (n + 1)) * (1 + np.exp(-(score - learned[-1]) / beta)) / 2)
    below = max(s for s in learned if s <= score)
    above = min(s for s in learned if s >= score)
    log_p_below, log_p_above = (np.log(sum(s <= x for s in learned) / (n + 1)) for x in (below, above))
    share = 0.0 if above == below else (score - below) / (above - below)
    return log_p_below + share * (log_p_above - log_p_below)


@pytest.mark.parametrize("n", [2, 7, 30, 500])
@pytest.mark.parametrize("rounding", [None, 1])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_oracle(n, rounding, scale):
    rng = np.random.default_rng(n)
    learned = rng.gumbel(size=n)
    if rounding:
        learned = learned.round(rounding)  # ties
    new = np.concatenate([learned, rng.uniform(-30, 30, size=50)])
    found = TailProbability.fit(scale * learned).log_p(scale * new)
    np.testing.assert_allclose(found, [oracle(learned, s) for s in new], rtol=1e-9)


@given(
    learned=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60),
    new=st.lists(st.floats(-1e5, 1e5), min_size=2, max_size=30),
)
@quick
def test_never_falls_and_is_a_probability(learned, new):
    log_p = TailProbability.fit(learned).log_p(np.sort(new))
    assert (np.diff(log_p) >= 0).all()
    assert (log_p <= 0).all()
    assert np.isfinite(log_p).all()


def test_rises_strictly_far_beyond_the_learned_scores():
    learned = np.random.default_rng(0).normal(size=200)
    scores = np.concatenate([np.linspace(-1e6, -4, 100), np.linspace(-2, 2, 100), np.linspace(4, 8, 20)])
    assert (np.diff(TailProbability.fit(learned).log_p(scores)) > 0).all()


@given(seed=st.integers(0, 10**6), a=st.floats(0.01, 100), b=st.floats(-100, 100))
@quick
def test_scale_and_shift_of_the_scores_do_not_matter(seed, a, b):
    rng = np.random.default_rng(seed)
    learned, new = rng.normal(size=80), rng.normal(scale=3, size=30)
    moved = TailProbability.fit(a * learned + b).log_p(a * new + b)
    np.testing.assert_allclose(moved, TailProbability.fit(learned).log_p(new), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("level", [0.01, 0.05, 0.2, 0.5])
def test_new_images_are_rejected_at_the_level(level):
    rng = np.random.default_rng(1)
    rejected = [
        np.mean(TailProbability.fit(rng.normal(size=300)).log_p(rng.normal(size=300)) <= np.log(level))
        for _ in range(40)
    ]
    assert abs(np.mean(rejected) - level) < 0.25 * level


def test_equal_scores():
    tail = TailProbability.fit(np.full(50, 3.0))
    low, same, high = tail.log_p(np.array([2.0, 3.0, 4.0]))
    assert low < same < high <= 0
    assert same == np.log(50 / 51)


def test_p_of_the_highest_scores_is_limited():
    tail = TailProbability.fit(np.arange(99.0))
    np.testing.assert_allclose(np.exp(tail.log_p(np.array([98.0, 1e6]))), [0.99, 0.995])


@pytest.mark.parametrize("offset", [0.25, -1e4])
def test_rounding_of_tied_scores_changes_p_little(offset):
    """The lowest scores are tied; a score that differs only by float32 rounding has almost their p."""
    learned = np.concatenate([np.full(20, offset), offset + np.linspace(0.1, 1, 80)])
    tied, rounded = TailProbability.fit(learned).log_p(np.array([offset, np.nextafter(np.float32(offset), -np.inf)]))
    assert tied - 1 < rounded < tied


@pytest.mark.parametrize("scores", [[], [np.nan, 1.0], [np.inf], [[1.0]]])
def test_bad_scores_are_refused(scores):
    with pytest.raises(ValueError, match="scores"):
        TailProbability.fit(scores)
