import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import MaxNorm, Representation
from tests.scorers.helpers import fit_and_score, quick, random_arrays, random_representation


def max_norm_oracle(features):
    """Norms by the standard library, which neither overflow nor underflow."""
    return np.array([math.hypot(*map(float, h)) for h in features])


def score_features(features):
    features = np.asarray(features)
    return fit_and_score(
        MaxNorm(), Representation.from_numpy(features=features, weight=np.ones((2, features.shape[1])), bias=np.ones(2))
    )


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e30, 1e300])
@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("C", [1, 8])
def test_oracle(scale, rank, C):
    features = random_arrays(rank=rank, C=C)["features"] * scale
    np.testing.assert_allclose(score_features(features), max_norm_oracle(features), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_squares_of_narrow_types_do_not_overflow(dtype):
    features = np.array([[3.0, 4.0]]) * 1e4
    np.testing.assert_allclose(score_features(features.astype(dtype)), [5e4], rtol=1e-3)


@given(seed=st.integers(0, 10**6), factor=st.floats(-1e3, 1e3))
@quick
def test_scale(seed, factor):
    features = random_arrays(seed)["features"]
    np.testing.assert_allclose(score_features(factor * features), abs(factor) * score_features(features), rtol=1e-12)


@given(seed=st.integers(0, 10**6))
@quick
def test_rotation_invariant(seed):
    features = random_arrays(seed)["features"]
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))
    np.testing.assert_allclose(score_features(features @ rotation), score_features(features), rtol=1e-12)


def test_head_is_not_used():
    arrays = random_arrays()
    other = {**arrays, "weight": -3 * arrays["weight"], "bias": arrays["bias"] + 1}
    assert np.array_equal(
        fit_and_score(MaxNorm(), Representation.from_numpy(**other)),
        fit_and_score(MaxNorm(), Representation.from_numpy(**arrays)),
    )


def test_features_of_zero():
    assert score_features([[0.0, 0.0], [0.0, 2.0]]).tolist() == [0, 2]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_features_raise_an_error(value):
    representation = random_representation()
    scorer = MaxNorm().fit(representation)
    representation.features[3, 1] = value
    with pytest.raises(ValueError, match=r"representation gives 1 scores .* row 3"):
        scorer.score_samples(representation)


def test_one_class():
    assert (fit_and_score(MaxNorm(), random_representation(K=1)) > 0).all()


def test_output():
    assert MaxNorm.output == "logit"
