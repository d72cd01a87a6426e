import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import OAS

from skdfb.metrics import auroc_score
from skdfb.scorers import Mahalanobis, Representation
from tests.scorers.helpers import quick, random_arrays, random_representation


def mahalanobis_oracle(features, y, new, shrinkage=0.0):
    """Mahalanobis scores by the paper, in float64, with the shrinkage of the docstring."""
    H, new = np.asarray(features, dtype=np.float64), np.asarray(new, dtype=np.float64)
    n, C = H.shape
    means = {k: sum(h for h, label in zip(H, y, strict=True) if label == k) / list(y).count(k) for k in set(y)}
    covariance = np.zeros((C, C))
    for h, label in zip(H, y, strict=True):
        covariance += np.outer(h - means[label], h - means[label]) / n
    covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / C * np.eye(C)
    precision = np.linalg.pinv(covariance, rcond=1e-11, hermitian=True)
    return np.array([-min((h - mean) @ precision @ (h - mean) for mean in means.values()) for h in new])


def labelled(seed=0, *, n=60, K=4, **options):
    """Arrays of random images, and classes whose means differ."""
    arrays = random_arrays(seed, n=n, K=K, **options)
    y = np.random.default_rng(seed).permutation(np.arange(n) % K).tolist()
    spread = 3 * np.abs(arrays["features"]).mean()
    centres = np.random.default_rng(seed + 1).normal(size=(K, arrays["features"].shape[1]))
    if not options.get("rank"):
        arrays["features"] = (arrays["features"] + spread * centres[y]).astype(arrays["features"].dtype)
    return arrays, y


def scores_of(scorer, arrays, y, features=None):
    """Fit on the arrays and score other features, or the same."""
    scorer.fit(Representation.from_numpy(**arrays), y)
    return scorer.score_samples(Representation.from_numpy(**(arrays if features is None else with_(arrays, features))))


def with_(arrays, features):
    return {**arrays, "features": features}


