import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import ClassGaussianMixture, Representation
from tests.scorers.helpers import cyclic_labels, fit_and_score, quick, random_arrays, random_representation


def mixture_oracle(means, weights, classes, precision, test):
    """Minus the smallest combined squared distance to a class, in float64."""
    scores = []
    for h in np.asarray(test, dtype=np.float64):
        aggregated = []
        for k in set(classes.tolist()):
            of_class = [(m, w) for m, w, c in zip(means, weights, classes, strict=True) if c == k]
            distances = [float((h - m) @ precision @ (h - m)) for m, _ in of_class]
            least = min(distances)
            likelihood = sum(w * np.exp((least - d) / 2) for d, (_, w) in zip(distances, of_class, strict=True))
            aggregated.append(least - 2 * np.log(likelihood))
        scores.append(-min(aggregated))
    return np.array(scores)


def pooled_precision(features, groups, smallest=1e-10):
    """The pseudo-inverse of the covariance about group means, without eigenvalues below the share `smallest`."""
    features = np.asarray(features, dtype=np.float64)
    covariance = np.zeros((features.shape[1], features.shape[1]))
    for g in set(groups.tolist()):
        mean = features[groups == g].mean(axis=0)
        for h in features[groups == g]:
            covariance += np.outer(h - mean, h - mean)
    return np.linalg.pinv(covariance / len(features), hermitian=True, rcond=smallest)


def representation_of(features, K):
    return Representation.from_numpy(features=features, weight=np.zeros((K, features.shape[1])), bias=np.zeros(K))


def groups_of(seed, n_groups, size=20, C=5):
    """Features around well-separated centres, with one covariance, and the group of each."""
    rng = np.random.default_rng(seed)
    middles = rng.permutation(30 * np.array([[i, j] for i in range(3) for j in range(3)]))[:n_groups]
    group = rng.permutation(np.repeat(np.arange(n_groups), size))
    noise = rng.normal(size=(len(group), C)) @ np.diag(np.linspace(0.5, 2, C))
    noise[:, :2] += middles[group]
    return noise @ np.linalg.qr(rng.normal(size=(C, C)))[0], group


