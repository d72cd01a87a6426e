from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import Energy, ReAct, Representation
from tests.scorers.helpers import fit_and_score, quick, random_arrays, random_representation


def react_oracle(train, test, percentile):
    """ReAct as in the paper, in float64: fit on `train`, score `test`; mappings with features, weight and bias."""
    every = sorted(float(value) for h in train["features"] for value in h)
    position = percentile / 100 * (len(every) - 1)
    rank = int(position)
    following = every[min(rank + 1, len(every) - 1)]
    c = every[rank] + (position - rank) * (following - every[rank])
    scores = []
    for h in np.asarray(test["features"], dtype=np.float64):
        z = [sum(w * min(value, c) for w, value in zip(row, h, strict=True)) for row in train["weight"].astype(float)]
        z = np.array(z) + train["bias"]
        scores.append(max(z) + np.log(np.exp(z - max(z)).sum()))
    return np.array(scores)


def of(features):
    C = features.shape[1]
    return Representation.from_numpy(features=features, weight=np.eye(C), bias=np.zeros(C))


def with_new_features(arrays, seed, n=5):
    return {**arrays, "features": random_arrays(seed, n=n, scale=3.0)["features"]}


@given(seed=st.integers(0, 10**6), n=st.integers(1, 40), percentile=st.floats(1, 100))
@quick
def test_oracle(seed, n, percentile):
    train = random_arrays(seed, n=n)
    test = with_new_features(train, seed + 1)
    scores = ReAct(percentile).fit(Representation.from_numpy(**train)).score_samples(Representation.from_numpy(**test))
    np.testing.assert_allclose(scores, react_oracle(train, test, percentile), rtol=1e-6)


@pytest.mark.parametrize("options", [{"rank": 2}, {"scale": 1e-30}, {"scale": 1e30}, {"C": 1}, {"K": 1}, {"n": 1}])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_oracle_on_odd_input(options, dtype):
    arrays = random_arrays(**options, dtype=dtype)
    scores = fit_and_score(ReAct(), Representation.from_numpy(**arrays))
    np.testing.assert_allclose(scores, react_oracle(arrays, arrays, 90), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("percentile", [1e-3, 10, 50, 90, 99.9, 100])
def test_threshold_equals_numpy_percentile(dtype, percentile):
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(2500, 3)) * 10.0 ** rng.integers(-4, 5, size=(2500, 3))
    rectified = rng.normal(size=(70, 4)).clip(0)
    few_values = rng.integers(-2, 3, size=(40, 5)).astype(float)
    few_values[few_values == 0] *= rng.choice([-1.0, 1.0], size=(few_values == 0).sum())
    for features in (spread.clip(-6e4, 6e4), rectified, -rectified, few_values, np.full((3, 2), -7.0)):
        stored = features.astype(dtype)
        assert ReAct(percentile).fit(of(stored)).threshold_ == np.percentile(stored.astype(np.float64), percentile)


def test_threshold_equals_numpy_percentile_to_the_last_bit():
    representation = random_representation()
    features = representation.features.numpy()
    percentiles = np.random.default_rng(0).uniform(0, 100, size=300)
    thresholds = [ReAct(percentile).fit(representation).threshold_ for percentile in percentiles]
    assert thresholds == [np.percentile(features, percentile) for percentile in percentiles]


def test_threshold_of_extreme_numbers():
    tiny = np.finfo(np.float64).smallest_subnormal
    features = np.array([[-1e300, -tiny, 0.0], [tiny, 1e-300, 1e300]])
    for percentile, expected in ((20, -tiny), (60, tiny), (80, 1e-300), (100, 1e300)):
        assert ReAct(percentile).fit(of(features)).threshold_ == expected


def test_threshold_of_bfloat16():
    features = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    representation = Representation(
        features=features, logits=torch.zeros(60, 2), weight=torch.zeros(2, 5), bias=torch.zeros(2)
    )
    assert ReAct(35).fit(representation).threshold_ == np.percentile(features.double().numpy(), 35)


def test_batches_of_any_size(tmp_path):
    features = np.memmap(tmp_path / "features", dtype=np.float32, mode="w+", shape=(300, 7))
    features[:] = np.random.default_rng(0).normal(size=features.shape)
    whole = of(np.memmap(tmp_path / "features", dtype=np.float32, mode="r", shape=(300, 7)))

    class Streamed(Representation):
        def batches(self, batch_size=None):
            yield from (whole[:1], whole[1:250], whole[250:])

    streamed = Streamed(**{name: getattr(whole, name) for name in ("features", "logits", "weight", "bias")})
    assert ReAct().fit(streamed).threshold_ == np.percentile(features.astype(np.float64), 90)


@given(seed=st.integers(0, 10**6), percentile=st.floats(1, 100), factor=st.floats(0.01, 100))
@quick
def test_scale_of_features_with_equal_logits_does_not_matter(seed, percentile, factor):
    arrays = random_arrays(seed)
    scaled = {**arrays, "features": arrays["features"] * factor, "weight": arrays["weight"] / factor}
    np.testing.assert_allclose(
        fit_and_score(ReAct(percentile), Representation.from_numpy(**scaled)),
        fit_and_score(ReAct(percentile), Representation.from_numpy(**arrays)),
        rtol=1e-9,
        atol=1e-9,
    )


@given(seed=st.integers(0, 10**6))
@quick
def test_order_of_features_does_not_matter(seed):
    arrays = random_arrays(seed)
    order = np.random.default_rng(seed).permutation(8)
    shuffled = {**arrays, "features": arrays["features"][:, order], "weight": arrays["weight"][:, order]}
    np.testing.assert_allclose(
        fit_and_score(ReAct(), Representation.from_numpy(**shuffled)),
        fit_and_score(ReAct(), Representation.from_numpy(**arrays)),
        atol=1e-12,
    )


def test_nothing_is_clipped_at_100():
    representation = random_representation()
    np.testing.assert_allclose(
        fit_and_score(ReAct(100), representation), fit_and_score(Energy(), representation), rtol=1e-12
    )


def test_size_of_features_above_the_threshold_does_not_matter():
    arrays = random_arrays()
    scorer = ReAct().fit(Representation.from_numpy(**arrays))
    large = np.full((2, 8), scorer.threshold_)
    large[1, 2:] *= 1e6
    scores = scorer.score_samples(Representation.from_numpy(**{**arrays, "features": large}))
    assert scores[0] == scores[1]
    assert isinstance(scorer.threshold_, float)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_broken_features_in_fit(broken):
    representation = random_representation()
    features = representation.features.clone()
    features[2, 1] = broken
    with pytest.raises(ValueError, match=r"representation\.features hold NaN"):
        ReAct().fit(replace(representation, features=features))


@pytest.mark.parametrize("percentile", [0, -1, 100.5, "90", None])
def test_percentile_is_checked(percentile):
    with pytest.raises(ValueError, match="percentile"):
        ReAct(percentile).fit(random_representation())
