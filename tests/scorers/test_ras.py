from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import RAS, Energy, Representation
from tests.scorers.early_errors import early_error
from tests.scorers.helpers import fit_and_score, quick, random_arrays, random_representation


def energies(features, arrays):
    """Log-sum-exp of the logits of features (n, C), in float64."""
    W, b = (np.asarray(arrays[name], dtype=np.float64) for name in ("weight", "bias"))
    scores = []
    for h in features:
        z = np.array([sum(w * h) for w in W]) + b
        scores.append(max(z) + np.log(np.exp(z - max(z)).sum()))
    return np.array(scores)


def profile_oracle(train):
    H = np.asarray(train["features"], dtype=np.float64)
    return sum(np.array(sorted(h)) for h in H) / len(H)


def ras_oracle(train, test):
    """RAS as in the authors' code, in float64; equal features share the values of their ranks."""
    profile = profile_oracle(train)
    shifted = []
    for h in np.asarray(test["features"], dtype=np.float64):
        ranks = [[rank for rank, value in enumerate(sorted(h)) if value == own] for own in h]
        shifted.append(np.array([sum(profile[rank] for rank in own) / len(own) for own in ranks]))
    return energies(shifted, test)


def with_head_of(arrays, other):
    return {**arrays, "weight": other["weight"], "bias": other["bias"]}