@given(seed=st.integers(0, 10**6), K=st.integers(1, 4), n_components=st.integers(1, 4), C=st.sampled_from([1, 2, 8]))
@quick
def test_oracle(seed, K, n_components, C):
    train = random_representation(seed, n=60, K=K, C=C)
    y = cyclic_labels(train)
    scorer = ClassGaussianMixture(n_components=n_components).fit(train, y)
    features = train.features.numpy()
    precision = scorer.whitening_ @ scorer.whitening_.T
    test = random_arrays(seed + 1, n=7, C=C)["features"]
    expected = mixture_oracle(scorer.means_, scorer.weights_, scorer.component_classes_, precision, test)
    np.testing.assert_allclose(scorer.score_samples(representation_of(test, K)), expected, rtol=1e-6)
    # The weighted mean of the components of a class is the class mean.
    for k in range(K):
        own = scorer.component_classes_ == k
        assert own.sum() == n_components
        np.testing.assert_allclose(scorer.weights_[own] @ scorer.means_[own], features[y == k].mean(axis=0), atol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("n", [6, 60])
def test_oracle_of_one_component(scale, dtype, rank, n):
    # With one component per class, the oracle needs nothing from `fit`. n = 6 is less than the number of features.
    arrays = random_arrays(n=n, K=2, scale=scale, dtype=dtype, rank=rank)
    train, y = Representation.from_numpy(**arrays), np.arange(n) % 2
    features = arrays["features"].astype(np.float64) / scale
    means = np.array([features[y == k].mean(axis=0) for k in range(2)])
    precision = pooled_precision(features, y, smallest=1e-10 if dtype is np.float64 else 1e-8)
    expected = mixture_oracle(means, np.ones(2), np.arange(2), precision, features)
    scores = ClassGaussianMixture(n_components=1).fit(train, y).score_samples(train)
    np.testing.assert_allclose(scores, expected, rtol=1e-6 if dtype is np.float64 else 1e-3)


@given(seed=st.integers(0, 10**6))
@quick
def test_true_components_are_found(seed):
    features, group = groups_of(seed, 6)
    labels = group // 3 * 2  # classes 0 and 2, of three groups each
    train = representation_of(features, 3)
    scorer = ClassGaussianMixture(n_components=3).fit(train, labels)
    assert scorer.component_classes_.tolist() == [0, 0, 0, 2, 2, 2]
    np.testing.assert_allclose(scorer.weights_, 1 / 3)
    true_means = np.array([features[group == g].mean(axis=0) for g in range(6)])
    for own, true in ((slice(0, 3), true_means[:3]), (slice(3, 6), true_means[3:])):
        np.testing.assert_allclose(sorted(scorer.means_[own].tolist()), sorted(true.tolist()), atol=1e-9)
    precision = pooled_precision(features, group)
    np.testing.assert_allclose(scorer.whitening_ @ scorer.whitening_.T, precision, rtol=1e-8, atol=1e-8)
    expected = mixture_oracle(true_means, np.full(6, 1 / 3), np.arange(6) // 3, precision, features[:10])
    np.testing.assert_allclose(scorer.score_samples(train[:10]), expected, rtol=1e-6)


def test_weights_are_shares_of_the_class():
    rng = np.random.default_rng(0)
    features = np.repeat(100 * np.eye(3), [30, 10, 60], axis=0) + rng.normal(size=(100, 3))
    scorer = ClassGaussianMixture().fit(representation_of(features, 2), np.repeat([0, 1], [40, 60]))
    np.testing.assert_allclose(sorted(scorer.weights_[scorer.component_classes_ == 0]), [0.25, 0.75])
    assert scorer.weights_[scorer.component_classes_ == 1].sum() == pytest.approx(1)


@given(seed=st.integers(0, 10**6), factor=st.floats(1e-6, 1e6), shift=st.floats(-100, 100))
@quick
def test_rotation_scale_and_shift_of_features_do_not_matter(seed, factor, shift):
    arrays = random_arrays(seed, n=60)["features"]
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))[0]
    train, moved = (representation_of(f, 4) for f in (arrays, factor * (arrays @ rotation + shift)))
    y = cyclic_labels(train)
    scores, others = (ClassGaussianMixture().fit(r, y).score_samples(r) for r in (train, moved))
    np.testing.assert_allclose(others, scores, rtol=1e-6)


@given(seed=st.integers(0, 10**6))
@quick
def test_any_linear_map_of_features_does_not_matter_to_one_component(seed):
    arrays = random_arrays(seed, n=60)["features"]
    mixing = np.random.default_rng(seed).normal(size=(8, 8)) + 3 * np.eye(8)
    train, moved = (representation_of(f, 4) for f in (arrays, arrays @ mixing))
    y = cyclic_labels(train)
    scores, others = (ClassGaussianMixture(n_components=1).fit(r, y).score_samples(r) for r in (train, moved))
    np.testing.assert_allclose(others, scores, rtol=1e-6)


@given(seed=st.integers(0, 10**6))
@quick
def test_training_set_twice(seed):
    train = random_representation(seed, n=60)
    y = cyclic_labels(train)
    twice = np.repeat(np.arange(60), 2)
    once = ClassGaussianMixture().fit(train, y).score_samples(train)
    np.testing.assert_allclose(ClassGaussianMixture().fit(train[twice], y[twice]).score_samples(train), once, rtol=1e-8)


