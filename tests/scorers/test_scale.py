import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import SCALE, Representation
from tests.scorers.helpers import fit_and_score, quick, random_arrays, random_representation


def scale_oracle(arrays, percentile):
    """SCALE as in the paper, in float64; features may also be negative, which the paper does not cover."""
    scores = []
    for h in np.asarray(arrays["features"], dtype=np.float64):
        n_top = max(1, len(h) - int(np.round(len(h) * percentile / 100)))
        threshold = sorted(h)[len(h) - n_top]
        top = math.fsum(value for value in h if value >= threshold)
        r = min(math.fsum(h) / top if top > 0 else len(h) / n_top, 300)
        W, b = (np.asarray(arrays[name], dtype=np.float64) for name in ("weight", "bias"))
        z = np.array([sum(w * value * math.exp(r) for w, value in zip(row, h, strict=True)) for row in W]) + b
        scores.append(max(z) + np.log(np.exp(z - max(z)).sum()))
    return np.array(scores)


def rectified_arrays(seed=0, **options):
    arrays = random_arrays(seed, **options)
    return {**arrays, "features": arrays["features"].clip(0)}


@given(seed=st.integers(0, 10**6), C=st.integers(1, 40), percentile=st.floats(0, 99.9), rectified=st.booleans())
@quick
def test_oracle(seed, C, percentile, rectified):
    arrays = (rectified_arrays if rectified else random_arrays)(seed, C=C, n=8)
    scores = fit_and_score(SCALE(percentile), Representation.from_numpy(**arrays))
    np.testing.assert_allclose(scores, scale_oracle(arrays, percentile), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("options", [{"rank": 2}, {"scale": 1e-30}, {"scale": 1e30}, {"C": 1}, {"K": 1}, {"n": 1}])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_oracle_on_odd_input(options, dtype):
    arrays = random_arrays(**options, dtype=dtype)
    expected = scale_oracle(arrays, 85)
    scores = fit_and_score(SCALE(), Representation.from_numpy(**arrays))
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@given(seed=st.integers(0, 10**6))
@quick
def test_order_of_features_does_not_matter_with_ties(seed):
    rng = np.random.default_rng(seed)
    arrays = {**random_arrays(seed), "features": rng.integers(0, 3, size=(30, 8)).astype(float)}
    order = rng.permutation(8)
    shuffled = {**arrays, "features": arrays["features"][:, order], "weight": arrays["weight"][:, order]}
    np.testing.assert_allclose(
        fit_and_score(SCALE(50), Representation.from_numpy(**shuffled)),
        fit_and_score(SCALE(50), Representation.from_numpy(**arrays)),
        rtol=1e-9,
        atol=1e-9,
    )


@given(seed=st.integers(0, 10**6), factor=st.floats(0.01, 100))
@quick
def test_scale_of_features_with_equal_logits_does_not_matter(seed, factor):
    arrays = rectified_arrays(seed)
    scaled = {**arrays, "features": arrays["features"] * factor, "weight": arrays["weight"] / factor}
    np.testing.assert_allclose(
        fit_and_score(SCALE(), Representation.from_numpy(**scaled)),
        fit_and_score(SCALE(), Representation.from_numpy(**arrays)),
        rtol=1e-9,
        atol=1e-9,
    )


def test_spread_features_are_scaled_more_than_concentrated_ones():
    # All images have the same sum of features, and the logits depend only on this sum.
    features = np.array([[8.0, 0, 0, 0], [5.0, 3, 0, 0], [5.0, 1, 1, 1], [2.0, 2, 2, 2.0]])
    representation = Representation.from_numpy(features=features, weight=np.ones((1, 4)), bias=np.zeros(1))
    scores = fit_and_score(SCALE(75), representation)
    np.testing.assert_allclose(scores, 8 * np.exp([1, 8 / 5, 8 / 5, 1]), rtol=1e-12)


def test_percentile_0_keeps_all_features():
    arrays = rectified_arrays()
    arrays["features"] += 0.1
    larger = Representation.from_numpy(**{**arrays, "features": arrays["features"] * math.e})
    z = larger.logits.numpy()
    scores = fit_and_score(SCALE(0), Representation.from_numpy(**arrays))
    np.testing.assert_allclose(scores, np.log(np.exp(z).sum(axis=1)), rtol=1e-12)


@pytest.mark.parametrize("percentile", [85, 99.99])
def test_sums_of_any_sign_give_finite_scores(percentile):
    rng = np.random.default_rng(0)
    C = 4000
    features = np.stack([
        -rng.uniform(1, 2, size=C),  # a negative denominator
        np.r_[np.zeros(C // 2), -np.ones(C // 2)],  # no denominator
        np.r_[1e-300, -np.ones(C - 1)],
        np.zeros(C),
        rng.uniform(1, 1.001, size=C),  # at 99.99 the ratio is 4000
    ])  # fmt: skip
    arrays = {"features": features, "weight": rng.normal(size=(3, C)), "bias": np.zeros(3)}
    scores = fit_and_score(SCALE(percentile), Representation.from_numpy(**arrays))
    np.testing.assert_allclose(scores, scale_oracle(arrays, percentile), rtol=1e-6)


@pytest.mark.parametrize("percentile", [100, -1, "85", None])
def test_percentile_is_checked(percentile):
    with pytest.raises(ValueError, match="percentile"):
        SCALE(percentile).fit(random_representation())
