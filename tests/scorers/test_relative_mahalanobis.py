import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import Mahalanobis, RelativeMahalanobis, Representation
from tests.scorers.early_errors import early_error, late_error, message_of
from tests.scorers.helpers import quick, random_arrays, random_representation


def relative_mahalanobis_oracle(features, y, new, shrinkage=0.0):
    """Relative Mahalanobis scores as in the paper, in float64, with the shrinkage of the docstring."""
    H, new = np.asarray(features, dtype=np.float64), np.asarray(new, dtype=np.float64)
    n, C = H.shape
    means = {k: sum(h for h, label in zip(H, y, strict=True) if label == k) / list(y).count(k) for k in set(y)}
    mean_0 = sum(H) / n
    within, total = np.zeros((C, C)), np.zeros((C, C))
    for h, label in zip(H, y, strict=True):
        within += np.outer(h - means[label], h - means[label]) / n
        total += np.outer(h - mean_0, h - mean_0) / n
    precision, precision_0 = (
        np.linalg.pinv((1 - shrinkage) * S + shrinkage * np.trace(S) / C * np.eye(C), rcond=1e-11, hermitian=True)
        for S in (within, total)
    )
    scores = []
    for h in new:
        nearest = min((h - mean) @ precision @ (h - mean) for mean in means.values())
        scores.append(-(nearest - (h - mean_0) @ precision_0 @ (h - mean_0)))
    return np.array(scores)


def labelled(seed=0, *, n=60, K=4, spread=3.0, scale=1.0, dtype=np.float64, **options):
    """Arrays of random images, and their classes, whose means differ."""
    arrays = random_arrays(seed, n=n, K=K, **options)
    y = np.random.default_rng(seed).permutation(np.arange(n) % K).tolist()
    centres = np.random.default_rng(seed + 1).normal(size=(K, arrays["features"].shape[1]))
    arrays["features"] = scale * (arrays["features"] + spread * centres[y])
    return {name: array.astype(dtype) for name, array in arrays.items()}, y


def scores_of(scorer, arrays, y, features=None):
    """Fit on the arrays and score the given features, or those of the arrays."""
    scorer.fit(Representation.from_numpy(**arrays), y)
    new = arrays if features is None else {**arrays, "features": features}
    return scorer.score_samples(Representation.from_numpy(**new))


def assert_scores_close(scores, expected):
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@given(
    seed=st.integers(0, 10**6), n=st.integers(20, 50), K=st.integers(2, 8), shrinkage=st.sampled_from([0.0, 0.1, 1.0])
)
@quick
def test_oracle(seed, n, K, shrinkage):
    arrays, y = labelled(seed, n=n, K=K)
    new = 5 * np.random.default_rng(seed).normal(size=(6, 8))
    scores = scores_of(RelativeMahalanobis(shrinkage), arrays, y, new)
    assert_scores_close(scores, relative_mahalanobis_oracle(arrays["features"], y, new, shrinkage))


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_oracle_at_any_scale(scale, dtype, shrinkage):
    arrays, y = labelled(scale=scale, dtype=dtype)
    scores = scores_of(RelativeMahalanobis(shrinkage), arrays, y)
    assert_scores_close(scores, relative_mahalanobis_oracle(arrays["features"], y, arrays["features"], shrinkage))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_oracle_on_features_of_low_rank(dtype, offset):
    # The rank is 5 within classes and 5 overall, since the class means are in the same space. Rounding to float32 adds
    # noise in the other directions, and a large mean makes this noise larger.
    exact, y = labelled(n=200, C=16, rank=5, spread=0.0)
    exact["features"] += offset
    rounded = {name: array.astype(dtype) for name, array in exact.items()}
    scorer = RelativeMahalanobis().fit(Representation.from_numpy(**rounded), y)
    assert scorer.whitening_.shape == scorer.overall_whitening_.shape == (16, 5)
    scores = scorer.score_samples(Representation.from_numpy(**rounded))
    expected = relative_mahalanobis_oracle(exact["features"], y, exact["features"])
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6 if dtype == np.float64 else 1e-2)


@pytest.mark.parametrize("shrinkage", [0.0, 0.1])
def test_oracle_with_fewer_images_than_features(shrinkage):
    arrays, y = labelled(n=12, C=40)
    new = random_arrays(1, n=5, C=40)["features"]
    scorer = RelativeMahalanobis(shrinkage).fit(Representation.from_numpy(**arrays), y)
    assert (scorer.whitening_.shape[1], scorer.overall_whitening_.shape[1]) == ((40, 40) if shrinkage else (8, 11))
    scores = scorer.score_samples(Representation.from_numpy(**{**arrays, "features": new}))
    assert_scores_close(scores, relative_mahalanobis_oracle(arrays["features"], y, new, shrinkage))


