import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import NCI, Representation
from tests.scorers.helpers import fit_and_score, quick, random_arrays, random_representation


def nci_oracle(train, test, filter_strength):
    """NCI as in the paper, in float64; the arguments are mappings with features, weight and bias."""
    H, new = (np.asarray(arrays["features"], dtype=np.float64) for arrays in (train, test))
    W, b = (np.asarray(train[name], dtype=np.float64) for name in ("weight", "bias"))
    mean = sum(H) / len(H)
    scores = []
    for h in new:
        w = W[int(np.argmax([w @ h + bias for w, bias in zip(W, b, strict=True)]))]
        centred = h - mean
        cosine = sum(w * centred) / np.sqrt(sum(w**2)) / np.sqrt(sum(centred**2))
        scores.append(cosine * np.sqrt(sum(w**2)) + filter_strength * sum(abs(h)))
    return np.array(scores)


def assert_scores_close(scores, expected):
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 30),
    K=st.integers(1, 10),
    C=st.integers(1, 8),
    filter_strength=st.sampled_from([0.0, 1e-4, 0.1, 10]),
)
@quick
def test_oracle(seed, n, K, C, filter_strength):
    train, test = random_arrays(seed, n=n, K=K, C=C), random_arrays(seed + 1, n=5, C=C)
    test.update(weight=train["weight"], bias=train["bias"])
    scorer = NCI(filter_strength=filter_strength).fit(Representation.from_numpy(**train))
    scores = scorer.score_samples(Representation.from_numpy(**test))
    assert_scores_close(scores, nci_oracle(train, test, filter_strength))


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("filter_strength", [0, 1e-4])
def test_oracle_at_any_scale(scale, dtype, filter_strength):
    train = random_arrays(scale=scale, dtype=dtype)
    scores = fit_and_score(NCI(filter_strength), Representation.from_numpy(**train))
    assert_scores_close(scores, nci_oracle(train, train, filter_strength))


def test_oracle_on_features_of_low_rank():
    train = random_arrays(rank=2)
    assert_scores_close(fit_and_score(NCI(), Representation.from_numpy(**train)), nci_oracle(train, train, 1e-4))


def test_oracle_beyond_one_batch():
    train = random_arrays(n=3000)
    assert_scores_close(fit_and_score(NCI(), Representation.from_numpy(**train)), nci_oracle(train, train, 1e-4))


def test_fitted_attributes():
    arrays = random_arrays()
    scorer = NCI().fit(Representation.from_numpy(**arrays))
    assert scorer.mean_.dtype == np.float64
    np.testing.assert_allclose(scorer.mean_, arrays["features"].mean(axis=0), rtol=1e-12)


@given(seed=st.integers(0, 10**6), factor=st.floats(1e-3, 1e3), shift=st.floats(-10, 10))
@quick
def test_first_term_is_a_cosine_times_the_weight(seed, factor, shift):
    arrays = random_arrays(seed)
    scores = fit_and_score(NCI(0), Representation.from_numpy(**arrays))
    norms = np.linalg.norm(arrays["weight"], axis=1)
    assert (np.abs(scores) <= norms.max() + 1e-12).all()
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))
    W, b = arrays["weight"], arrays["bias"]
    for same in (
        {**arrays, "features": factor * arrays["features"], "bias": factor * b},
        {**arrays, "features": arrays["features"] @ rotation, "weight": W @ rotation},
        {**arrays, "features": arrays["features"] + shift, "bias": b - shift * W.sum(axis=1)},
        {**arrays, "bias": b + shift},
    ):
        np.testing.assert_allclose(fit_and_score(NCI(0), Representation.from_numpy(**same)), scores, rtol=1e-6)
    heavier = {**arrays, "weight": factor * W, "bias": factor * b}
    np.testing.assert_allclose(
        fit_and_score(NCI(0), Representation.from_numpy(**heavier)), factor * scores, rtol=1e-6, atol=1e-9 * factor
    )


@given(seed=st.integers(0, 10**6), filter_strength=st.floats(0, 10))
@quick
def test_filter_adds_the_sum_of_absolute_features(seed, filter_strength):
    arrays = random_arrays(seed)
    representation = Representation.from_numpy(**arrays)
    added = fit_and_score(NCI(filter_strength), representation) - fit_and_score(NCI(0), representation)
    np.testing.assert_allclose(added, filter_strength * np.abs(arrays["features"]).sum(axis=1), atol=1e-12)


def test_duplicating_all_training_images_changes_nothing():
    arrays = random_arrays()
    twice = {**arrays, "features": np.repeat(arrays["features"], 2, axis=0)}
    once = fit_and_score(NCI(), Representation.from_numpy(**arrays))
    np.testing.assert_allclose(fit_and_score(NCI(), Representation.from_numpy(**twice)), np.repeat(once, 2), rtol=1e-9)


def test_turning_away_from_the_weight_lowers_the_score():
    head = {"weight": np.array([[1.0, 0], [-1, 0]]), "bias": np.zeros(2)}
    scorer = NCI().fit(Representation.from_numpy(features=np.array([[1.0, 0], [-1, 0]]), **head))
    angles = np.linspace(0, 1.5, 6)
    new = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert (np.diff(scorer.score_samples(Representation.from_numpy(features=new, **head))) < 0).all()


@pytest.mark.parametrize("n", [1, 3000])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_first_term_is_zero_for_images_at_the_mean(n, dtype):
    arrays = {**random_arrays(dtype=dtype), "features": np.full((n, 8), -0.1, dtype=dtype)}
    scores = fit_and_score(NCI(filter_strength=10), Representation.from_numpy(**arrays))
    np.testing.assert_allclose(scores, 80 * float(-arrays["features"][0, 0]), rtol=1e-12)


def test_nan_logits_are_refused():
    representation = random_representation()
    scorer = NCI().fit(representation)
    representation.logits[2, 1] = np.nan
    with pytest.raises(ValueError, match="1 scores that are NaN or infinite, first in row 2"):
        scorer.score_samples(representation)


def test_nan_in_fit():
    representation = random_representation()
    representation.features[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"representation\.features.* NaN"):
        NCI().fit(representation)


def test_float32_and_float64_agree():
    scores = fit_and_score(NCI(), random_representation(dtype=np.float32))
    np.testing.assert_allclose(scores, fit_and_score(NCI(), random_representation()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("filter_strength", [-1e-4, float("inf"), float("nan"), "1", None])
def test_filter_strength_is_checked(filter_strength):
    with pytest.raises(ValueError, match="filter_strength"):
        NCI(filter_strength=filter_strength).fit(random_representation())
