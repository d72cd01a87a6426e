import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import Prototypes, Representation
from tests.scorers.early_errors import early_error
from tests.scorers.helpers import cyclic_labels, fit_and_score, quick, random_arrays, random_representation


def prototypes_oracle(prototypes, weights, classes, test, temperature):
    """The log-likelihood of the mixture of the most likely class, without its constant, in float64."""
    scores = []
    for h in np.asarray(test, dtype=np.float64):
        z = h / np.linalg.norm(h)
        likelihoods = []
        for k in set(classes.tolist()):
            exponents = [
                (w, p @ z / temperature) for p, w, c in zip(prototypes, weights, classes, strict=True) if c == k
            ]
            largest = max(exponent for _, exponent in exponents)
            likelihoods.append(largest + np.log(sum(w * np.exp(e - largest) for w, e in exponents)))
        scores.append(max(likelihoods))
    return np.array(scores)


def assert_is_oracle(scorer, features):
    K, C = scorer.n_classes_, features.shape[1]
    representation = Representation.from_numpy(features=features, weight=np.zeros((K, C)), bias=np.zeros(K))
    expected = prototypes_oracle(
        scorer.prototypes_, scorer.weights_, scorer.prototype_classes_, features, scorer.temperature
    )
    np.testing.assert_allclose(scorer.score_samples(representation), expected, rtol=1e-6, atol=1e-8)


def directions(seed, n_groups, size=20, spread=0.02, C=8):
    """Features of many lengths about well-separated directions, the group of each image, and the directions."""
    rng = np.random.default_rng(seed)
    middles = np.linalg.qr(rng.normal(size=(C, C)))[0][:n_groups]
    group = rng.permutation(np.repeat(np.arange(n_groups), size))
    features = middles[group] + spread * rng.normal(size=(len(group), C))
    return features * rng.uniform(0.1, 10, size=(len(group), 1)), group, middles


def representation_of(features, K):
    return Representation.from_numpy(features=features, weight=np.zeros((K, features.shape[1])), bias=np.zeros(K))


@given(seed=st.integers(0, 10**6), n=st.integers(1, 40), K=st.integers(1, 6), temperature=st.floats(1e-3, 10))
@quick
def test_oracle(seed, n, K, temperature):
    train = random_representation(seed, n=n, K=K)
    scorer = Prototypes(n_prototypes=3, temperature=temperature).fit(train, cyclic_labels(train))
    assert_is_oracle(scorer, random_arrays(seed + 1, n=7)["features"])


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rank", [None, 3])
def test_oracle_at_any_scale(scale, dtype, rank):
    train = random_representation(n=60, scale=scale, dtype=dtype, rank=rank)
    assert_is_oracle(Prototypes().fit(train, cyclic_labels(train)), train.features.numpy())


def test_one_prototype_is_the_mean_direction():
    train = random_representation(n=40)
    scorer = Prototypes(n_prototypes=1).fit(train, cyclic_labels(train))
    z = [h / np.linalg.norm(h) for h in train.features.numpy()]
    for k in range(4):
        mean = np.mean(z[k::4], axis=0)
        np.testing.assert_allclose(scorer.prototypes_[k], mean / np.linalg.norm(mean), rtol=1e-12)
    assert scorer.weights_.tolist() == [1.0] * 4
    expected = [10 * max(p @ one for p in scorer.prototypes_) for one in z]
    np.testing.assert_allclose(scorer.score_samples(train), expected, rtol=1e-12)


@given(seed=st.integers(0, 10**6))
@quick
def test_true_directions_are_found(seed):
    features, group, middles = directions(seed, 6)
    labels = group // 3 * 2  # classes 0 and 2, of three directions each
    scorer = Prototypes(n_prototypes=3).fit(representation_of(features, 3), labels)
    assert scorer.prototype_classes_.tolist() == [0, 0, 0, 2, 2, 2]
    np.testing.assert_allclose(scorer.weights_, 1 / 3)
    cosines = scorer.prototypes_ @ middles.T
    assert sorted(cosines.argmax(axis=1)[:3]) == [0, 1, 2]
    assert sorted(cosines.argmax(axis=1)[3:]) == [3, 4, 5]
    assert (cosines.max(axis=1) > 0.99).all()


