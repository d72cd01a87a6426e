import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import CARef, Representation
from tests.scorers.helpers import fit_and_score, quick, random_arrays, random_representation

EPSILON = 2.0**-23


def class_means_oracle(train):
    """The mean feature of the images that the head predicts as a class, by class; not all classes have one."""
    H, W, b = (np.asarray(train[name], dtype=np.float64) for name in ("features", "weight", "bias"))
    groups = {}
    for h in H:
        groups.setdefault(int(np.argmax(W @ h + b)), []).append(h)
    return {k: sum(images) / len(images) for k, images in groups.items()}


def caref_oracle(train, test):
    """CARef image by image, in float64; for zeros and classes without a mean as in the docstring."""
    W, b = (np.asarray(train[name], dtype=np.float64) for name in ("weight", "bias"))
    means = class_means_oracle(train)
    scores = []
    for h in np.asarray(test["features"], dtype=np.float64):
        z = W @ h + b
        mean = means[max(means, key=lambda k, z=z: z[k])]
        error = sum(abs(h - mean))
        norm = max(sum(abs(h)), EPSILON * sum(abs(mean)))
        scores.append(-error / norm if error > 0 else 0.0)
    return np.array(scores)


def scores_after_fit(train, test):
    return CARef().fit(Representation.from_numpy(**train)).score_samples(Representation.from_numpy(**test))


def with_head_of(arrays, other):
    return {**arrays, "weight": other["weight"], "bias": other["bias"]}


def logits_of(arrays):
    return arrays["features"] @ arrays["weight"].T + arrays["bias"]


def assert_scores_close(scores, expected):
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 40),
    K=st.integers(1, 10),
    C=st.integers(1, 8),
    rectified=st.booleans(),
)
@quick
def test_oracle(seed, n, K, C, rectified):
    train = random_arrays(seed, n=n, K=K, C=C)
    test = with_head_of(random_arrays(seed + 1, n=8, C=C), train)
    if rectified:
        train["features"], test["features"] = train["features"].clip(0), test["features"].clip(0)
    np.testing.assert_allclose(scores_after_fit(train, test), caref_oracle(train, test), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", [{"rank": 2}, {"scale": 1e-30}, {"scale": 1e30}, {"K": 1}, {"C": 1}, {"n": 5000}])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_oracle_on_unusual_input(options, dtype):
    arrays = random_arrays(**options, dtype=dtype)
    scores = fit_and_score(CARef(), Representation.from_numpy(**arrays))
    assert_scores_close(scores, caref_oracle(arrays, arrays))


@given(seed=st.integers(0, 10**6))
@quick
def test_authors_formula(seed):
    """The authors' code, as array operations: all classes are predicted and no image is 0."""
    train = random_arrays(seed, n=300)
    test = with_head_of(random_arrays(seed + 1), train)
    predicted, c = logits_of(train).argmax(axis=1), logits_of(test).argmax(axis=1)
    means = np.stack([train["features"][predicted == k].mean(axis=0) for k in np.unique(predicted)])
    error = np.linalg.norm(means[np.searchsorted(np.unique(predicted), c)] - test["features"], ord=1, axis=1)
    expected = -error / np.linalg.norm(test["features"], ord=1, axis=1)
    known = np.isin(c, predicted)
    np.testing.assert_allclose(scores_after_fit(train, test)[known], expected[known], rtol=1e-9)


def test_fitted_attributes():
    arrays = random_arrays()
    scorer = CARef().fit(Representation.from_numpy(**arrays))
    assert scorer.means_.dtype == scorer.has_mean_.dtype == np.float64
    assert scorer.has_mean_.tolist() == [1, 1, 1, 1]
    predicted = logits_of(arrays).argmax(axis=1)
    np.testing.assert_allclose(scorer.means_[2], arrays["features"][predicted == 2].mean(axis=0), rtol=1e-12)


def test_class_that_is_never_predicted():
    # The class with the next largest logit is used instead.
    arrays = random_arrays(n=100)
    rows = logits_of(arrays).argmax(axis=1) != 2
    train, test = ({**arrays, "features": arrays["features"][kept]} for kept in (rows, ~rows))
    scorer = CARef().fit(Representation.from_numpy(**train))
    assert scorer.has_mean_.tolist() == [1, 1, 0, 1]
    assert (scorer.means_[2] == 0).all()
    scores = scorer.score_samples(Representation.from_numpy(**test))
    next_best = np.where(np.arange(4) == 2, -np.inf, logits_of(test)).argmax(axis=1)
    expected = -np.abs(test["features"] - scorer.means_[next_best]).sum(axis=1) / np.abs(test["features"]).sum(axis=1)
    assert len(scores) > 5
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


@pytest.mark.parametrize("y", [None, np.zeros(30, dtype=int)], ids=["none", "zeros"])
def test_one_class(y):
    arrays = random_arrays(K=1)
    features = arrays["features"]
    representation = Representation.from_numpy(**arrays)
    expected = -np.abs(features - features.mean(axis=0)).sum(axis=1) / np.abs(features).sum(axis=1)
    np.testing.assert_allclose(CARef().fit(representation, y).score_samples(representation), expected, rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1, 1e30])