@pytest.mark.parametrize("samples_per_class", [None, 1000, 40])
def test_samples_per_class(samples_per_class):
    features, group = groups_of(0, 6)
    representation = representation_of(features, 2)
    scores = ClassGaussianMixture(n_components=3).fit(representation, group // 3).score_samples(representation)
    fewer = ClassGaussianMixture(n_components=3, samples_per_class=samples_per_class).fit(representation, group // 3)
    # Any sample finds groups that are far apart, and means and covariance are computed from all images.
    np.testing.assert_allclose(fewer.score_samples(representation), scores, rtol=1e-9)


def test_score_is_low_between_components():
    features, group = groups_of(0, 4)
    train = representation_of(features, 2)
    middles = np.array([features[group == g].mean(axis=0) for g in range(2)])
    steps = np.array([middles[0] * (1 - t) + middles[1] * t for t in (0.0, 0.2, 0.4, 0.5)])
    mixture = ClassGaussianMixture().fit(train, group // 2).score_samples(representation_of(steps, 2))
    assert (np.diff(mixture) < 0).all()
    assert mixture[0] > -10
    assert mixture[3] < -50


def test_score_is_at_most_zero():
    assert (fit_and_score(ClassGaussianMixture(), random_representation(n=60)) <= 0).all()


def test_no_cancellation_far_from_the_origin():
    # Classes 1e6 standard deviations apart.
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 30)
    features = rng.normal(size=(60, 3)) + 1e6 * y[:, None]
    scores = ClassGaussianMixture(n_components=1).fit(representation_of(features, 2), y)
    local = features - 1e6 * y[:, None]
    expected = mixture_oracle(
        np.array([local[y == 0].mean(axis=0), 1e6 + local[y == 1].mean(axis=0)]), np.ones(2), np.arange(2),
        pooled_precision(features, y), features,
    )  # fmt: skip
    np.testing.assert_allclose(scores.score_samples(representation_of(features, 2)), expected, rtol=1e-6)


def test_small_and_empty_classes():
    train = random_representation(n=30)
    labels = np.array([0] * 26 + [2] * 3 + [3] * 1)
    scorer = ClassGaussianMixture(n_components=4).fit(train, labels)
    assert np.bincount(scorer.component_classes_, minlength=4).tolist() == [4, 0, 1, 1]
    # The only image of a class is its mean.
    assert scorer.score_samples(train)[29] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("options", [{"C": 1}, {"K": 1}, {"n": 20, "C": 40}, {"dtype": np.float16}, {"K": 2, "n": 4}])
def test_unusual_data(options):
    assert np.isfinite(fit_and_score(ClassGaussianMixture(), random_representation(**options))).all()


@pytest.mark.parametrize("representation", [
    random_representation(n=1), representation_of(np.ones((5, 3)), 2), random_representation(n=4, K=4),
])  # fmt: skip
def test_no_variance_raises_an_error(representation):
    with pytest.raises(ValueError, match="more or more varied images"):
        fit_and_score(ClassGaussianMixture(), representation)


def test_one_class_needs_no_labels():
    train = random_representation(n=50, K=1)
    scores = fit_and_score(ClassGaussianMixture(), train)
    assert np.array_equal(ClassGaussianMixture().fit(train).score_samples(train), scores)


def test_fitted_attributes():
    train = random_representation(n=50)
    scorer = ClassGaussianMixture().fit(train, cyclic_labels(train))
    assert scorer.means_.shape == (8, 8)
    assert scorer.whitening_.shape == (8, 8)
    assert scorer.means_.dtype == scorer.weights_.dtype == scorer.whitening_.dtype == np.float64
    assert scorer.weights_.shape == scorer.component_classes_.shape == (8,)
    again = ClassGaussianMixture().fit(train, cyclic_labels(train))
    assert np.array_equal(again.means_, scorer.means_)


def test_missing_labels():
    with pytest.raises(ValueError, match=r"^y is None"):
        ClassGaussianMixture().fit(random_representation())


def test_nan():
    representation = random_representation()
    scorer = ClassGaussianMixture().fit(representation, cyclic_labels(representation))
    representation.features[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"representation\.features.* NaN"):
        ClassGaussianMixture().fit(representation, cyclic_labels(representation))
    with pytest.raises(ValueError, match="gives 1 scores that are NaN or infinite, first in row 2"):
        scorer.score_samples(representation)


@pytest.mark.parametrize("parameters", [
    {"n_components": 0}, {"n_components": 2.0}, {"samples_per_class": 0}, {"random_state": "x"},
])  # fmt: skip
def test_parameters_are_checked(parameters):
    train = random_representation()
    with pytest.raises(ValueError, match=next(iter(parameters))):
        ClassGaussianMixture(**parameters).fit(train, cyclic_labels(train))
