import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import MaxCosine, Representation
from tests.scorers.helpers import fit_and_score, quick, random_arrays, random_representation


def max_cosine_oracle(features, weight):
    scores = []
    for h in features.astype(np.float64):
        cosines = []
        for w in weight.astype(np.float64):
            # Relative to the largest entry, so that products neither overflow nor underflow.
            a, b = h / max(abs(h).max(), 1e-320), w / max(abs(w).max(), 1e-320)
            length = math.hypot(*a) * math.hypot(*b)
            cosines.append(float(a @ b) / length if length else 0.0)
        scores.append(max(cosines))
    return np.array(scores)


def score(features, weight):
    features, weight = np.asarray(features), np.asarray(weight)
    # Logits that do not depend on features or weight.
    logits = np.zeros((len(features), len(weight)))
    return fit_and_score(
        MaxCosine(),
        Representation.from_numpy(features=features, weight=weight, bias=np.full(len(weight), 9.0), logits=logits),
    )


@given(seed=st.integers(0, 10**6), K=st.integers(1, 6), C=st.integers(1, 8))
@quick
def test_oracle(seed, K, C):
    arrays = random_arrays(seed, K=K, C=C)
    np.testing.assert_allclose(
        score(arrays["features"], arrays["weight"]),
        max_cosine_oracle(arrays["features"], arrays["weight"]),
        rtol=1e-9,
        atol=1e-14,
    )


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
@pytest.mark.parametrize("weight_scale", [1e-300, 1.0, 1e300])
@pytest.mark.parametrize("rank", [None, 2])
def test_oracle_at_any_scale(scale, weight_scale, rank):
    arrays = random_arrays(rank=rank)
    features, weight = arrays["features"] * scale, arrays["weight"] * weight_scale
    np.testing.assert_allclose(score(features, weight), max_cosine_oracle(features, weight), rtol=1e-6, atol=1e-12)


@given(seed=st.integers(0, 10**6), factor=st.floats(1e-3, 1e3))
@quick
def test_scales_of_features_and_of_each_row_of_the_head_do_not_matter(seed, factor):
    arrays = random_arrays(seed)
    factors = np.random.default_rng(seed).uniform(0.01, 100, size=(4, 1))
    scaled = score(factor * arrays["features"], factors * arrays["weight"])
    np.testing.assert_allclose(scaled, score(arrays["features"], arrays["weight"]), rtol=1e-9, atol=1e-14)


@given(seed=st.integers(0, 10**6))
@quick
def test_rotation_and_order_of_classes_do_not_matter(seed):
    arrays, rng = random_arrays(seed), np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    moved = score(arrays["features"] @ rotation, (arrays["weight"] @ rotation)[rng.permutation(4)])
    np.testing.assert_allclose(moved, score(arrays["features"], arrays["weight"]), rtol=1e-9, atol=1e-13)


def test_parallel_opposite_and_orthogonal():
    weight = [[2.0, 0.0]]
    np.testing.assert_allclose(score([[7.0, 0.0], [-7.0, 0.0], [0.0, 7.0], [1.0, 1.0]], weight), [1, -1, 0, 0.5**0.5])


def test_vectors_of_zeros_have_cosine_zero():
    assert score([[0.0, 0.0], [-1.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]).tolist() == [0, 0]
    assert score([[3.0, 4.0]], np.zeros((2, 2))).tolist() == [0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_features_raise_an_error(value):
    representation = random_representation()
    scorer = MaxCosine().fit(representation)
    representation.features[3, 1] = value
    with pytest.raises(ValueError, match=r"representation gives 1 scores .* row 3"):
        scorer.score_samples(representation)


def test_output():
    assert MaxCosine.output == "logit"
