import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import SHE, Representation
from tests.scorers.helpers import cyclic_labels, fit_and_score, quick, random_arrays, random_representation


def she_oracle(train, y, test):
    """SHE as in the paper, in float64; for classes without correctly classified images as in the docstring."""
    H, new = (np.asarray(arrays["features"], dtype=np.float64) for arrays in (train, test))
    W, b = (np.asarray(train[name], dtype=np.float64) for name in ("weight", "bias"))
    patterns = {}
    for k in range(len(W)):
        images = [h for h, label in zip(H, y, strict=True) if label == k]
        correct = [h for h in images if np.argmax(W @ h + b) == k]
        if images:
            patterns[k] = sum(correct or images) / len(correct or images)
    scores = []
    for h in new:
        z = W @ h + b
        scores.append(h @ patterns[max(patterns, key=lambda k, z=z: z[k])])
    return np.array(scores)


def assert_scores_close(scores, expected):
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def predicted_classes(arrays):
    return (arrays["features"] @ arrays["weight"].T + arrays["bias"]).argmax(axis=1)


def mostly_right(seed, arrays):
    """Classes that the head predicts correctly for about two of three images."""
    rng = np.random.default_rng(seed)
    predicted = predicted_classes(arrays)
    return np.where(
        rng.random(len(predicted)) < 2 / 3, predicted, rng.integers(len(arrays["weight"]), size=len(predicted))
    )


@given(seed=st.integers(0, 10**6), n=st.integers(1, 40), K=st.integers(1, 10), C=st.integers(1, 8))
@quick
def test_oracle(seed, n, K, C):
    train, test = random_arrays(seed, n=n, K=K, C=C), random_arrays(seed + 1, n=8, C=C)
    test.update(weight=train["weight"], bias=train["bias"])
    y = mostly_right(seed, train)
    scorer = SHE().fit(Representation.from_numpy(**train), y)
    scores = scorer.score_samples(Representation.from_numpy(**test))
    assert_scores_close(scores, she_oracle(train, y, test))


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rank", [None, 2])
def test_oracle_at_any_scale(scale, dtype, rank):
    train = random_arrays(scale=scale, dtype=dtype, rank=rank)
    y = mostly_right(0, train)
    scorer = SHE().fit(Representation.from_numpy(**train), y)
    assert_scores_close(scorer.score_samples(Representation.from_numpy(**train)), she_oracle(train, y, train))


def test_oracle_beyond_one_batch():
    train = random_arrays(n=9000, C=4)
    y = mostly_right(0, train)
    scorer = SHE().fit(Representation.from_numpy(**train), y)
    assert_scores_close(scorer.score_samples(Representation.from_numpy(**train)), she_oracle(train, y, train))


def test_fitted_attributes():
    arrays = random_arrays()
    y = mostly_right(0, arrays)
    scorer = SHE().fit(Representation.from_numpy(**arrays), y)
    correct = (y == 1) & (predicted_classes(arrays) == 1)
    assert 0 < correct.sum() < (y == 1).sum()
    assert scorer.patterns_.dtype == scorer.has_pattern_.dtype == np.float64
    np.testing.assert_allclose(scorer.patterns_[1], arrays["features"][correct].mean(axis=0), rtol=1e-12)
    assert scorer.has_pattern_.tolist() == [1, 1, 1, 1]


def test_class_with_no_image_classified_correctly():
    arrays = random_arrays()
    y = predicted_classes(arrays)
    y[y == 2] = 1
    y[:5] = 2
    y[:5][predicted_classes(arrays)[:5] == 2] = 1
    scorer = SHE().fit(Representation.from_numpy(**arrays), y)
    np.testing.assert_allclose(scorer.patterns_[2], arrays["features"][y == 2].mean(axis=0), rtol=1e-12)
    assert_scores_close(scorer.score_samples(Representation.from_numpy(**arrays)), she_oracle(arrays, y, arrays))


def test_class_without_images():
    # The class with the next largest logit is used instead.
    arrays = random_arrays(n=100)
    predicted = predicted_classes(arrays)
    y = np.where(predicted == 2, 3, predicted)
    scorer = SHE().fit(Representation.from_numpy(**arrays), y)
    assert scorer.has_pattern_.tolist() == [1, 1, 0, 1]
    assert (scorer.patterns_[2] == 0).all()
    scores = scorer.score_samples(Representation.from_numpy(**arrays))
    assert_scores_close(scores, she_oracle(arrays, y, arrays))
    logits = arrays["features"] @ arrays["weight"].T + arrays["bias"]
    logits[:, 2] = -np.inf
    expected = (arrays["features"] * scorer.patterns_[logits.argmax(axis=1)]).sum(axis=1)
    assert (predicted == 2).any()
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


