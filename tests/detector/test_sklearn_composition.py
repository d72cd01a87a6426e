"""The detector among scikit-learn's own tools."""

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone, is_classifier, is_outlier_detector
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import get_tags

from skdfb import DFBDetector, Trainer
from skdfb.fusion import TemperatureFusion
from skdfb.scorers import ODIN, Energy, ViM
from tests.detector.conftest import make_detector, make_images


def to_rgb(images):
    return images[..., ::-1]


def test_last_step_of_a_pipeline(fitted, X, y, X_new):
    pipeline = make_pipeline(FunctionTransformer(to_rgb), make_detector()).fit(X[..., ::-1], y)
    assert_array_equal(pipeline.predict(X_new[..., ::-1]), fitted.predict(X_new))
    assert_array_equal(pipeline.score_samples(X_new[..., ::-1]), fitted.score_samples(X_new))
    assert_array_equal(pipeline.decision_function(X_new[..., ::-1]), fitted.decision_function(X_new))
    assert pipeline.score(X[..., ::-1], y) == fitted.score(X, y)


def test_intermediate_step_of_a_pipeline(fitted, X, y, X_new):
    pipeline = make_pipeline(make_detector(), StandardScaler(), LogisticRegression()).fit(X, y)
    assert_array_equal(pipeline[0].transform(X_new), fitted.transform(X_new))
    assert pipeline.score(X, y) > 0.9
    names = pipeline[:-1].get_feature_names_out()
    assert list(names) == [f"dfb_feature{index}" for index in range(8)]


def test_feature_names_and_containers(fitted, X, y, X_new):
    pandas = pytest.importorskip("pandas")
    names = fitted.get_feature_names_out()
    assert names.dtype == object
    assert len(names) == fitted.transform(X_new[:1]).shape[1]
    detector = make_detector().set_output(transform="pandas").fit(X, y)
    frame = detector.transform(X_new)
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(names)
    assert_array_equal(frame.to_numpy(), fitted.transform(X_new))


def test_table_of_pixels_in_a_data_frame(X, y):
    pandas = pytest.importorskip("pandas")
    rows = pandas.DataFrame(X.reshape(len(X), -1)).rename(columns="pixel{}".format)
    detector = make_detector(image_shape=X.shape[1:]).fit(rows, pandas.Series(y))
    assert detector.feature_names_in_[0] == "pixel0"
    assert detector.predict(rows).shape == (len(X),)
    with pytest.raises(ValueError, match="feature names should match"):
        detector.predict(rows.rename(columns=str.upper))


def test_clone(fitted):
    twin = clone(fitted)
    assert twin.backbone is not fitted.backbone
    ours, theirs = fitted.get_params(), twin.get_params()
    assert list(ours) == list(theirs)
    assert {name: repr(value) for name, value in ours.items()} == {name: repr(value) for name, value in theirs.items()}


def test_tags(fitted):
    assert is_outlier_detector(fitted)
    assert not is_classifier(fitted)
    tags = get_tags(fitted)
    assert tags.estimator_type == "outlier_detector"
    assert tags.input_tags.two_d_array
    assert tags.input_tags.three_d_array
    assert not tags.target_tags.required
    assert not tags.input_tags.allow_nan
    assert tags.transformer_tags.preserves_dtype == []


def test_repr(fitted):
    assert repr(DFBDetector(scorer=ViM(n_components=3))) == "DFBDetector(scorer=ViM(n_components=3))"
    assert "DFBDetector" in fitted._repr_html_()


def test_nested_parameters():
    detector = make_detector(scorer=ODIN(), fusion=TemperatureFusion())
    changes = {
        "classifier_trainer__learning_rate": 0.5,
        "dense_trainer__max_steps": 3,
        "mask_generator__threshold": 0.3,
        "scorer__temperature": 10.0,
        "fusion__temperature": 1.5,
    }
    detector = clone(detector).set_params(**changes)
    found = detector.get_params()
    assert {name: found[name] for name in changes} == changes
    assert (detector.classifier_trainer.learning_rate, detector.mask_generator.threshold) == (0.5, 0.3)
    with pytest.raises(ValueError, match="Invalid parameter 'no_such'"):
        detector.set_params(scorer__no_such=1)


def test_nested_parameters_take_effect(fitted, X, y):
    detector = make_detector().set_params(dense_trainer=Trainer(), dense_trainer__max_steps=3)
    detector.set_params(scorer=ViM(), scorer__n_components=2, mask_generator__threshold=0.0)
    detector.fit(X, y)
    assert len(detector.training_history_["dense"]["loss"]) == 3
    assert detector.scorer_.n_components_ == 2
    # Threshold 0: no pixel is background, and the background is never the likeliest class.
    assert (detector.segment(X).argmax(-1) < 3).all()
    assert (fitted.segment(X).argmax(-1) == 3).any()


def test_grid_search(X, y):
    search = GridSearchCV(
        make_detector(scorer=ViM()),
        {"scorer__n_components": [2, 3], "mask_generator__threshold": [0.5]},
        cv=StratifiedKFold(2),
        error_score="raise",
    )
    # A fold holds out 10 images, which are too few for 5 %.
    search.set_params(estimator__alpha=0.1).fit(X, y)
    assert search.best_score_ > 0.5
    assert search.best_estimator_.scorer_.n_components_ == search.best_params_["scorer__n_components"]
    assert search.predict(X).shape == (len(X),)


def test_cross_val_score(X, y):
    scores = cross_val_score(make_detector(alpha=0.1), X, y, cv=KFold(2, shuffle=True, random_state=0))
    assert scores.shape == (2,)
    assert (scores > 0.5).all()


def test_decision_function_serves_scorers(fitted):
    """Known images +1, noise -1: scikit-learn's own metrics take the scores as they are."""
    noise = np.random.default_rng(0).integers(0, 256, size=(30, 16, 16, 3), dtype=np.uint8)
    images, truth = np.concatenate([make_images(30, seed=2)[0], noise]), np.repeat([1, -1], 30)
    auroc = roc_auc_score(truth, fitted.decision_function(images))
    assert auroc > 0.9
    assert make_scorer(roc_auc_score, response_method="decision_function")(fitted, images, truth) == auroc


@pytest.mark.parametrize("scorer", [None, Energy(), ODIN()], ids=["ViM", "Energy", "ODIN"])
def test_eight_threads_equal_one(fitted, X, y, scorer):
    detector = fitted if scorer is None else fitted.refit_scorer(scorer, X, y)
    images = make_images(64, seed=4)[0]
    expected = [detector.score_samples(images[i : i + 8]) for i in range(0, 64, 8)]
    jobs = (joblib.delayed(detector.score_samples)(images[i : i + 8]) for i in range(0, 64, 8))
    found = joblib.Parallel(n_jobs=8, prefer="threads")(jobs)
    assert_allclose(np.concatenate(found), np.concatenate(expected), atol=1e-5)
    assert not detector.dense_network_.training
