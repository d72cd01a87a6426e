"""A fitted detector that is adjusted: another alpha, and parameters that change nothing before the next fit."""

import logging

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import skdfb
from skdfb import CAMMaskGenerator, Trainer
from skdfb.detector import FeatureDetector
from skdfb.fusion import TailProbabilityFusion, TemperatureFusion
from skdfb.scorers import KNN, BackgroundLogit, Energy, Mahalanobis
from tests.detector.conftest import SIDE, make_detector, make_images
from tests.helpers import TinyBackbone


@pytest.fixture(scope="module")
def several(X, y):
    """The default parts, with enough held-out images for several alphas."""
    return make_detector(background_scorer=None, fusion=None, alpha=0.1, calibration_fraction=0.5).fit(X, y)


@pytest.fixture(scope="module")
def loaded(several, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "detector.safetensors"
    several.save(path)
    return skdfb.load(path, customs=[TinyBackbone], device="cpu")


@pytest.mark.parametrize("name", ["several", "loaded"])
def test_with_alpha(name, request, X_new):
    detector = request.getfixturevalue(name)
    scores, offset = detector.score_samples(X_new), detector.offset_
    for alpha in (0.1, 0.2, 0.4):
        other = detector.with_alpha(alpha)
        assert other.alpha == other.get_params()["alpha"] == alpha
        assert_array_equal(other.score_samples(X_new), scores)
        assert_array_equal(other.p_values(X_new), detector.p_values(X_new))
        assert_array_equal(other.predict(X_new) == -1, detector.p_values(X_new) <= alpha)
        assert_array_equal(other.decision_function(X_new), scores - other.offset_)
    assert detector.with_alpha(0.4).offset_ > detector.with_alpha(0.1).offset_
    assert (detector.alpha, detector.offset_) == (0.1, offset)
    assert detector.with_alpha(None).predict(X_new).min() == 1
    with pytest.raises(ValueError, match=r"held-out scores are too few for alpha=0\.001: expected at least 999"):
        detector.with_alpha(0.001)


def test_with_alpha_is_saved(several, tmp_path, X_new):
    several.with_alpha(0.3).save(tmp_path / "other")
    other = skdfb.load(tmp_path / "other", customs=[TinyBackbone], device="cpu")
    assert other.alpha == 0.3
    assert_array_equal(other.predict(X_new), several.with_alpha(0.3).predict(X_new))


def test_with_alpha_of_features():
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(300, 6)), np.arange(300) % 3
    detector = FeatureDetector(KNN(), random_state=0).fit(rows, labels)
    other = detector.with_alpha(0.2)
    assert_array_equal(other.score_samples(rows), detector.score_samples(rows))
    assert (other.predict(rows) == -1).sum() > (detector.predict(rows) == -1).sum()
    refitted = FeatureDetector(KNN(), alpha=0.2, calibration_fraction=0.1, random_state=0).fit(rows, labels)
    assert other.offset_ == refitted.offset_


# Something else for every parameter of the detector.
OTHERS = {
    "backbone": TinyBackbone(width=4),
    "scorer": KNN(),
    "background_scorer": [BackgroundLogit(), Mahalanobis()],
    "fusion": TailProbabilityFusion("fisher"),
    "mask_generator": CAMMaskGenerator(threshold=0.1),
    "classifier_trainer": Trainer(max_steps=1),
    "dense_trainer": Trainer(max_steps=1),
    "image_size": SIDE * 2,
    "image_shape": (SIDE, SIDE, 3),
    "alpha": 0.3,
    "calibration_fraction": 0.2,
    "checkpoint_dir": "elsewhere",
    "batch_size": 5,
    "device": "cpu",
    "n_jobs": 2,
    "on_error": "nan",
    "random_state": 9,
    "verbose": 1,
}


@pytest.mark.parametrize("name", make_detector().get_params(deep=False))
def test_set_params_after_fit_changes_no_result(name, X, y, X_new):
    detector = make_detector(scorer=Energy(), fusion=TemperatureFusion(), background_scorer=BackgroundLogit()).fit(X, y)
    expected = [method(detector, X_new) for method in RESULTS]
    detector.set_params(**{name: OTHERS[name]})
    for method, result in zip(RESULTS, expected, strict=True):
        np.testing.assert_allclose(method(detector, X_new), result, rtol=1e-5, atol=1e-6)


RESULTS = [
    lambda detector, images: detector.score_samples(images),
    lambda detector, images: detector.predict(images),
    lambda detector, images: detector.p_values(images),
    lambda detector, images: detector.predict_proba(images),
    lambda detector, images: detector.segment(images),
    lambda detector, images: detector.offset_,
]


def test_nested_parameters_after_fit_change_no_result(X, y, X_new):
    parts = [BackgroundLogit(), Mahalanobis(shrinkage=0.3)]
    detector = make_detector(
        scorer=KNN(n_neighbors=3), background_scorer=parts, fusion=TailProbabilityFusion(), alpha=0.2
    )
    expected = detector.fit(X, y).score_samples(X_new)
    detector.set_params(scorer__n_neighbors=9, background_mahalanobis__shrinkage=0.9, fusion__rule="fisher")
    assert_array_equal(detector.score_samples(X_new), expected)
    assert np.abs(detector.fit(X, y).score_samples(X_new) - expected).max() > 0


def test_image_shape_of_rows_is_that_of_fit(X, y, X_new):
    rows, new = X.reshape(len(X), -1), X_new.reshape(len(X_new), -1)
    detector = make_detector(scorer=Energy(), image_shape=(SIDE, SIDE, 3)).fit(rows, y)
    expected = detector.score_samples(new)
    detector.set_params(image_shape=(SIDE, SIDE * 3))
    assert_array_equal(detector.score_samples(new), expected)


# ------------------------------------------------------------------- small data


@pytest.mark.parametrize(("n", "held_out"), [(240, 29), (400, 40), (60, 29)])
def test_small_data_gets_a_finite_threshold(n, held_out, caplog):
    """alpha=0.05 and 240 images: a tenth would be 24, and 29 are needed."""
    few = Trainer(max_steps=2, batch_size=16)
    images, labels = make_images(n)
    detector = make_detector(
        background_scorer=None, fusion=None, calibration_fraction="auto", classifier_trainer=few, dense_trainer=few,
        scorer=Energy(),
    )  # fmt: skip
    with caplog.at_level(logging.INFO, "skdfb"):
        detector.fit(images, labels)
    assert len(detector._split_.held_out) == held_out
    assert detector.calibration_fraction_ == held_out / n
    assert np.isfinite(detector.offset_)
    assert (f"{held_out} of {n} images" in caplog.text) == (held_out > n / 10)


def test_too_small_data_is_refused_with_what_helps(X, y):
    detector = make_detector(background_scorer=None, fusion=None, calibration_fraction="auto")
    with pytest.raises(ValueError, match=r"25 of 50 images .* needs at least 29: .*alpha=0\.063, or alpha=None"):
        detector.fit(X[:50], y[:50])
    assert np.isfinite(detector.set_params(alpha=0.063).fit(X[:50], y[:50]).offset_)
    assert detector.set_params(alpha=None).fit(X[:50], y[:50]).offset_ == -np.inf
