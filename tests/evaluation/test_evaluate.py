"""evaluate must report what the methods of the detector and the metrics compute."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM
from torch.utils.data import TensorDataset

from skdfb import evaluation
from skdfb.detector import FeatureDetector
from skdfb.evaluation import LeaveClassesOut, left_out_auroc
from skdfb.evaluation._table import METRICS
from skdfb.fusion import TemperatureFusion
from skdfb.metrics import aupr_score, auroc_score, fpr_at_tpr, oscr_score
from skdfb.scorers import BackgroundLogit, Energy, Mahalanobis
from tests.detector.conftest import make_detector, make_images
from tests.evaluation.helpers import framed

evaluate = framed(evaluation.evaluate)

FIGURES = [*METRICS, "oscr", "accuracy", "id_rejected", "ood_rejected"]
COLUMNS = ["ood", "n_id", "n_ood", *FIGURES]
INTERVALS = [f"{name}_{end}" for name in FIGURES for end in ("low", "high")]


def gaussians(classes, seed, n=40):
    """Class k lies 3 along axis k."""
    rng = np.random.default_rng(seed)
    y = np.repeat(classes, n)
    X = rng.normal(size=(len(y), 8))
    X[np.arange(len(y)), y] += 3
    return X, np.asarray(["ape", "bee", "cat", "dog", "eel", "fox"])[y]


@pytest.fixture(scope="module")
def train():
    return gaussians([0, 1, 2], seed=0, n=80)


@pytest.fixture(scope="module")
def test():
    return gaussians([0, 1, 2], seed=1)


@pytest.fixture(scope="module")
def ood():
    return {"other": gaussians([4, 5], seed=2)[0], "far": 5 * gaussians([3], seed=3)[0]}


@pytest.fixture(scope="module")
def detector(train):
    return FeatureDetector(Mahalanobis(), calibration_fraction=0.3, alpha=0.2, random_state=0).fit(*train)


class FirstColumn(OutlierMixin, BaseEstimator):
    """Scores a row by its first column and records each call."""

    def __init__(self):
        self.calls = []

    def fit(self, X, y=None):
        return self

    def score_samples(self, X):
        self.calls.append(len(X))
        return np.asarray(X)[:, 0]

    def __sklearn_is_fitted__(self):
        return True


class FirstColumnClassifier(FirstColumn):
    """Predicts labels as well, by probabilities only."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        return np.asarray(X)[:, : len(self.classes_)]


def rows_of(table):
    return {row["ood"]: row for row in table.to_dict("records")}


def test_figures_are_those_of_the_detector_and_the_metrics(detector, test, ood):
    X, y = test
    table = evaluate(detector, X, ood, y, n_bootstrap=20, random_state=0)
    assert list(table.columns) == COLUMNS + INTERVALS
    assert list(table["ood"]) == ["other", "far"]
    for name, row in rows_of(table).items():
        scores = detector.score_samples(X), detector.score_samples(ood[name])
        expected = {
            "n_id": 120,
            "n_ood": len(ood[name]),
            "auroc": auroc_score(*scores),
            "aupr_in": aupr_score(*scores),
            "aupr_out": aupr_score(*scores, positive="ood"),
            "fpr95": fpr_at_tpr(*scores, tpr=0.95),
            "oscr": oscr_score(*scores, detector.classify(X) == y),
            "accuracy": np.mean(detector.classify(X) == y),
            "id_rejected": np.mean(detector.predict(X) == -1),
            "ood_rejected": np.mean(detector.predict(ood[name]) == -1),
        }
        assert {key: row[key] for key in expected} == expected
        assert 0 < row["oscr"] <= row["accuracy"] < 1
        assert 0 < row["id_rejected"] < 0.4 < row["ood_rejected"]


def test_intervals_hold_the_figures(detector, test, ood):
    table = evaluate(detector, test[0], ood, test[1], random_state=0)
    for name in FIGURES:
        assert (table[f"{name}_low"] <= table[name]).all()
        assert (table[name] <= table[f"{name}_high"]).all()
    row = rows_of(table)["other"]
    for name in ("accuracy", "id_rejected", "ood_rejected"):
        n = row["n_ood"] if name == "ood_rejected" else row["n_id"]
        width = 2 * 1.96 * np.sqrt(row[name] * (1 - row[name]) / n)
        assert row[f"{name}_high"] - row[f"{name}_low"] == pytest.approx(width, rel=0.25)


def test_confidence_and_number_of_resamples(detector, test, ood):
    other = {"other": ood["other"]}
    narrow, wide = (evaluate(detector, test[0], other, confidence=c, random_state=0) for c in (0.5, 0.99))
    assert (narrow["auroc_low"] > wide["auroc_low"]).all()
    assert (narrow["auroc_high"] < wide["auroc_high"]).all()
    assert list(evaluate(detector, test[0], ood, n_bootstrap=0).columns) == COLUMNS