def test_features_of_zeros_have_the_lowest_score(scale):
    train = random_arrays(scale=scale)
    test = {**train, "features": np.array([1, 1e-5, 1e-12, 0])[:, None] * train["features"][:1]}
    scores = scores_after_fit(train, test)
    assert scores[3] == -(2.0**23)
    # The image at 1e-12 has a norm below that of 2^-23 of its mean, and nearly the error of zeros.
    np.testing.assert_allclose(scores[2], scores[3], rtol=1e-9)
    assert scores[3] < scores[1] < scores[0]


def test_zeros_in_training():
    zeros = {**random_arrays(), "features": np.zeros((30, 8))}
    np.testing.assert_array_equal(scores_after_fit(zeros, zeros), 0)
    # The mean is 0, so the error is the feature itself.
    np.testing.assert_allclose(scores_after_fit({**zeros, **{"bias": np.zeros(4)}}, random_arrays()), -1, rtol=1e-12)


@given(seed=st.integers(0, 10**6), factor=st.floats(1e-3, 1e3), shift=st.floats(-10, 10))
@quick
def test_invariances(seed, factor, shift):
    arrays = random_arrays(seed)
    W, b = arrays["weight"], arrays["bias"]
    order = np.random.default_rng(seed).permutation(8)
    signs = np.random.default_rng(seed).choice([-1, 1], size=8)
    scores = fit_and_score(CARef(), Representation.from_numpy(**arrays))
    for same in (
        {**arrays, "features": factor * arrays["features"], "bias": factor * b},
        {**arrays, "features": arrays["features"][:, order], "weight": W[:, order]},
        {**arrays, "features": signs * arrays["features"], "weight": signs * W},
        {**arrays, "weight": factor * W, "bias": factor * b},
        {**arrays, "bias": b + shift},
    ):
        np.testing.assert_allclose(fit_and_score(CARef(), Representation.from_numpy(**same)), scores, rtol=1e-6)


@given(seed=st.integers(0, 10**6))
@quick
def test_moving_away_from_the_mean_lowers_the_score(seed):
    train = random_arrays(seed, K=1)
    mean = train["features"].mean(axis=0)
    direction = np.random.default_rng(seed).normal(size=8)
    # Only a feature that keeps its norm shows the error alone: here h is the mean, with its parts exchanged.
    direction -= np.sign(mean) * (direction * np.sign(mean)).mean()
    steps = np.linspace(0, 1, 5)[:, None] * 0.5 * np.abs(mean).min() / np.abs(direction).max()
    scores = scores_after_fit(train, {**train, "features": mean + steps * direction})
    assert scores[0] > -1e-9
    assert (np.diff(scores) < 0).all()


def test_duplicating_all_training_images_changes_nothing():
    arrays = random_arrays()
    twice = {**arrays, "features": np.repeat(arrays["features"], 2, axis=0)}
    np.testing.assert_allclose(scores_after_fit(twice, arrays), scores_after_fit(arrays, arrays), rtol=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_broken_logits_are_refused(value):
    representation = random_representation()
    scorer = CARef().fit(representation)
    representation.logits[2, 1] = value
    with pytest.raises(ValueError, match="1 scores that are NaN or infinite, first in row 2"):
        scorer.score_samples(representation)


def test_nan_in_fit():
    representation = random_representation()
    representation.logits[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"representation\.logits hold NaN, first in row 2"):
        CARef().fit(representation)
    representation = random_representation()
    representation.features[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"representation\.features.* NaN"):
        CARef().fit(representation)
