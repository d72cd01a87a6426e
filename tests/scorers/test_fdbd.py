import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import FDBD, Representation
from tests.scorers.helpers import fit_and_score, quick, random_arrays, random_representation


def fdbd_oracle(train, test):
    """FDBD by the paper, in float64, without pairs of equal weights; mappings with features, weight and bias."""
    H, new = (np.asarray(arrays["features"], dtype=np.float64) for arrays in (train, test))
    W, b = (np.asarray(train[name], dtype=np.float64) for name in ("weight", "bias"))
    mean = sum(H) / len(H)
    scores = []
    for h in new:
        c = int(np.argmax([w @ h + bias for w, bias in zip(W, b, strict=True)]))
        distances = []
        for j in range(len(W)):
            if (W[j] != W[c]).any():
                normal = W[c] - W[j]
                distances.append(abs(normal @ h + b[c] - b[j]) / np.sqrt(sum(normal**2)))
        scores.append(sum(distances) / len(distances) / np.sqrt(sum((h - mean) ** 2)))
    return np.array(scores)


def with_logits(arrays):
    """The scores from logits in float64, so that small margins between them are exact."""
    logits = arrays["features"].astype(np.float64) @ arrays["weight"].T.astype(np.float64) + arrays["bias"]
    return Representation.from_numpy(**arrays, logits=logits)


@given(seed=st.integers(0, 10**6), n=st.integers(2, 30), K=st.integers(2, 10), C=st.integers(1, 8))
@quick
def test_oracle(seed, n, K, C):
    train, test = random_arrays(seed, n=n, K=K, C=C), random_arrays(seed + 1, n=5, C=C)
    test.update(weight=train["weight"], bias=train["bias"])
    scorer = FDBD().fit(Representation.from_numpy(**train))
    scores = scorer.score_samples(Representation.from_numpy(**test))
    np.testing.assert_allclose(scores, fdbd_oracle(train, test), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_oracle_at_any_scale(scale, dtype):
    train = random_arrays(scale=scale, dtype=dtype)
    np.testing.assert_allclose(fit_and_score(FDBD(), with_logits(train)), fdbd_oracle(train, train), rtol=1e-6)


@pytest.mark.parametrize("rank", [1, 2])
def test_oracle_on_features_of_low_rank(rank):
    train = random_arrays(rank=rank)
    np.testing.assert_allclose(fit_and_score(FDBD(), with_logits(train)), fdbd_oracle(train, train), rtol=1e-6)


def test_oracle_with_weights_that_differ_little():
    # Distances computed from products would lose differences of 1e-9 between weights of size 1.
    train = random_arrays(K=3)
    train["weight"] = 1 + 1e-9 * train["weight"]
    np.testing.assert_allclose(fit_and_score(FDBD(), with_logits(train)), fdbd_oracle(train, train), rtol=1e-5)


def test_oracle_beyond_one_batch():
    train = random_arrays(n=3000)
    np.testing.assert_allclose(fit_and_score(FDBD(), with_logits(train)), fdbd_oracle(train, train), rtol=1e-6)


def test_moving_to_the_boundary_gives_the_distance():
    # A feature moved by its distance times the normal has two equal logits.
    arrays = random_arrays(n=10, K=2)
    scorer = FDBD().fit(Representation.from_numpy(**arrays))
    scores = scorer.score_samples(Representation.from_numpy(**arrays))
    distances = scores * np.linalg.norm(arrays["features"] - arrays["features"].mean(axis=0), axis=1)
    normal = arrays["weight"][0] - arrays["weight"][1]
    normal /= np.linalg.norm(normal)
    first = (arrays["features"] @ arrays["weight"].T + arrays["bias"]).argmax(axis=1) == 0
    moved = arrays["features"] + np.where(first, -distances, distances)[:, None] * normal
    logits = moved @ arrays["weight"].T + arrays["bias"]
    np.testing.assert_allclose(logits[:, 0], logits[:, 1], atol=1e-12)


def test_fitted_attributes():
    arrays = random_arrays(K=3)
    scorer = FDBD().fit(Representation.from_numpy(**arrays))
    W = arrays["weight"]
    np.testing.assert_allclose(scorer.mean_, arrays["features"].mean(axis=0), rtol=1e-12)
    assert scorer.boundary_weights_.dtype == np.float64
    assert (np.diag(scorer.boundary_weights_) == 0).all()
    np.testing.assert_allclose(scorer.boundary_weights_[0, 2], 0.5 / np.linalg.norm(W[0] - W[2]), rtol=1e-12)


@given(seed=st.integers(0, 10**6), factor=st.floats(1e-3, 1e3), shift=st.floats(-10, 10))
@quick
def test_transformations_that_do_not_matter(seed, factor, shift):
    arrays = random_arrays(seed)
    scores = fit_and_score(FDBD(), Representation.from_numpy(**arrays))
    W, b = arrays["weight"], arrays["bias"]
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))
    for same in (
        {**arrays, "weight": factor * W, "bias": factor * b},
        {**arrays, "features": factor * arrays["features"], "bias": factor * b},
        {**arrays, "features": arrays["features"] @ rotation, "weight": W @ rotation},
        {**arrays, "features": arrays["features"] + shift, "bias": b - shift * W.sum(axis=1)},
        {**arrays, "weight": W + shift, "bias": b + shift},
        {**arrays, "weight": W[::-1], "bias": b[::-1]},
    ):
        np.testing.assert_allclose(fit_and_score(FDBD(), Representation.from_numpy(**same)), scores, rtol=1e-5)