def test_oracle_beyond_one_batch():
    arrays, y = labelled(n=9000, C=3)
    scores = scores_of(RelativeMahalanobis(), arrays, y)
    assert_scores_close(scores, relative_mahalanobis_oracle(arrays["features"], y, arrays["features"]))


def test_fitted_attributes():
    arrays, y = labelled()
    scorer = RelativeMahalanobis().fit(Representation.from_numpy(**arrays), y)
    centred = arrays["features"] - arrays["features"].mean(axis=0)
    np.testing.assert_allclose(scorer.mean_, arrays["features"].mean(axis=0), rtol=1e-12)
    assert scorer.whitened_means_.shape == (4, 8)
    overall = centred @ scorer.overall_whitening_
    np.testing.assert_allclose(overall.T @ overall / 60, np.eye(8), atol=1e-10)
    within = centred @ scorer.whitening_ - scorer.whitened_means_[y]
    np.testing.assert_allclose(within.T @ within / 60, np.eye(8), atol=1e-10)


@given(seed=st.integers(0, 10**6))
@quick
def test_affine_maps_change_nothing(seed):
    arrays, y = labelled(seed)
    rng = np.random.default_rng(seed)
    matrix, shift = rng.normal(size=(8, 8)) + 3 * np.eye(8), 100 * rng.normal(size=8)
    mapped = {**arrays, "features": arrays["features"] @ matrix + shift}
    expected = scores_of(RelativeMahalanobis(), arrays, y)
    np.testing.assert_allclose(scores_of(RelativeMahalanobis(), mapped, y), expected, rtol=1e-5, atol=1e-5)


@given(seed=st.integers(0, 10**6), shrinkage=st.floats(0, 1))
@quick
def test_duplicating_all_training_images_changes_nothing(seed, shrinkage):
    arrays, y = labelled(seed, n=24)
    twice = {**arrays, "features": np.repeat(arrays["features"], 2, axis=0)}
    once = scores_of(RelativeMahalanobis(shrinkage), arrays, y)
    again = scores_of(RelativeMahalanobis(shrinkage), twice, np.repeat(y, 2), arrays["features"])
    np.testing.assert_allclose(again, once, rtol=1e-7, atol=1e-7)


def test_directions_in_which_classes_are_alike_cancel_out():
    # They cancel exactly: class 1 is class 0 moved along the first feature, so Σ and Σ_0 agree in other directions.
    rng = np.random.default_rng(0)
    half = rng.normal(size=(200, 3))
    half -= half.mean(axis=0)
    half = half @ np.linalg.inv(np.linalg.cholesky(half.T @ half / 200)).T
    arrays = {**random_arrays(C=3, K=2), "features": np.vstack([half, half + np.array([5, 0, 0])])}
    y = np.repeat([0, 1], 200)
    new = np.array([[0.0, 0, 0], [0.0, 30, -40], [2.5, 0, 0], [2.5, 9, 9]])
    scores = scores_of(RelativeMahalanobis(), arrays, y, new)
    np.testing.assert_allclose(scores[[0, 2]], scores[[1, 3]], atol=1e-9)
    assert scores[0] > scores[2] + 1


def test_class_without_images_is_left_out():
    arrays, y = labelled(K=6)
    kept = [label not in (0, 4) for label in y]
    some, labels = {**arrays, "features": arrays["features"][kept]}, [label for label in y if label not in (0, 4)]
    scorer = RelativeMahalanobis().fit(Representation.from_numpy(**some), labels)
    assert scorer.whitened_means_.shape == (4, 8)
    new = np.vstack([arrays["features"], np.zeros((1, 8)), some["features"].mean(axis=0)])
    scores = scorer.score_samples(Representation.from_numpy(**{**arrays, "features": new}))
    assert_scores_close(scores, relative_mahalanobis_oracle(some["features"], labels, new))


@given(seed=st.integers(0, 10**6), shrinkage=st.sampled_from([0.0, 0.1, "auto"]))
@quick
def test_oracle_of_normalised_features(seed, shrinkage):
    arrays, y = labelled(seed)
    new = np.random.default_rng(seed).normal(size=(6, 8))
    scorer = RelativeMahalanobis(shrinkage, normalize=True)
    scores = scores_of(scorer, arrays, y, new)
    features, new = (H / np.sqrt((H**2).sum(axis=1, keepdims=True)) for H in (arrays["features"], new))
    expected = relative_mahalanobis_oracle(features, y, new, scorer.shrinkage_)
    assert_scores_close(scores, expected)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("n", [24, 200])
def test_automatic_shrinkage_is_that_of_the_classes(n, normalize):
    arrays, y = labelled(n=n, C=40)
    representation = Representation.from_numpy(**arrays)
    scorer = RelativeMahalanobis("auto", normalize=normalize).fit(representation, y)
    within = Mahalanobis("auto", normalize=normalize).fit(representation, y)
    overall = Mahalanobis(within.shrinkage_, normalize=normalize, use_classes=False).fit(representation)
    assert scorer.shrinkage_ == within.shrinkage_
    # The score is the difference of the two.
    difference = within.score_samples(representation) - overall.score_samples(representation)
    np.testing.assert_allclose(scorer.score_samples(representation), difference, rtol=1e-7, atol=1e-7)