@given(seed=st.integers(0, 10**6))
@quick
def test_images_belong_to_the_prototype_of_the_largest_cosine(seed):
    train = random_representation(seed, n=120, K=2)
    y = cyclic_labels(train)
    scorer = Prototypes(n_prototypes=4).fit(train, y)
    for k in range(2):
        own = scorer.prototype_classes_ == k
        z = np.array([h / np.linalg.norm(h) for h in train.features.numpy()[y == k]])
        nearest = (z @ scorer.prototypes_[own].T).argmax(axis=1)
        np.testing.assert_allclose(scorer.weights_[own], np.bincount(nearest) / len(z))
        for j, prototype in enumerate(scorer.prototypes_[own]):
            mean = z[nearest == j].mean(axis=0)
            np.testing.assert_allclose(prototype, mean / np.linalg.norm(mean), atol=1e-12)


def test_weights_are_shares_of_the_class():
    rng = np.random.default_rng(0)
    features = np.repeat(np.eye(3), [30, 10, 60], axis=0) + 0.01 * rng.normal(size=(100, 3))
    scorer = Prototypes(n_prototypes=2).fit(representation_of(features, 2), np.repeat([0, 1], [40, 60]))
    first = sorted(scorer.weights_[scorer.prototype_classes_ == 0])
    np.testing.assert_allclose(first, [0.25, 0.75])
    assert scorer.weights_[scorer.prototype_classes_ == 1].sum() == pytest.approx(1)


