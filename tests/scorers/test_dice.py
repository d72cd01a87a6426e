from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import DICE, Energy, Representation
from tests.scorers.helpers import fit_and_score, quick, random_arrays, random_representation


def dice_oracle(train, test, sparsity):
    """DICE by the paper, in float64: fit on `train` and score `test`, mappings with features, weight and bias."""
    W = np.asarray(train["weight"], dtype=np.float64)
    H = np.asarray(train["features"], dtype=np.float64)
    K, C = W.shape
    V = np.zeros((K, C))
    for h in H:
        for k in range(K):
            V[k] += W[k] * h / len(H)
    n_top = max(1, K * C - int(np.round(K * C * sparsity)))
    top = sorted(V.ravel())[K * C - n_top]
    scores = []
    for h in np.asarray(test["features"], dtype=np.float64):
        z = np.array([sum(W[k, j] * h[j] for j in range(C) if V[k, j] >= top) for k in range(K)]) + train["bias"]
        scores.append(max(z) + np.log(np.exp(z - max(z)).sum()))
    return np.array(scores)


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 20),
    K=st.integers(1, 6),
    C=st.integers(1, 9),
    sparsity=st.floats(0, 0.99),
)
@quick
def test_oracle(seed, n, K, C, sparsity):
    train, test = random_arrays(seed, n=n, C=C, K=K), random_arrays(seed + 1, n=5, C=C, K=K)
    test.update(weight=train["weight"], bias=train["bias"])
    scorer = DICE(sparsity).fit(Representation.from_numpy(**train))
    scores = scorer.score_samples(Representation.from_numpy(**test))
    np.testing.assert_allclose(scores, dice_oracle(train, test, sparsity), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("options", [{"rank": 2}, {"scale": 1e-30}, {"scale": 1e30}, {"n": 2500}])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_oracle_on_unusual_input(options, dtype):
    arrays = random_arrays(**options, dtype=dtype)
    expected = dice_oracle(arrays, arrays, 0.9)
    scores = fit_and_score(DICE(), Representation.from_numpy(**arrays))
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(("sparsity", "n_left"), [(0, 32), (0.5, 16), (0.9, 3), (0.999, 1)])
def test_number_of_remaining_weights(sparsity, n_left):
    representation = random_representation()
    scorer = DICE(sparsity).fit(representation)
    left = scorer.weight_ != 0
    assert scorer.weight_.dtype == np.float64
    assert left.sum() == n_left
    assert np.array_equal(scorer.weight_[left], representation.weight.numpy()[left])


def test_sparsity_0_keeps_all_weights():
    representation = random_representation()
    np.testing.assert_allclose(
        fit_and_score(DICE(0), representation), fit_and_score(Energy(), representation), rtol=1e-12
    )


def test_noise_in_features_without_contribution_does_not_matter():
    rng = np.random.default_rng(0)
    head = {"weight": rng.normal(size=(3, 10)), "bias": np.zeros(3)}
    train = rng.uniform(1, 2, size=(50, 10)) * np.r_[np.ones(5), np.zeros(5)]
    scorer = DICE(0.8).fit(Representation.from_numpy(features=train, **head))
    noisy = train.copy()
    noisy[:, 5:] = rng.normal(size=(50, 5)) * 100
    np.testing.assert_allclose(
        scorer.score_samples(Representation.from_numpy(features=noisy, **head)),
        scorer.score_samples(Representation.from_numpy(features=train, **head)),
        rtol=1e-12,
    )


@given(seed=st.integers(0, 10**6), sparsity=st.floats(0, 0.99), factor=st.floats(0.01, 100))
@quick
def test_scale_of_features_does_not_matter_if_logits_stay(seed, sparsity, factor):
    arrays = random_arrays(seed)
    scaled = {**arrays, "features": arrays["features"] * factor, "weight": arrays["weight"] / factor}
    np.testing.assert_allclose(
        fit_and_score(DICE(sparsity), Representation.from_numpy(**scaled)),
        fit_and_score(DICE(sparsity), Representation.from_numpy(**arrays)),
        rtol=1e-9,
        atol=1e-9,
    )


@given(seed=st.integers(0, 10**6))
@quick
def test_order_and_repetition_do_not_matter(seed):
    arrays = random_arrays(seed)
    rng = np.random.default_rng(seed)
    features, classes = rng.permutation(8), rng.permutation(4)
    shuffled = {
        "features": np.repeat(arrays["features"], 2, axis=0)[rng.permutation(60)][:, features],
        "weight": arrays["weight"][classes][:, features],
        "bias": arrays["bias"][classes],
    }
    fitted = DICE().fit(Representation.from_numpy(**arrays))
    again = DICE().fit(Representation.from_numpy(**shuffled))
    np.testing.assert_array_equal(again.weight_, fitted.weight_[classes][:, features])
    np.testing.assert_allclose(
        again.score_samples(Representation.from_numpy(**{**shuffled, "features": arrays["features"][:, features]})),
        fitted.score_samples(Representation.from_numpy(**arrays)),
        rtol=1e-12,
        atol=1e-12,
    )


def test_equal_contributions_remain():
    # All contributions are equal.
    arrays = {"features": np.ones((5, 4)), "weight": np.ones((2, 4)), "bias": np.zeros(2)}
    scorer = DICE().fit(Representation.from_numpy(**arrays))
    assert np.array_equal(scorer.weight_, arrays["weight"])


def test_features_of_zero():
    arrays = {**random_arrays(), "features": np.zeros((5, 8))}
    scores = fit_and_score(DICE(), Representation.from_numpy(**arrays))
    np.testing.assert_allclose(scores, np.log(np.exp(arrays["bias"]).sum()), rtol=1e-12)


def test_weight_is_not_changed():
    arrays = random_arrays()
    before = arrays["weight"].copy()
    fit_and_score(DICE(), Representation.from_numpy(**arrays))
    assert np.array_equal(arrays["weight"], before)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_broken_features_in_fit(broken):
    representation = random_representation()
    features = representation.features.clone()
    features[2, 1] = broken
    with pytest.raises(ValueError, match=r"representation\.features.* hold NaN.*expected finite numbers"):
        DICE().fit(replace(representation, features=features))


@pytest.mark.parametrize("sparsity", [1, -0.1, 90, "0.9", None])
def test_sparsity_is_checked(sparsity):
    with pytest.raises(ValueError, match="sparsity"):
        DICE(sparsity).fit(random_representation())
