"""Detectors that were saved before the joint score was added give the same parts, scores and threshold.

The files in ``tests/data`` were written at that time, with the outputs of the detectors for 24 new images: as fitted,
and after ``refit_scorer(Mahalanobis(), X=X, y=y)``.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

import skdfb
from skdfb.scorers import Mahalanobis
from tests.detector.conftest import make_images
from tests.helpers import TinyBackbone

FOLDER = Path(__file__).parents[1] / "data"
X, y = make_images(240)
LABELS = np.array(["red", "green", "blue"])[y]
X_NEW = make_images(24, seed=9)[0]
NAMES = ("default", "paper", "two_networks")


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    path = FOLDER / f"before_joint_score_{request.param}"
    model = skdfb.load(path.with_suffix(".safetensors"), customs=[TinyBackbone], device="cpu")
    return model, json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))


def assert_same(detector, expected):
    parts = detector.score_parts(X_NEW)
    assert list(parts) == list(expected["parts"])
    for name, scores in expected["parts"].items():
        assert_allclose(parts[name], scores, rtol=1e-5, atol=1e-5)
    assert_allclose(detector.score_samples(X_NEW), expected["scores"], rtol=1e-5, atol=1e-5)
    assert_allclose(detector.offset_, expected["offset"], rtol=1e-5)
    assert_allclose(detector.score_foreground(X_NEW), expected["foreground"], rtol=1e-5, atol=1e-5)
    assert_allclose(detector.score_background(X_NEW), expected["background"], rtol=1e-5, atol=1e-5)
    assert_allclose(detector.p_values(X_NEW), expected["p_values"])
    assert_array_equal(detector.predict_open_set(X_NEW), expected["labels"])


def test_as_loaded(case):
    assert_same(case[0], case[1]["fitted"])


def test_refitted(case):
    detector, expected = case
    assert_same(detector.refit_scorer(X=X, y=LABELS), expected["fitted"])


def test_refitted_with_another_scorer(case):
    detector, expected = case
    scorer = Mahalanobis()
    if isinstance(detector.scorer, list):  # a part on each network
        scorer = [(name, view, Mahalanobis()) for name, view, _ in detector.scorer]
    assert_same(detector.refit_scorer(scorer, X, LABELS), expected["mahalanobis"])


def test_parameters_are_those_of_this_version(case):
    detector, _ = case
    assert set(detector.get_params(deep=False)) == set(skdfb.DFBDetector().get_params(deep=False))
    assert detector.classifier_trainer.checkpoint_every == 500


def test_attributes_are_those_of_this_version(case):
    detector, _ = case
    again = clone(detector).fit(X, LABELS)
    assert set(vars(again)) == set(vars(detector))
    assert set(vars(again.joint_score_)) == set(vars(detector.joint_score_))
    assert again.calibration_fraction_ == detector.calibration_fraction_
    assert [part[:2] for part in again.joint_score_.parts_] == [part[:2] for part in detector.joint_score_.parts_]


def test_saved_again(case, tmp_path):
    detector, expected = case
    detector.save(tmp_path / "again")
    assert_same(skdfb.load(tmp_path / "again", customs=[TinyBackbone], device="cpu"), expected["fitted"])