@pytest.mark.parametrize("samples_per_class", [None, 1000, 40])
def test_samples_per_class(samples_per_class):
    features, group, _ = directions(0, 6)
    representation = representation_of(features, 2)
    scores = Prototypes(n_prototypes=3).fit(representation, group // 3).score_samples(representation)
    fewer = Prototypes(n_prototypes=3, samples_per_class=samples_per_class).fit(representation, group // 3)
    # Any sample finds well-separated directions, and the prototypes are means over all images.
    np.testing.assert_allclose(fewer.score_samples(representation), scores, rtol=1e-12)


@given(seed=st.integers(0, 10**6), factor=st.floats(1e-3, 1e3))
@quick
def test_lengths_and_rotation_do_not_matter(seed, factor):
    train = random_representation(seed, n=40)
    y = cyclic_labels(train)
    scores = Prototypes(n_prototypes=2).fit(train, y).score_samples(train)
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    lengths = rng.uniform(0.1, 10, size=(40, 1))
    moved = representation_of(train.features.numpy() @ rotation * lengths * factor, 4)
    np.testing.assert_allclose(
        Prototypes(n_prototypes=2).fit(moved, y).score_samples(moved), scores, rtol=1e-8, atol=1e-8
    )


@given(seed=st.integers(0, 10**6))
@quick
def test_duplicating_all_training_images_changes_nothing(seed):
    train = random_representation(seed, n=40)
    once = Prototypes(n_prototypes=2).fit(train, cyclic_labels(train)).score_samples(train)
    twice = train[np.repeat(np.arange(40), 2)]
    labels = np.repeat(cyclic_labels(train), 2)
    np.testing.assert_allclose(
        Prototypes(n_prototypes=2).fit(twice, labels).score_samples(train), once, rtol=1e-9, atol=1e-9
    )


@given(seed=st.integers(0, 10**6), temperature=st.floats(0.01, 10))
@quick
def test_range(seed, temperature):
    scores = fit_and_score(Prototypes(temperature=temperature), random_representation(seed, n=60))
    assert (np.abs(scores) <= (1 + 1e-9) / temperature).all()


def test_low_temperature_tends_to_the_largest_cosine():
    train = random_representation(n=60)
    scorer = Prototypes(temperature=1e-6).fit(train, cyclic_labels(train))
    z = train.features / train.features.norm(dim=1, keepdim=True)
    expected = (z @ torch.from_numpy(scorer.prototypes_).T).amax(dim=1)
    np.testing.assert_allclose(1e-6 * scorer.score_samples(train), expected, atol=1e-5)


def test_turning_away_lowers_the_score():
    features, group, middles = directions(0, 4)
    scorer = Prototypes(n_prototypes=2).fit(representation_of(features, 2), group // 2)
    away = np.linalg.qr(middles.T, mode="complete")[0][:, -1]  # orthogonal to all directions
    turned = np.array([middles[0] * np.cos(a) + away * np.sin(a) for a in (0.0, 0.3, 0.8, 1.5)])
    assert (np.diff(scorer.score_samples(representation_of(turned, 2))) < 0).all()


def test_small_and_empty_classes():
    train = random_representation(n=9)
    labels = np.array([0] * 7 + [2] * 1 + [3] * 1)
    scorer = Prototypes().fit(train, labels)
    assert np.bincount(scorer.prototype_classes_, minlength=4).tolist() == [6, 0, 1, 1]
    # The only image of a class is its prototype.
    np.testing.assert_allclose(scorer.score_samples(train)[7:], 10.0, rtol=1e-12)


@pytest.mark.parametrize("representation", [
    random_representation(n=1), random_representation(C=1), random_representation(K=1),
    random_representation(n=3, C=40), random_representation(dtype=np.float16),
    representation_of(np.ones((5, 3)), 2), representation_of(np.zeros((5, 3)), 2),
])  # fmt: skip
def test_odd_data(representation):
    assert np.isfinite(fit_and_score(Prototypes(), representation)).all()


def test_one_class_needs_no_labels():
    train = random_representation(n=50, K=1)
    scores = fit_and_score(Prototypes(), train)
    assert np.array_equal(Prototypes().fit(train).score_samples(train), scores)


def test_features_without_direction_score_zero():
    train = random_representation(n=50)
    scorer = Prototypes().fit(train, cyclic_labels(train))
    np.testing.assert_allclose(scorer.score_samples(representation_of(np.zeros((2, 8)), 4)), [0, 0], atol=1e-12)


def test_fitted_attributes():
    train = random_representation(n=50)
    scorer = Prototypes(n_prototypes=2).fit(train, cyclic_labels(train))
    assert scorer.prototypes_.shape == (8, 8)
    assert scorer.prototypes_.dtype == scorer.weights_.dtype == np.float64
    assert scorer.weights_.shape == scorer.prototype_classes_.shape == (8,)
    np.testing.assert_allclose(np.linalg.norm(scorer.prototypes_, axis=1), 1, rtol=1e-12)
    again = Prototypes(n_prototypes=2).fit(train, cyclic_labels(train))
    assert np.array_equal(again.prototypes_, scorer.prototypes_)


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("C", [1, 3])
@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize("scorer", [Prototypes(), Prototypes(n_prototypes=50, samples_per_class=1)])
def test_all_sizes_are_accepted(scorer, K, C, n):
    representation = random_representation(n=n, C=C, K=K)
    assert early_error(scorer, representation) is None
    scorer.fit(representation, cyclic_labels(representation))


def test_missing_labels():
    with pytest.raises(ValueError, match=r"^y is None"):
        Prototypes().fit(random_representation())


def test_nan():
    representation = random_representation()
    scorer = Prototypes().fit(representation, cyclic_labels(representation))
    representation.features[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"representation\.features.* NaN"):
        Prototypes().fit(representation, cyclic_labels(representation))
    with pytest.raises(ValueError, match="gives 1 scores that are NaN or infinite, first in row 2"):
        scorer.score_samples(representation)


@pytest.mark.parametrize("parameters", [
    {"n_prototypes": 0}, {"n_prototypes": 2.0}, {"temperature": 0}, {"temperature": -1.0}, {"samples_per_class": 0},
    {"random_state": "x"},
])  # fmt: skip
def test_parameters_are_checked(parameters):
    train = random_representation()
    with pytest.raises(ValueError, match=next(iter(parameters))):
        Prototypes(**parameters).fit(train, cyclic_labels(train))