def assert_scores_close(scores, expected, rtol=1e-6):
    np.testing.assert_allclose(scores, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


@given(
    seed=st.integers(0, 10**6), n=st.integers(20, 50), K=st.integers(1, 8), shrinkage=st.sampled_from([0.0, 0.1, 1.0])
)
@quick
def test_oracle(seed, n, K, shrinkage):
    arrays, y = labelled(seed, n=n, K=K)
    new = 5 * np.random.default_rng(seed).normal(size=(6, 8))
    scores = scores_of(Mahalanobis(shrinkage), arrays, y, new)
    assert_scores_close(scores, mahalanobis_oracle(arrays["features"], y, new, shrinkage))


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_oracle_at_any_scale(scale, dtype, shrinkage):
    arrays, y = labelled(scale=scale, dtype=dtype)
    scores = scores_of(Mahalanobis(shrinkage), arrays, y)
    assert_scores_close(scores, mahalanobis_oracle(arrays["features"], y, arrays["features"], shrinkage))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_oracle_on_features_of_low_rank(dtype, offset):
    # Rank 5; rounding to float32 fills the other directions with noise, which a large mean makes larger.
    exact, y = labelled(n=200, C=16, rank=5)
    exact["features"] += offset
    rounded = {name: array.astype(dtype) for name, array in exact.items()}
    scorer = Mahalanobis().fit(Representation.from_numpy(**rounded), y)
    assert scorer.whitening_.shape == (16, 5)
    scores = scorer.score_samples(Representation.from_numpy(**rounded))
    expected = mahalanobis_oracle(exact["features"], y, exact["features"])
    assert_scores_close(scores, expected, rtol=1e-6 if dtype == np.float64 else 1e-3)


def test_oracle_with_fewer_images_than_features():
    arrays, y = labelled(n=12, C=40)
    new = random_arrays(1, n=5, C=40)["features"]
    scorer = Mahalanobis().fit(Representation.from_numpy(**arrays), y)
    assert scorer.whitening_.shape == (40, 8)
    scores = scorer.score_samples(Representation.from_numpy(**with_(arrays, new)))
    assert_scores_close(scores, mahalanobis_oracle(arrays["features"], y, new))


@pytest.mark.parametrize(("n", "C"), [(500, 8), (60, 40), (30, 60)])
def test_automatic_shrinkage_is_that_of_oas(n, C):
    arrays, _ = labelled(n=n, C=C)
    scorer = Mahalanobis("auto").fit(Representation.from_numpy(**arrays), np.zeros(n, dtype=int))
    centred = arrays["features"] - arrays["features"].mean(axis=0)
    covariance = centred.T @ centred / n
    mean_of_squares, squared_mean = np.mean(covariance**2), (np.trace(covariance) / C) ** 2
    expected = min(1.0, (mean_of_squares + squared_mean) / (n * (mean_of_squares - squared_mean / C)))  # n - 1 degrees
    np.testing.assert_allclose(scorer.shrinkage_, expected, rtol=1e-6)
    # scikit-learn counts n degrees of freedom.
    np.testing.assert_allclose(scorer.shrinkage_, OAS().fit(arrays["features"]).shrinkage_, rtol=2 / n)
    fixed = Mahalanobis(scorer.shrinkage_).fit(Representation.from_numpy(**arrays), np.zeros(n, dtype=int))
    assert_scores_close(
        scorer.score_samples(Representation.from_numpy(**arrays)),
        fixed.score_samples(Representation.from_numpy(**arrays)),
    )


def test_automatic_shrinkage_helps_with_few_images():
    # With about as many images as features, Σ is almost singular: without shrinkage all new images score low.
    C, rng = 64, np.random.default_rng(0)
    spectrum = np.arange(1, C + 1) ** -0.7
    train, new, ood = (rng.normal(size=(n, C)) * spectrum for n in (C + 2, 300, 300))
    ood *= 1.3
    arrays = {"weight": np.zeros((1, C)), "bias": np.zeros(1)}
    gaps = []
    for shrinkage in (0.0, "auto"):
        scorer = Mahalanobis(shrinkage).fit(Representation.from_numpy(features=train, **arrays), None)
        known, other = (scorer.score_samples(Representation.from_numpy(features=X, **arrays)) for X in (new, ood))
        gaps.append(auroc_score(known, other))
    assert gaps[1] > gaps[0] + 0.2


def test_shrinkage_counts_directions_outside_the_span_of_training_features():
    arrays, y = labelled(n=12, C=40)
    centred = arrays["features"] - arrays["features"].mean(axis=0)
    outside = np.linalg.svd(centred)[2][-1]
    new = arrays["features"].mean(axis=0) + np.outer([0.0, 10.0], outside)
    assert np.ptp(scores_of(Mahalanobis(), arrays, y, new)) < 1e-6
    inside, out = scores_of(Mahalanobis(shrinkage=0.1), arrays, y, new)
    assert out < inside - 1


def test_oracle_beyond_one_batch():
    arrays, y = labelled(n=9000, C=3)
    scores = scores_of(Mahalanobis(), arrays, y)
    assert_scores_close(scores, mahalanobis_oracle(arrays["features"], y, arrays["features"]))


def test_nothing_cancels_between_far_classes():
    # Class means are 1e9 standard deviations apart. Features are integers, which are exact in float64.
    rng = np.random.default_rng(0)
    noise = rng.integers(-3, 4, size=(400, 4)).astype(np.float64)
    y = (np.arange(400) % 2).tolist()
    arrays = with_(random_arrays(C=4, K=2), noise + 2.0**31 * np.array(y)[:, None])
    scores = scores_of(Mahalanobis(), arrays, y)
    near = with_(arrays, noise + 16.0 * np.array(y)[:, None])
    np.testing.assert_allclose(scores, mahalanobis_oracle(near["features"], y, near["features"]), rtol=1e-5)


def test_fitted_attributes():
    arrays, y = labelled()
    scorer = Mahalanobis().fit(Representation.from_numpy(**arrays), y)
    H = arrays["features"]
    means = np.array([H[np.array(y) == k].mean(axis=0) for k in range(4)])
    np.testing.assert_allclose(scorer.mean_, H.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(scorer.whitened_means_, (means - H.mean(axis=0)) @ scorer.whitening_, rtol=1e-9)
    within = (H - means[y]) @ scorer.whitening_
    np.testing.assert_allclose(within.T @ within / len(H), np.eye(8), atol=1e-10)
    assert scorer.mean_.dtype == scorer.whitening_.dtype == scorer.whitened_means_.dtype == np.float64


@given(seed=st.integers(0, 10**6))
@quick
def test_affine_maps_change_nothing(seed):
    arrays, y = labelled(seed)
    rng = np.random.default_rng(seed)
    matrix, shift = rng.normal(size=(8, 8)) + 3 * np.eye(8), 100 * rng.normal(size=8)
    mapped = with_(arrays, arrays["features"] @ matrix + shift)
    np.testing.assert_allclose(scores_of(Mahalanobis(), mapped, y), scores_of(Mahalanobis(), arrays, y), rtol=1e-5)


@given(seed=st.integers(0, 10**6), shrinkage=st.floats(0, 1))
@quick
def test_training_images_twice_are_the_same_as_once(seed, shrinkage):
    arrays, y = labelled(seed, n=24)
    twice = with_(arrays, np.repeat(arrays["features"], 2, axis=0))
    once = scores_of(Mahalanobis(shrinkage), arrays, y)
    again = scores_of(Mahalanobis(shrinkage), twice, np.repeat(y, 2), arrays["features"])
    np.testing.assert_allclose(again, once, rtol=1e-8)


def test_mean_training_score_is_minus_the_rank():
    # tr(Σ⁺ Σ) = r, if the nearest class of each image is its own.
    arrays, y = labelled(n=100)
    arrays["features"] += 1000 * np.eye(4, 8)[y]
    assert scores_of(Mahalanobis(), arrays, y).mean() == pytest.approx(-8, rel=1e-9)


def test_full_shrinkage_is_euclidean():
    arrays, y = labelled()
    H = arrays["features"]
    means = np.array([H[np.array(y) == k].mean(axis=0) for k in range(4)])
    variance = (H - means[y]).var(axis=0).mean()
    squared = ((H[:, None] - means) ** 2).sum(axis=2).min(axis=1)
    np.testing.assert_allclose(scores_of(Mahalanobis(shrinkage=1), arrays, y), -squared / variance, rtol=1e-9)


def test_class_without_images_is_left_out():
    arrays, y = labelled(K=6)
    kept = [label not in (0, 4) for label in y]
    some, labels = with_(arrays, arrays["features"][kept]), [label for label in y if label not in (0, 4)]
    scorer = Mahalanobis().fit(Representation.from_numpy(**some), labels)
    assert scorer.whitened_means_.shape == (4, 8)
    # A class without images must not get a mean of 0: one of the new images is at 0, far from all classes.
    new = np.vstack([arrays["features"], np.zeros((1, 8)), some["features"].mean(axis=0)])
    scores = scorer.score_samples(Representation.from_numpy(**with_(arrays, new)))
    assert_scores_close(scores, mahalanobis_oracle(some["features"], labels, new))


def unit(features):
    """Features of length 1, by the definition."""
    return np.array([h / np.sqrt(sum(h**2)) for h in np.asarray(features, dtype=np.float64)])


@given(
    seed=st.integers(0, 10**6), n=st.integers(20, 50), K=st.integers(1, 6), shrinkage=st.sampled_from([0.0, 0.1, 1.0])
)
@quick
def test_oracle_of_normalised_features(seed, n, K, shrinkage):
    arrays, y = labelled(seed, n=n, K=K)
    new = 5 * np.random.default_rng(seed).normal(size=(6, 8))
    scores = scores_of(Mahalanobis(shrinkage, normalize=True), arrays, y, new)
    assert_scores_close(scores, mahalanobis_oracle(unit(arrays["features"]), y, unit(new), shrinkage))


@given(seed=st.integers(0, 10**6))
@quick
def test_norms_of_normalised_features_do_not_matter(seed):
    arrays, y = labelled(seed)
    norms = 10 ** np.random.default_rng(seed).uniform(-30, 30, size=(60, 1))
    scores = scores_of(Mahalanobis("auto", normalize=True), arrays, y)
    scaled = with_(arrays, norms * arrays["features"])
    np.testing.assert_allclose(scores_of(Mahalanobis("auto", normalize=True), scaled, y), scores, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("use_classes", [True, False])
def test_zero_features_have_a_finite_score(use_classes):
    # Normalised, they stay 0, both in training and new images.
    arrays, y = labelled()
    arrays["features"][[3, 17]] = 0
    expected = unit(np.where(arrays["features"] == 0, 1, arrays["features"]))
    expected[[3, 17]] = 0
    scores = scores_of(Mahalanobis(normalize=True, use_classes=use_classes), arrays, y)
    assert_scores_close(scores, mahalanobis_oracle(expected, y if use_classes else [0] * 60, expected))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("C", [1, 3, 200])
@pytest.mark.parametrize("shrinkage", [0.0, "auto"])
def test_features_that_differ_in_their_norm_alone(shrinkage, C, dtype):
    rng = np.random.default_rng(0)
    features = (rng.uniform(1, 5, size=(60, 1)) * rng.normal(size=(4, C))[np.arange(60) % 4]).astype(np.float16)
    arrays = with_(random_arrays(C=C, dtype=dtype), features.astype(dtype))
    if dtype != np.float16:
        arrays["features"] = (arrays["features"][:4][np.arange(60) % 4] * rng.uniform(1, 5, (60, 1))).astype(dtype)
    with pytest.raises(ValueError, match=r"do not vary within a class"):
        Mahalanobis(shrinkage, normalize=True).fit(Representation.from_numpy(**arrays), np.arange(60) % 4)


def test_parameters_that_are_set_after_fit_change_no_score():
    arrays, y = labelled()
    scorer = Mahalanobis(normalize=True).fit(Representation.from_numpy(**arrays), y)
    before = scorer.score_samples(Representation.from_numpy(**arrays))
    scorer.set_params(normalize=False, use_classes=False, shrinkage=1.0)
    assert np.array_equal(scorer.score_samples(Representation.from_numpy(**arrays)), before)
    assert scorer.normalize_ is True


@pytest.mark.parametrize("y", [None, np.arange(60) % 4, "ignored"], ids=["none", "classes", "text"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("shrinkage", [0.0, 0.2, "auto"])
def test_without_classes(shrinkage, normalize, y):
    arrays, _ = labelled()
    scorer = Mahalanobis(shrinkage, normalize=normalize, use_classes=False)
    scores = scores_of(scorer, arrays, y)
    features = unit(arrays["features"]) if normalize else arrays["features"]
    assert_scores_close(scores, mahalanobis_oracle(features, [0] * 60, features, scorer.shrinkage_))
    assert scorer.whitened_means_.shape == (1, 8)
    # The same as with one class.
    assert np.array_equal(scores, scores_of(Mahalanobis(shrinkage, normalize=normalize), arrays, [2] * 60))


@pytest.mark.parametrize("y", [None, np.zeros(60, dtype=int)], ids=["none", "zeros"])
def test_one_class(y):
    arrays = random_arrays(n=60, K=1)
    scores = scores_of(Mahalanobis(), arrays, y)
    assert_scores_close(scores, mahalanobis_oracle(arrays["features"], [0] * 60, arrays["features"]))


def test_one_feature():
    arrays, y = labelled(C=1)
    assert_scores_close(
        scores_of(Mahalanobis(), arrays, y), mahalanobis_oracle(arrays["features"], y, arrays["features"])
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_constant_features_do_not_count(dtype):
    # In floating point, the sum of n times 0.1 is not 0.1 n.
    arrays, y = labelled(n=5000, C=4, dtype=dtype)
    constants = np.full((5000, 3), [0.1, 1000.1, 0.0], dtype=dtype)
    more = random_arrays(n=1, C=7, dtype=dtype) | {"features": np.hstack([constants, arrays["features"]])}
    scorer = Mahalanobis().fit(Representation.from_numpy(**more), y)
    assert scorer.whitening_.shape == (7, 4)
    scores = scorer.score_samples(Representation.from_numpy(**more))
    np.testing.assert_allclose(scores, scores_of(Mahalanobis(), arrays, y), rtol=1e-6)


@pytest.mark.parametrize("shrinkage", [0.0, 0.5])
@pytest.mark.parametrize("n", [1, 4, 3000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_variation_within_classes(n, dtype, shrinkage):
    # One image, one image per class, or classes of equal images.
    y = np.arange(n) % 4
    arrays = random_arrays(dtype=dtype)
    arrays["features"] = (random_arrays(n=4)["features"] + 0.1)[y].astype(dtype)
    with pytest.raises(
        ValueError, match=r"^representation\.features do not vary within a class.*: expected different images"
    ):
        Mahalanobis(shrinkage).fit(Representation.from_numpy(**arrays), y)


def test_float32_and_float64_agree():
    arrays, y = labelled()
    narrow = {name: array.astype(np.float32) for name, array in arrays.items()}
    np.testing.assert_allclose(scores_of(Mahalanobis(), narrow, y), scores_of(Mahalanobis(), arrays, y), rtol=1e-5)


def test_classes_are_needed():
    with pytest.raises(ValueError, match=r"^y is None"):
        Mahalanobis().fit(random_representation())
    with pytest.raises(ValueError, match=r"^y runs from 0 to 4"):
        Mahalanobis().fit(random_representation(n=5), np.arange(5))


def test_nan():
    representation = random_representation()
    scorer = Mahalanobis().fit(representation, np.arange(30) % 4)
    representation.features[2, 1] = np.nan
    with pytest.raises(ValueError, match="1 scores that are NaN or infinite, first in row 2"):
        scorer.score_samples(representation)
    with pytest.raises(ValueError, match=r"representation\.features.* NaN"):
        Mahalanobis().fit(representation, np.arange(30) % 4)


@pytest.mark.parametrize("shrinkage", [-0.1, 1.1, float("nan"), "large", None])
def test_shrinkage_is_checked(shrinkage):
    with pytest.raises(ValueError, match="shrinkage"):
        Mahalanobis(shrinkage=shrinkage).fit(random_representation(), np.arange(30) % 4)


@pytest.mark.parametrize("name", ["normalize", "use_classes"])
@pytest.mark.parametrize("value", ["yes", None, 2])
def test_switches_are_checked(name, value):
    with pytest.raises(ValueError, match=name):
        Mahalanobis(**{name: value}).fit(random_representation(), np.arange(30) % 4)