def test_training_images_twice_are_the_same_as_once():
    arrays = random_arrays()
    twice = {**arrays, "features": np.repeat(arrays["features"], 2, axis=0)}
    once = fit_and_score(FDBD(), Representation.from_numpy(**arrays))
    np.testing.assert_allclose(fit_and_score(FDBD(), Representation.from_numpy(**twice)), np.repeat(once, 2), rtol=1e-9)


def test_classes_of_the_same_weight_have_no_boundary():
    # Class 3 has the weight of class 1 and is never predicted.
    arrays = random_arrays(K=3)
    more = {
        **arrays,
        "weight": np.vstack([arrays["weight"], arrays["weight"][1]]),
        "bias": np.append(arrays["bias"], arrays["bias"][1] - 100),
    }
    scorer = FDBD().fit(Representation.from_numpy(**more))
    assert scorer.boundary_weights_[1, 3] == scorer.boundary_weights_[3, 1] == 0
    scores = scorer.score_samples(Representation.from_numpy(**more))
    np.testing.assert_allclose(scores, fdbd_oracle(more, more), rtol=1e-9)
    # Class 1 has the same boundaries as before, each other class has one more.
    is_1 = (arrays["features"] @ arrays["weight"].T + arrays["bias"]).argmax(axis=1) == 1
    assert 0 < is_1.sum() < 30
    np.testing.assert_allclose(scores[is_1], fdbd_oracle(arrays, arrays)[is_1], rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_all_classes_of_the_same_weight(dtype):
    arrays = random_arrays(dtype=dtype)
    arrays["weight"][:] = arrays["weight"][0]
    with pytest.raises(
        ValueError, match=r"^representation\.weight has the same row for every class.*: expected the head"
    ):
        FDBD().fit(Representation.from_numpy(**arrays))


@pytest.mark.parametrize("n", [1, 3000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_images_at_the_mean_score_0(n, dtype):
    arrays = {**random_arrays(dtype=dtype), "features": np.full((n, 8), 0.1, dtype=dtype)}
    scorer = FDBD().fit(Representation.from_numpy(**arrays))
    assert (scorer.score_samples(Representation.from_numpy(**arrays)) == 0).all()
    others = {**random_arrays(1), "weight": arrays["weight"], "bias": arrays["bias"]}
    scores = scorer.score_samples(Representation.from_numpy(**others))
    np.testing.assert_allclose(scores, fdbd_oracle(arrays, others), rtol=1e-5)


def test_two_classes_needed():
    with pytest.raises(ValueError, match=r"1 class\(es\); FDBD needs at least 2"):
        FDBD().fit(random_representation(K=1))


def test_nan_logit_at_the_mean():
    representation = random_representation(n=1)
    scorer = FDBD().fit(representation)
    representation.logits[0, 1] = np.nan
    with pytest.raises(ValueError, match="1 scores that are NaN"):
        scorer.score_samples(representation)


def test_nan_in_fit():
    representation = random_representation()
    representation.features[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"representation\.features.* NaN"):
        FDBD().fit(representation)


def test_float32_and_float64_agree():
    scores = fit_and_score(FDBD(), random_representation(dtype=np.float32))
    np.testing.assert_allclose(scores, fit_and_score(FDBD(), random_representation()), rtol=1e-5)