def scores_after_fit(train, test):
    return RAS().fit(Representation.from_numpy(**train)).score_samples(Representation.from_numpy(**test))


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 20),
    K=st.integers(1, 6),
    C=st.integers(2, 12),
    kind=st.sampled_from(["signed", "rectified", "integers"]),
)
@quick
def test_oracle(seed, n, K, C, kind):
    train = random_arrays(seed, n=n, C=C, K=K)
    test = with_head_of(random_arrays(seed + 1, n=6, C=C), train)
    if kind == "rectified":
        train["features"], test["features"] = train["features"].clip(0), test["features"].clip(0)
    elif kind == "integers":
        test["features"] = test["features"].round()
    np.testing.assert_allclose(scores_after_fit(train, test), ras_oracle(train, test), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "options", [{"rank": 2}, {"scale": 1e-30}, {"scale": 1e30}, {"K": 1}, {"n": 1}, {"C": 2}, {"n": 5000}]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_oracle_on_unusual_input(options, dtype):
    arrays = random_arrays(**options, dtype=dtype)
    expected = ras_oracle(arrays, arrays)
    scores = fit_and_score(RAS(), Representation.from_numpy(**arrays))
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@given(seed=st.integers(0, 10**6))
@quick
def test_authors_formula(seed):
    """The authors' code, as array operations: without equal features there is one order, and so no choice."""
    train = random_arrays(seed)
    test = with_head_of(random_arrays(seed + 1), train)
    order = np.argsort(test["features"], axis=1)
    shifted = np.empty_like(test["features"])
    np.put_along_axis(shifted, order, np.sort(train["features"], axis=1).mean(axis=0)[None], axis=1)
    np.testing.assert_allclose(scores_after_fit(train, test), energies(shifted, test), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("h", [[0, 0, 0, 0], [0, 2, 0, 0], [1, 1, -1, -1], [3, 1, 1, 2], [-0.0, 0.0, 1, -1]])
def test_equal_features_get_the_mean_over_their_orders(h):
    arrays = random_arrays(C=4)
    profile = profile_oracle(arrays)
    shifted = []
    for order in permutations(range(4)):
        if all(h[a] <= h[b] for a, b in pairwise(order)):
            shifted.append(np.empty(4))
            shifted[-1][list(order)] = profile
    test = {**arrays, "features": np.array([h], dtype=float)}
    np.testing.assert_allclose(
        scores_after_fit(arrays, test), energies([np.mean(shifted, axis=0)], arrays), rtol=1e-9, atol=1e-9
    )


def test_fitted_attributes():
    arrays = random_arrays(dtype=np.float32)
    scorer = RAS().fit(Representation.from_numpy(**arrays))
    assert scorer.profile_.dtype == np.float64
    np.testing.assert_allclose(scorer.profile_, profile_oracle(arrays), rtol=1e-12)
    assert (np.diff(scorer.profile_) >= 0).all()


@pytest.mark.parametrize("value", [0.1, 1e30, -7.0])
def test_profile_of_constant_features_is_exact(value):
    arrays = {**random_arrays(), "features": np.full((3000, 8), value)}
    assert (RAS().fit(Representation.from_numpy(**arrays)).profile_ == value).all()


@given(seed=st.integers(0, 10**6))
@quick
def test_only_the_order_of_the_features_matters(seed):
    """Any increasing function of the features of an image leaves its score unchanged."""
    rng = np.random.default_rng(seed)
    train, test = random_arrays(seed), random_arrays(seed + 1)
    test = with_head_of({"features": test["features"].round(1)}, train)
    factor, shift = rng.uniform(0.1, 10, size=(2, 30, 1))
    scores = scores_after_fit(train, test)
    for features in (factor * test["features"], test["features"] + shift, np.exp(test["features"])):
        np.testing.assert_allclose(scores_after_fit(train, {**test, "features": features}), scores, rtol=1e-9)


@given(seed=st.integers(0, 10**6))
@quick
def test_permuted_features(seed):
    rng = np.random.default_rng(seed)
    arrays = {**random_arrays(seed), "features": rng.integers(0, 3, size=(30, 8)).astype(float)}
    order = rng.permutation(8)
    permuted = {**arrays, "features": arrays["features"][:, order], "weight": arrays["weight"][:, order]}
    np.testing.assert_allclose(scores_after_fit(permuted, permuted), scores_after_fit(arrays, arrays), rtol=1e-9)


@given(seed=st.integers(0, 10**6))
@quick
def test_images_with_the_values_of_the_profile_keep_their_energy(seed):
    """If all training images have the same values in different places, nothing is shifted."""
    rng = np.random.default_rng(seed)
    features = rng.permuted(np.tile(rng.normal(size=8).round(1), (30, 1)), axis=1)
    representation = Representation.from_numpy(**{**random_arrays(seed), "features": features})
    np.testing.assert_allclose(
        fit_and_score(RAS(), representation), fit_and_score(Energy(), representation), rtol=1e-9, atol=1e-9
    )


def test_duplicating_all_training_images_changes_nothing():
    arrays = random_arrays()
    twice = {**arrays, "features": np.repeat(arrays["features"], 2, axis=0)}
    np.testing.assert_allclose(scores_after_fit(twice, arrays), scores_after_fit(arrays, arrays), rtol=1e-9)


def test_features_of_zeros_get_the_mean_of_the_profile():
    train = random_arrays()
    zeros = {**train, "features": np.zeros((1, 8))}
    expected = energies([np.full(8, train["features"].mean())], train)
    np.testing.assert_allclose(scores_after_fit(train, zeros), expected, rtol=1e-9)


def test_one_feature_is_refused():
    representation = random_representation(C=1)
    message = early_error(RAS(), representation)
    assert "1 feature" in message
    assert "same for every image" in message
    with pytest.raises(ValueError, match="1 feature"):
        RAS().fit(representation)
    assert early_error(RAS(), random_representation(C=2, K=1, n=1)) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_without_a_rank_are_refused(value):
    representation = random_representation()
    scorer = RAS().fit(representation)
    # The logits stay finite, so only the features show that the image is broken.
    representation.features[2, 1] = value
    with pytest.raises(ValueError, match="1 scores that are NaN or infinite, first in row 2"):
        scorer.score_samples(representation)
    with pytest.raises(ValueError, match=r"representation\.features.* NaN"):
        RAS().fit(representation)


def test_nan_logits_are_refused():
    representation = random_representation()
    scorer = RAS().fit(representation)
    representation.logits[2, 1] = np.nan
    with pytest.raises(ValueError, match="1 scores that are NaN or infinite, first in row 2"):
        scorer.score_samples(representation)


@pytest.mark.parametrize("strided", [False, True])
def test_inputs_are_not_sorted_in_place(strided):
    features = random_arrays()["features"]
    features = np.asfortranarray(features) if strided else features
    before = features.copy()
    fit_and_score(RAS(), Representation.from_numpy(**{**random_arrays(), "features": features}))
    assert np.array_equal(features, before)


def test_bfloat16_features_with_many_equal_values():
    wide = random_representation(n=60, C=64)
    narrow = Representation(features=wide.features.bfloat16(), logits=wide.logits, weight=wide.weight, bias=wide.bias)
    same = Representation(features=narrow.features.double(), logits=wide.logits, weight=wide.weight, bias=wide.bias)
    assert len(torch.unique(narrow.features[0])) < 64
    np.testing.assert_allclose(fit_and_score(RAS(), narrow), fit_and_score(RAS(), same), rtol=1e-5)