def test_random_state(detector, test, ood):
    first, again, other = (evaluate(detector, *(test[0], ood, test[1]), random_state=seed) for seed in (0, 0, 1))
    assert first.equals(again)
    assert not first[INTERVALS].equals(other[INTERVALS])
    assert first[COLUMNS].equals(other[COLUMNS])


def test_a_row_does_not_depend_on_the_other_sets(detector, test, ood):
    table = evaluate(detector, test[0], ood, test[1], random_state=0)
    (alone,) = rows_of(evaluate(detector, test[0], {"far": ood["far"]}, test[1], random_state=0)).values()
    assert rows_of(table)["far"] == alone
    assert table[["accuracy_low", "id_rejected_high"]].nunique().tolist() == [1, 1]


def test_both_sides_are_resampled_apart(test):
    (row,) = evaluate(FirstColumn(), test[0], {"same": test[0]}, random_state=0).to_dict("records")
    assert row["auroc"] == 0.5
    assert row["auroc_low"] < 0.46
    assert row["auroc_high"] > 0.54


def test_each_set_is_scored_once(test, ood):
    detector = FirstColumn()
    evaluate(detector, test[0], ood, n_bootstrap=5)
    assert detector.calls == [len(test[0]), len(ood["other"]), len(ood["far"])]


def test_the_images_detector_passes_over_each_set_once():
    X, y = make_images(80)
    detector = make_detector(
        scorer=Energy(), background_scorer=BackgroundLogit(), fusion=TemperatureFusion(), alpha=0.1, batch_size=16
    ).set_params(classifier_trainer__max_steps=3, dense_trainer__max_steps=3)
    detector.fit(X, y)
    X_id, y_id = make_images(40, seed=1)
    noise = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    n_seen = []
    handle = detector.dense_network_.feature_map.register_forward_pre_hook(
        lambda module, inputs: n_seen.append(len(inputs[0]))
    )
    (row,) = evaluate(detector, X_id, {"noise": noise}, y_id, n_bootstrap=5).to_dict("records")
    handle.remove()
    assert sum(n_seen) == 64
    assert row["accuracy"] == detector.score(X_id, y_id)
    assert row["auroc"] == auroc_score(detector.score_samples(X_id), detector.score_samples(noise))
    assert row["id_rejected"] == np.mean(detector.predict(X_id) == -1)


@pytest.mark.parametrize(
    "estimator", [IsolationForest(random_state=0), EllipticEnvelope(random_state=0), OneClassSVM(nu=0.2)], ids=repr
)
@pytest.mark.parametrize("wrap", [lambda e: e, lambda e: make_pipeline(StandardScaler(), e)], ids=["bare", "pipeline"])
def test_detectors_of_scikit_learn(train, test, ood, estimator, wrap):
    fitted = wrap(estimator).fit(train[0])
    row = rows_of(evaluate(fitted, test[0], ood, n_bootstrap=5, random_state=0))["far"]
    assert row["auroc"] == auroc_score(fitted.score_samples(test[0]), fitted.score_samples(ood["far"]))
    assert row["id_rejected"] == np.mean(fitted.predict(test[0]) == -1) > 0
    assert row["ood_rejected"] == np.mean(fitted.predict(ood["far"]) == -1) > 0
    ends = ("", "_low", "_high")
    assert np.isnan([row[f"{name}{end}"] for name in ("oscr", "accuracy") for end in ends]).all()


def test_pipelines_and_searches_are_what_they_end_in(train, test, ood):
    X, y = train
    detector = FeatureDetector(Mahalanobis(), calibration_fraction=0.3, random_state=0)
    pipeline = make_pipeline(StandardScaler(), make_pipeline(StandardScaler(with_mean=False), detector)).fit(X, y)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), detector),
        {"featuredetector__alpha": [0.2]},
        cv=LeaveClassesOut(3, random_state=0),
        scoring=left_out_auroc,
    ).fit(X, y)
    alone = make_pipeline(detector).fit(X, y)
    for fitted in (pipeline, search, alone):
        for name, row in rows_of(evaluate(fitted, test[0], ood, test[1], n_bootstrap=0)).items():
            assert row["auroc"] == auroc_score(fitted.score_samples(test[0]), fitted.score_samples(ood[name]))
            assert row["ood_rejected"] == np.mean(fitted.predict(ood[name]) == -1)
            labels = fitted.classes_[fitted.predict_proba(test[0]).argmax(1)]
            assert row["accuracy"] == np.mean(labels == test[1])


def test_a_pipeline_transforms_each_set_once(test, ood):
    counted = FirstColumn()
    counted.transform = lambda X: counted.calls.append(len(X)) or X
    evaluate(make_pipeline(counted, FirstColumn()), test[0], ood, n_bootstrap=0)
    assert counted.calls == [len(test[0]), len(ood["other"]), len(ood["far"])]