def test_one_image():
    representation = random_representation(n=1)
    h = representation.features[0].numpy()
    for label in range(4):
        np.testing.assert_allclose(SHE().fit(representation, [label]).score_samples(representation), h @ h, rtol=1e-12)


@pytest.mark.parametrize("y", [None, np.zeros(30, dtype=int)], ids=["none", "zeros"])
def test_one_class(y):
    arrays = random_arrays(K=1)
    scores = SHE().fit(Representation.from_numpy(**arrays), y).score_samples(Representation.from_numpy(**arrays))
    np.testing.assert_allclose(scores, arrays["features"] @ arrays["features"].mean(axis=0), rtol=1e-9)


@given(seed=st.integers(0, 10**6), factor=st.floats(1e-3, 1e3), shift=st.floats(-10, 10))
@quick
def test_invariance_to_bias_scale_and_rotation(seed, factor, shift):
    arrays = random_arrays(seed)
    y = mostly_right(seed, arrays)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))

    def scores_of(changed):
        representation = Representation.from_numpy(**changed)
        return SHE().fit(representation, y).score_samples(representation)

    scores = scores_of(arrays)
    W, b = arrays["weight"], arrays["bias"]
    tolerance = {"rtol": 1e-6, "atol": 1e-9}
    np.testing.assert_allclose(scores_of({**arrays, "bias": b + shift}), scores, **tolerance)
    np.testing.assert_allclose(scores_of({**arrays, "weight": factor * W, "bias": factor * b}), scores, **tolerance)
    rotated = {**arrays, "features": arrays["features"] @ rotation, "weight": W @ rotation}
    np.testing.assert_allclose(scores_of(rotated), scores, **tolerance)
    scaled = {**arrays, "features": factor * arrays["features"], "bias": factor * b}
    np.testing.assert_allclose(scores_of(scaled), factor**2 * scores, rtol=1e-6, atol=1e-9 * factor**2)


def test_duplicating_all_training_images_changes_nothing():
    arrays = random_arrays()
    y = mostly_right(0, arrays)
    representation = Representation.from_numpy(**arrays)
    twice = Representation.from_numpy(**{**arrays, "features": np.repeat(arrays["features"], 2, axis=0)})
    np.testing.assert_allclose(
        SHE().fit(twice, np.repeat(y, 2)).score_samples(representation),
        SHE().fit(representation, y).score_samples(representation),
        rtol=1e-9,
    )


@given(seed=st.integers(0, 10**6))
@quick
def test_wrongly_classified_images_do_not_matter(seed):
    arrays = random_arrays(seed)
    y = predicted_classes(arrays)
    representation = Representation.from_numpy(**arrays)
    scores = SHE().fit(representation, y).score_samples(representation)
    # The additional images all have another class than the head predicts.
    more = {**arrays, "features": np.vstack([arrays["features"], random_arrays(seed + 1)["features"]])}
    wrong = np.random.default_rng(seed).choice(y, size=30)
    wrong = np.where(wrong == predicted_classes(more)[30:], predicted_classes(more)[:30], wrong)
    labels = np.append(y, wrong)
    kept = np.append(np.full(30, True), wrong != predicted_classes(more)[30:])
    more["features"], labels = more["features"][kept], labels[kept]
    np.testing.assert_allclose(
        SHE().fit(Representation.from_numpy(**more), labels).score_samples(representation), scores, rtol=1e-9
    )


def test_constant_features():
    arrays = {**random_arrays(), "features": np.full((30, 8), 0.1)}
    np.testing.assert_allclose(fit_and_score(SHE(), Representation.from_numpy(**arrays)), 0.08, rtol=1e-12)


def test_nan_logits_are_refused():
    representation = random_representation()
    y = predicted_classes({name: getattr(representation, name).numpy() for name in ("features", "weight", "bias")})
    scorer = SHE().fit(representation, y)
    # torch would predict the class of the NaN, so the score would not show it.
    representation.logits[2, y[2]] = np.nan
    with pytest.raises(ValueError, match="1 scores that are NaN or infinite, first in row 2"):
        scorer.score_samples(representation)
    others = SHE().fit(representation[[i for i in range(30) if i != 2]], np.delete(y, 2))
    np.testing.assert_allclose(SHE().fit(representation, y).patterns_, others.patterns_, rtol=1e-12)


def test_nan_features_in_fit():
    representation = random_representation()
    representation.features[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"representation\.features.* NaN"):
        SHE().fit(representation, cyclic_labels(representation))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float16, 2e-2), (np.float32, 1e-5)])
def test_narrow_types_agree(dtype, tolerance):
    scores = fit_and_score(SHE(), random_representation(dtype=dtype))
    np.testing.assert_allclose(scores, fit_and_score(SHE(), random_representation()), rtol=tolerance, atol=tolerance)


def test_classes_are_needed():
    with pytest.raises(ValueError, match=r"^y is None"):
        SHE().fit(random_representation())