def test_far_images_score_lower_with_automatic_shrinkage():
    # As many features as images: the shrinkages that fit the two covariances best differ much.
    arrays, y = labelled(n=120, C=100)
    far = {**arrays, "features": np.random.default_rng(5).normal(size=(50, 100)) * 6}
    scorer = RelativeMahalanobis("auto").fit(Representation.from_numpy(**arrays), y)
    unknown = scorer.score_samples(Representation.from_numpy(**far))
    assert np.median(unknown) < np.quantile(scorer.score_samples(Representation.from_numpy(**arrays)), 0.05)


def test_zero_features_have_a_finite_score():
    arrays, y = labelled()
    arrays["features"][[3, 17]] = 0
    scorer = RelativeMahalanobis(normalize=True)
    scores = scores_of(scorer, arrays, y)
    features = arrays["features"] / np.maximum(np.linalg.norm(arrays["features"], axis=1, keepdims=True), 1e-300)
    assert_scores_close(scores, relative_mahalanobis_oracle(features, y, features))
    scorer.set_params(normalize=False)
    assert np.array_equal(scorer.score_samples(Representation.from_numpy(**arrays)), scores)


def test_one_class_would_score_0():
    with pytest.raises(ValueError, match=r"1 class\(es\); RelativeMahalanobis needs at least 2"):
        RelativeMahalanobis().fit(random_representation(K=1))
    with pytest.raises(ValueError, match=r"^y holds class 2 only: expected images of at least two classes"):
        RelativeMahalanobis().fit(random_representation(), np.full(30, 2))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("C", [1, 3])
@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("shrinkage", [0.0, 1.0])
def test_sizes_are_checked_early(monkeypatch, shrinkage, K, C, n):
    scorer, representation = RelativeMahalanobis(shrinkage), random_representation(n=n, C=C, K=K)
    spreads = list(itertools.product(range(K), repeat=n))
    errors = [late_error(monkeypatch, scorer, representation, np.array(y)) for y in spreads]
    # Refused early exactly if `fit` fails for every spread of the images over the classes.
    assert (early_error(scorer, representation) is not None) == all(errors) == (n < 3)
    if n < 3:
        assert early_error(scorer, representation) == message_of(scorer.fit, representation, np.array(spreads[0]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_constant_features_do_not_count(dtype):
    arrays, y = labelled(n=5000, C=4, dtype=dtype)
    constants = np.full((5000, 2), [0.1, 1000.1], dtype=dtype)
    more = random_arrays(n=1, C=6, dtype=dtype) | {"features": np.hstack([constants, arrays["features"]])}
    scorer = RelativeMahalanobis().fit(Representation.from_numpy(**more), y)
    assert scorer.whitening_.shape == scorer.overall_whitening_.shape == (6, 4)
    scores = scorer.score_samples(Representation.from_numpy(**more))
    np.testing.assert_allclose(scores, scores_of(RelativeMahalanobis(), arrays, y), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n", [4, 3000])
def test_no_variation_within_classes(n):
    y = np.arange(n) % 4
    arrays = random_arrays()
    arrays["features"] = (random_arrays(n=4)["features"] + 0.1)[y]
    with pytest.raises(ValueError, match=r"^representation\.features do not vary within a class"):
        RelativeMahalanobis().fit(Representation.from_numpy(**arrays), y)


def test_one_feature():
    arrays, y = labelled(C=1)
    scores = scores_of(RelativeMahalanobis(), arrays, y)
    assert_scores_close(scores, relative_mahalanobis_oracle(arrays["features"], y, arrays["features"]))


def test_float32_and_float64_agree():
    arrays, y = labelled()
    narrow = {name: array.astype(np.float32) for name, array in arrays.items()}
    expected = scores_of(RelativeMahalanobis(), arrays, y)
    np.testing.assert_allclose(scores_of(RelativeMahalanobis(), narrow, y), expected, rtol=1e-5, atol=1e-5)


def test_classes_are_needed():
    with pytest.raises(ValueError, match=r"^y is None"):
        RelativeMahalanobis().fit(random_representation())


@pytest.mark.parametrize("shrinkage", [-0.1, 1.1, float("nan"), "large", None])
def test_shrinkage_is_checked(shrinkage):
    with pytest.raises(ValueError, match="shrinkage"):
        RelativeMahalanobis(shrinkage=shrinkage).fit(random_representation(), np.arange(30) % 4)


@pytest.mark.parametrize("value", ["yes", None, 2])
def test_normalize_is_checked(value):
    with pytest.raises(ValueError, match="normalize"):
        RelativeMahalanobis(normalize=value).fit(random_representation(), np.arange(30) % 4)