def test_decisions_have_the_threshold_0(train, test, ood):
    binary = LogisticRegression().fit(train[0], train[1] == "ape")
    row = rows_of(evaluate(binary, test[0], ood, n_bootstrap=0))["other"]
    assert row["ood_rejected"] == np.mean(binary.decision_function(ood["other"]) < 0)


def test_no_threshold(train, test, ood):
    table = evaluate(KernelDensity().fit(train[0]), test[0], ood, n_bootstrap=5)
    assert table[["id_rejected", "ood_rejected", "id_rejected_low", "ood_rejected_high"]].isna().all(axis=None)
    assert (table["auroc"] > 0.8).all()


def test_a_score_at_the_threshold_is_accepted(test):
    detector = FirstColumn()
    detector.offset_ = 2.0
    columns = np.array([[1.0], [2.0], [3.0]])
    table = evaluate(detector, columns, {"same": columns - 1}, n_bootstrap=0)
    assert table[["id_rejected", "ood_rejected"]].to_numpy().tolist() == [[1 / 3, 2 / 3]]


def test_infinite_scores_and_threshold():
    detector = FirstColumn()
    detector.offset_ = -np.inf
    columns = np.array([[-np.inf], [np.inf], [3.0]])
    (row,) = evaluate(detector, columns, {"same": columns}, n_bootstrap=5).to_dict("records")
    assert row["auroc"] == 0.5
    assert row["id_rejected"] == row["ood_rejected"] == row["ood_rejected_high"] == 0


def test_labels_from_probabilities(ood):
    X = np.array([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.2, 0.3, 0.5], [0.6, 0.4, 0.0]])
    detector = FirstColumnClassifier().fit(X, ["b", "a", "c", "a"])
    assert evaluate(detector, X, ood, ["a", "b", "c", "b"], n_bootstrap=0)["accuracy"].tolist() == [3 / 4] * 2


@pytest.mark.parametrize(
    ("y", "error", "match"),
    [
        (["ape"] * 3, ValueError, "X_id has 120 images and y_id has 3 labels: expected one label per image"),
        (
            ["ape"] * 119 + ["yak"],
            ValueError,
            "y_id: .*'ape', 'bee', 'cat', but 1 of 120 labels are not: 'yak'.*OOD",
        ),
        ([1] * 120, ValueError, "120 of 120 labels are not: 1"),
    ],
)
def test_bad_labels(detector, test, ood, y, error, match):
    with pytest.raises(error, match=match):
        evaluate(detector, test[0], ood, y)


def test_labels_are_not_compared_as_text(test, ood):
    detector = FirstColumnClassifier().fit(
        None, [str(k) for k in range(40)]
    )  # np.isin compares as text from some number on
    with pytest.raises(ValueError, match="120 of 120 labels are not: 0"):
        evaluate(detector, test[0], ood, np.zeros(120, dtype=int))
    assert detector.calls == []


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"ood": np.zeros((3, 8))}, TypeError, "ood is a ndarray: expected OOD images by name"),
        ({"ood": {}}, TypeError, "ood is empty"),
        ({"n_bootstrap": -1}, ValueError, "n_bootstrap == -1, must be >= 0"),
        ({"n_bootstrap": 1.5}, TypeError, "n_bootstrap must be an instance of int"),
        ({"confidence": 1.0}, ValueError, "confidence == 1.0, must be < 1"),
        ({"confidence": 0}, ValueError, "confidence == 0, must be > 0"),
        ({"random_state": "a"}, ValueError, "cannot be used to seed"),
        (
            {"y_id": ["ape"] * 120},
            TypeError,
            r"FirstColumn\(\) has neither classify nor .*: expected y_id=None",
        ),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_scored(test, ood, changes, error, match):
    detector = FirstColumn()
    with pytest.raises(error, match=match):
        evaluate(**{"detector": detector, "X_id": test[0], "ood": ood} | changes)
    assert detector.calls == []


def test_bad_detectors_and_scores(train, test, ood):
    with pytest.raises(TypeError, match="neither score_samples nor decision_function: expected a detector"):
        evaluate(Ridge(), test[0], ood)
    three = LogisticRegression().fit(*train)
    with pytest.raises(ValueError, match=r"scores of X_id has shape \(120, 3\)"):
        evaluate(three, test[0], ood)
    with pytest.raises(ValueError, match=r"scores of ood\['far'\] holds 1 NaN"):
        evaluate(FirstColumn(), test[0], {"far": np.array([[np.nan], [1.0]])})


def test_a_dataset_is_a_set_of_images(ood):
    class OfDataset(FirstColumnClassifier):
        def score_samples(self, X):
            return np.asarray([float(item[0]) for item in X])

        def classify(self, X):
            return np.asarray([int(item[0] > 1) for item in X])

    data = TensorDataset(torch.arange(4.0))
    detector = OfDataset().fit(None, [0, 1])
    table = evaluate(detector, data, {"same": data}, [0, 0, 1, 0], n_bootstrap=0)
    assert_array_equal(table[["auroc", "accuracy"]].to_numpy(), [[0.5, 0.75]])
