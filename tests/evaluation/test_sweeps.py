"""The sweeps must return the results of joining scores and of fitting detectors by hand."""

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import Dataset, TensorDataset

from skdfb.detector import FeatureDetector
from skdfb.evaluation import Table, class_accuracy, class_count_sweep, compare_scorers, evaluate, temperature_sweep
from skdfb.evaluation._table import METRICS
from skdfb.fusion import TemperatureFusion
from skdfb.images import Images, as_images
from skdfb.metrics import aupr_score, auroc_score, fpr_at_tpr
from skdfb.scorers import MSP, BackgroundLogit, Energy, Mahalanobis
from tests.detector.conftest import make_detector, make_images

# ------------------------------------------------------------- temperatures


class PartsOnly(BaseEstimator):
    """A fitted detector whose parts are the columns of X, with the views that their names start with."""

    def __init__(self, names=("foreground", "background"), scorer=None, views=None):
        self.names = names
        self.scorer = scorer
        self.views = views
        self.calls = []
        views = views or ["background" if name.startswith("background") else "dense" for name in names]
        parts = list(zip(names, views, (Energy() if scorer is None else scorer for _ in names), strict=True))
        self.joint_score_ = SimpleNamespace(parts_=parts)
        self.part_scorers_ = {name: scorer for name, _, scorer in parts}

    def fit(self, X, y=None):
        return self

    def score_parts(self, X):
        self.calls.append(len(X))
        return dict(zip(self.names, np.asarray(X, dtype=float).T, strict=True))

    def __sklearn_is_fitted__(self):
        return True


def columns(n, shift, seed, n_columns=2):
    return np.random.default_rng(seed).normal(shift, 2, (n, n_columns))


@pytest.fixture
def known():
    return columns(60, 1, 0, 4)


@pytest.fixture
def unknown():
    return {"near": columns(50, 0.5, 1, 4), "far": columns(40, -2, 2, 4)}


def records_of(table):
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def assert_equal_tables(first, second):
    assert list(first) == list(second)
    for name in first:
        assert_array_equal(first[name], second[name])


def by_hand(known, unknown, join):
    """Return the metrics of scores that are joined image by image."""
    scores = [np.asarray([join(*row) for row in X]) for X in (known, unknown)]
    return {
        "auroc": auroc_score(*scores),
        "aupr_in": aupr_score(*scores),
        "aupr_out": aupr_score(*scores, positive="ood"),
        "fpr95": fpr_at_tpr(*scores, tpr=0.95),
    }


def log_softplus(s):
    return np.log(np.log1p(np.exp(s)))


EQ_7 = {
    "logit": (Energy(), lambda T: lambda f, b: f + b / T),
    "log_probability": (MSP(), lambda T: lambda f, b: np.exp(f) + log_softplus(b) / T),
}


@pytest.mark.parametrize("output", EQ_7)
def test_temperatures_by_hand(known, unknown, output):
    scorer, joined_at = EQ_7[output]
    detector = PartsOnly(scorer=scorer)
    known, unknown = known[:, :2], {name: X[:, :2] for name, X in unknown.items()}
    table = temperature_sweep(detector, known, unknown, temperatures=[0.5, 2.5, 40])
    assert list(table) == ["temperature", "ood", *METRICS]
    assert table["temperature"].tolist() == [0.5, 0.5, 2.5, 2.5, 40, 40]
    assert table["ood"].tolist() == ["near", "far"] * 3
    for row in records_of(table):
        expected = by_hand(known, unknown[row["ood"]], joined_at(row["temperature"]))
        assert {name: row[name] for name in METRICS} == pytest.approx(expected, abs=1e-12)
    assert len(set(table.auroc[table.ood == "near"])) == 3


def test_each_set_is_scored_once(known, unknown):
    detector = PartsOnly()
    temperature_sweep(detector, known[:, :2], {name: X[:, :2] for name, X in unknown.items()})
    assert detector.calls == [60, 50, 40]


def test_default_temperatures_contain_that_of_the_paper(known, unknown):
    table = temperature_sweep(PartsOnly(), known[:, :2], {"far": unknown["far"][:, :2]})
    assert table["temperature"].tolist() == [1, 1.5, 2, 2.5, 3, 4, 5]


@pytest.mark.parametrize(
    ("names", "parts", "chosen"),
    [
        (["foreground", "background_mahalanobis", "background_logit"], None, [0, 2]),
        (["background_logit", "background_knn", "foreground"], None, [2, 0]),
        (["foreground_plain", "foreground_dense", "background"], None, [1, 2]),
        (["foreground_plain", "background_knn"], None, [0, 1]),
        (["foreground", "background_logit", "background_knn"], ("foreground", "background_knn"), [0, 2]),
        (["foreground_dense", "foreground_plain", "background"], ["foreground_plain", "background"], [1, 2]),
    ],
)
def test_parts(known, unknown, names, parts, chosen):
    n = len(names)
    detector = PartsOnly(names, scorer=Energy())
    table = temperature_sweep(detector, known[:, :n], {"far": unknown["far"][:, :n]}, [2.0], parts=parts)
    expected = temperature_sweep(PartsOnly(), known[:, chosen], {"far": unknown["far"][:, chosen]}, [2.0])
    assert_equal_tables(table, expected)


def test_views_decide_which_parts_are_background_parts(known, unknown):
    """The name of a part may be any word."""
    detector = PartsOnly(["near", "surroundings"], views=["classifier", "background"])
    known, unknown = known[:, :2], {"far": unknown["far"][:, :2]}
    expected = temperature_sweep(PartsOnly(), known, unknown, [2.0])
    assert_equal_tables(temperature_sweep(detector, known, unknown, [2.0]), expected)
    parts = ("near", "surroundings")
    assert_equal_tables(temperature_sweep(detector, known, unknown, [2.0], parts=parts), expected)
    with pytest.raises(ValueError, match=r"'surroundings' is not a foreground part .*: expected one of \['near'\]"):
        temperature_sweep(detector, known, unknown, parts=("surroundings", "near"))


@pytest.mark.parametrize("chosen", EQ_7)
def test_the_output_kind_is_that_of_the_chosen_part(known, unknown, chosen):
    """Of several foreground parts, each has a scorer of its own."""
    detector = PartsOnly(["logit", "log_probability", "background"], views=["dense", "classifier", "background"])
    detector.part_scorers_ = {"logit": Energy(), "log_probability": MSP(), "background": BackgroundLogit()}
    parts = (chosen, "background")
    table = temperature_sweep(detector, known[:, :3], {"far": unknown["far"][:, :3]}, [3.0], parts=parts)
    columns_of_parts = [detector.names.index(name) for name in parts]
    _, joined_at = EQ_7[chosen]
    expected = by_hand(known[:, columns_of_parts], unknown["far"][:, columns_of_parts], joined_at(3.0))
    (row,) = records_of(table)
    assert {name: row[name] for name in METRICS} == pytest.approx(expected, abs=1e-12)


def test_temperatures_of_a_fitted_detector():
    X, y = make_images(80)
    detector = make_detector(scorer=Energy(), fusion=TemperatureFusion(), alpha=0.1).set_params(
        classifier_trainer__max_steps=3, dense_trainer__max_steps=3
    )
    detector.fit(X, y)
    X_id, _ = make_images(30, seed=1)
    noise = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    table = temperature_sweep(detector, X_id, {"noise": noise}, [1.0, 2.5])
    assert table.auroc[1] == auroc_score(detector.score_samples(X_id), detector.score_samples(noise))  # T = 2.5
    other = detector.refit_scorer(fusion=TemperatureFusion(1.0))
    assert table.auroc[0] == auroc_score(other.score_samples(X_id), other.score_samples(noise))
    with pytest.raises(NotFittedError):
        temperature_sweep(make_detector(), X_id, {"noise": noise})


@pytest.mark.parametrize(
    ("names", "parts", "match"),
    [
        (
            ["foreground", "background_knn", "background_vim"],
            None,
            r"parts is None, but .*'background_knn'.*: expected one of each; pass parts=\(foreground, background\)",
        ),
        (["foreground_a", "foreground_b", "background"], None, "parts is None"),
        (
            ["foreground", "foreground_b"],
            None,
            r"parts is None, but the detector has the foreground parts \['foreground', 'foreground_b'\] .* \[\]:",
        ),
        (["foreground", "background"], ("foreground",), "name of a foreground part and that of a background part"),
        (["foreground", "background"], "fb", "name of a foreground part and that of a background part"),
        (
            ["foreground", "background"],
            ("background", "foreground"),
            r"'background' is not a foreground part .*: expected one of \['foreground'\]",
        ),
        (
            ["foreground", "background"],
            ("foreground", "background_logit"),
            "'background_logit' is not a background part",
        ),
    ],
)
def test_bad_parts(known, unknown, names, parts, match):
    n = len(names)
    detector = PartsOnly(names)
    with pytest.raises(ValueError, match=match):
        temperature_sweep(detector, known[:, :n], {"far": unknown["far"][:, :n]}, parts=parts)
    assert detector.calls == []


@pytest.mark.parametrize(
    ("temperatures", "error", "match"),
    [
        ([1.0, 0.0], ValueError, r"temperatures=\[1.0, 0.0\] has 0.0: expected finite numbers above 0"),
        ([-1], ValueError, "has -1: expected finite numbers"),
        ([np.inf], ValueError, "has inf: expected finite numbers"),
        ([np.nan], ValueError, "has nan: expected finite numbers"),
        (["1"], ValueError, "has '1': expected finite numbers"),
        ([], TypeError, r"temperatures=\[\]: expected a list of numbers"),
        (2.5, TypeError, "temperatures=2.5: expected a list of numbers"),
        ("2", TypeError, "temperatures='2': expected a list of numbers"),
    ],
)
def test_bad_temperatures(known, unknown, temperatures, error, match):
    detector = PartsOnly()
    with pytest.raises(error, match=match):
        temperature_sweep(detector, known, unknown, temperatures)
    assert detector.calls == []


def test_other_bad_arguments(known, unknown):
    with pytest.raises(TypeError, match="ood is a list"):
        temperature_sweep(PartsOnly(), known, list(unknown))
    with pytest.raises(TypeError, match=r"has no score_parts.*DFBDetector"):
        temperature_sweep(IsolationForest(), known, unknown)


def test_arrays_and_pipelines(known, unknown):
    known, unknown = known[:, :2], {name: X[:, :2] for name, X in unknown.items()}
    pipeline = make_pipeline(StandardScaler().fit(known), PartsOnly())
    scaled = {name: pipeline[0].transform(X) for name, X in unknown.items()}
    expected = temperature_sweep(PartsOnly(), pipeline[0].transform(known), scaled, [1.0, 3.0])
    assert_equal_tables(temperature_sweep(pipeline, known, unknown, np.array([1.0, 3.0])), expected)


# -------------------------------------------------------- number of classes

N_CLASSES = 6


def gaussians(classes, seed, n):
    """Class k lies 4 along axis k."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(classes, n))
    X = rng.normal(size=(len(y), 8))
    X[np.arange(len(y)), y] += 4
    return X, y


@pytest.fixture(scope="module")
def train():
    return gaussians(range(N_CLASSES), seed=0, n=40)


@pytest.fixture(scope="module")
def test():
    return gaussians(range(N_CLASSES), seed=1, n=15)


@pytest.fixture(scope="module")
def other():
    return {"other": gaussians([6, 7], seed=2, n=20)[0], "noise": 3 * gaussians([6], seed=3, n=25)[0]}


def feature_detector(**changes):
    return FeatureDetector(Mahalanobis(), calibration_fraction=0.5, alpha=0.1, **changes)


def rows_of(X):
    """Return the rows of numbers of X, in any of the forms that are tested."""
    if isinstance(X, Images):
        return X.read(np.arange(len(X)))[:, 0, 0].numpy()
    return np.stack([item[0] for item in X]) if isinstance(X, Dataset) else np.asarray(X)


class Recorder(OutlierMixin, BaseEstimator):
    """Records number of images, classes and random_state of each fit, and scores by the mean of a row."""

    fits: ClassVar[list] = []

    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, X, y=None):
        assert not hasattr(self, "fitted_")  # each fit has its own clone
        self.fits.append((len(X), tuple(np.unique(y).tolist()), self.random_state))
        self.fitted_ = True
        return self

    def score_samples(self, X):
        return rows_of(X).mean(1)


@pytest.fixture
def recorder():
    Recorder.fits = []
    return Recorder()


def test_rows_are_those_of_detectors_fitted_by_hand(train, test, other, recorder):
    class_count_sweep(recorder, *train, *test, other, counts=[2, 5], random_state=0)
    # The same classes for every estimator.
    table = class_count_sweep(feature_detector(random_state=3), *train, *test, other, counts=[2, 5], random_state=0)
    assert list(zip(table.n_classes, table.repeat, table.ood, strict=True)) == [
        (2, 0, "other"),
        (2, 0, "noise"),
        (5, 0, "other"),
        (5, 0, "noise"),
    ]
    expected = []
    for _, classes, _ in recorder.fits:
        chosen_train, chosen_test = (np.isin(y, classes) for _, y in (train, test))
        fitted = feature_detector(random_state=3).fit(train[0][chosen_train], train[1][chosen_train])
        expected.append(evaluate(fitted, test[0][chosen_test], other, test[1][chosen_test], n_bootstrap=0))
    assert list(table) == ["n_classes", "repeat", *expected[0]]
    for name in expected[0]:
        assert_array_equal(table[name], np.concatenate([part[name] for part in expected]))
    assert table["n_id"].tolist() == [30, 30, 75, 75]
    assert ((table.accuracy >= 0.5) & (table.accuracy <= 1)).all()


def test_smaller_sets_are_subsets_of_larger_ones(train, test, other, recorder):
    class_count_sweep(recorder, *train, *test, other, counts=[4, 2, 6, 3], n_repeats=3, random_state=0)
    drawn = [set(classes) for _, classes, _ in recorder.fits]
    assert [len(classes) for classes in drawn] == [4, 2, 6, 3] * 3
    for four, two, six, three in (drawn[:4], drawn[4:8], drawn[8:]):
        assert two < three < four < six == set(range(N_CLASSES))
    assert [n for n, _, _ in recorder.fits] == [160, 80, 240, 120] * 3
    assert len({frozenset(classes) for classes in drawn[1::4]}) > 1


def test_random_state(train, test, other, recorder):
    def fits_of(estimator, **arguments):
        Recorder.fits = []
        table = class_count_sweep(estimator, *train, *test, other, counts=[2, 3], **arguments)
        return Recorder.fits, table

    first, table = fits_of(recorder, n_repeats=2, random_state=0)
    again, table_again = fits_of(recorder, n_repeats=2, random_state=0)
    assert first == again
    assert_equal_tables(table, table_again)
    seeds = [seed for _, _, seed in first]
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3]
    assert all(isinstance(seed, int) for seed in seeds)
    assert recorder.random_state is None
    assert not hasattr(recorder, "fitted_")
    # A seed that is set stays, and the classes are the same. Fewer repeats are the first ones of more repeats.
    fixed, _ = fits_of(Recorder(random_state=7), n_repeats=2, random_state=0)
    assert [seed for _, _, seed in fixed] == [7] * 4
    assert [classes for _, classes, _ in fixed] == [classes for _, classes, _ in first]
    one, _ = fits_of(recorder, random_state=0)
    assert one == first[:2]
    assert fits_of(recorder, n_repeats=2, random_state=1)[0] != first
    nested, _ = fits_of(make_pipeline(StandardScaler(), recorder), random_state=0)
    assert all(isinstance(seed, int) for _, _, seed in nested)


def test_labels_of_any_type(train, test, other):
    names = np.asarray(["ape", "bee", "cat", "dog", "eel", "fox"])
    arguments = {"counts": [3, 6], "n_repeats": 2, "random_state": 0}
    expected = class_count_sweep(feature_detector(), *train, *test, other, **arguments)
    for y, y_test in (
        (names[train[1]], names[test[1]]),
        (names[train[1]].astype(object), names[test[1]].tolist()),
        (train[1] * 7 - 3, test[1] * 7 - 3),
    ):
        table = class_count_sweep(feature_detector(), train[0], y, test[0], y_test, other, **arguments)
        assert_equal_tables(table, expected)


def test_test_images_of_other_labels_are_ignored(train, test, other):
    arguments = {"counts": [3, 6], "random_state": 0}
    X_test, y_test = np.concatenate([test[0], other["other"]]), np.concatenate([test[1], np.full(40, 77)])
    expected = class_count_sweep(feature_detector(), *train, *test, other, **arguments)
    table = class_count_sweep(feature_detector(), *train, X_test, y_test, other, **arguments)
    assert_equal_tables(table, expected)


@pytest.mark.parametrize(
    "form",
    [list, pd.DataFrame, torch.as_tensor, lambda X: as_images((X[:, None, :, None] + 20) / 40)],
    ids=["list", "frame", "tensor", "images"],
)
def test_forms_of_images(train, test, other, recorder, form):
    expected = class_count_sweep(recorder, *train, *test, other, counts=[2], random_state=0)
    others = {name: form(X) for name, X in other.items()}
    (X, y), (X_test, y_test) = train, test
    found = class_count_sweep(recorder, form(X), y, form(X_test), y_test, others, counts=[2], random_state=0)
    assert found["auroc"].tolist() == pytest.approx(expected["auroc"].tolist(), abs=1e-4)
    assert Recorder.fits[0] == Recorder.fits[1]


def test_labels_of_datasets(train, test, other, recorder):
    def as_dataset(X, y):
        return TensorDataset(torch.as_tensor(X), torch.as_tensor(y))

    expected = class_count_sweep(recorder, *train, *test, other, counts=[2, 4], random_state=0)
    table = class_count_sweep(
        recorder, as_dataset(*train), None, as_dataset(*test), None, other, counts=[2, 4], random_state=0
    )
    assert_equal_tables(table, expected)
    assert Recorder.fits[:2] == Recorder.fits[2:]


def test_estimators_that_do_not_classify(train, test, other):
    table = class_count_sweep(
        make_pipeline(StandardScaler(), IsolationForest(n_estimators=5)), *train, *test, other, [2, 6], random_state=0
    )
    assert np.isnan(table.accuracy).all()
    assert np.isfinite([table.auroc, table.ood_rejected]).all()


def test_scorers_on_the_detector_of_images():
    (X, y), (X_test, y_test) = make_images(80), make_images(30, seed=1)
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    detector = make_detector(
        scorer=Energy(), background_scorer=BackgroundLogit(), fusion=TemperatureFusion(), alpha=0.1
    ).set_params(classifier_trainer__max_steps=3, dense_trainer__max_steps=30)
    scorers = [MSP(), Energy()]
    table = class_count_sweep(detector, X, y, X_test, y_test, {"noise": noise}, [2, 3], scorers=scorers, random_state=0)
    assert list(table) == ["n_classes", "repeat", "scorer", "method", "ood", *METRICS, "accuracy"]
    assert table["n_classes"].tolist() == [2] * 6 + [3] * 6
    fitted = clone(detector).fit(X, y)  # all three classes, the same seed
    expected = compare_scorers(fitted, X_test, {"noise": noise}, X=X, y=y, scorers=scorers)
    of_all = Table(**{name: column[table.n_classes == 3] for name, column in table.items()})
    for name in expected:
        assert_array_equal(of_all[name], expected[name])
    accuracy = class_accuracy(fitted, X_test, y_test)
    assert accuracy["plain"] != accuracy["dfb"]
    assert of_all["accuracy"].tolist() == [accuracy["plain"], accuracy["dfb"], accuracy["dfb"]] * 2
    plain = class_count_sweep(detector, X, y, X_test, y_test, {"noise": noise}, [3], random_state=0)
    (row,) = records_of(plain)
    (dfb,) = [each for each in records_of(of_all) if (each["scorer"], each["method"]) == ("Energy", "dfb")]
    assert [row["auroc"], row["accuracy"]] == [dfb["auroc"], dfb["accuracy"]]


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"counts": [1, 3]}, ValueError, r"counts=\[1, 3\] has 1: expected numbers from 2 to 6"),
        ({"counts": [3, 7]}, ValueError, "has 7: expected numbers from 2 to 6"),
        ({"counts": []}, TypeError, r"counts=\[\]: expected a list of numbers of classes"),
        ({"counts": 3}, TypeError, "counts=3: expected a list"),
        ({"counts": "3"}, TypeError, "counts='3': expected a list"),
        ({"counts": [2.0]}, TypeError, "each of counts must be an instance of int"),
        ({"n_repeats": 0}, ValueError, "n_repeats == 0, must be >= 1"),
        ({"ood": np.zeros((3, 8))}, TypeError, "ood is a ndarray: expected a mapping"),
        ({"y": None}, ValueError, "y is None: expected one class label per image of X"),
        ({"y_test": None}, ValueError, "y_test is None: expected one class label per image of X_test"),
        ({"y": [0, 1]}, ValueError, "X has 240 images and y has 2 labels: expected one label per image"),
        ({"y_test": [0, 1]}, ValueError, "X_test has 90 images and y_test has 2 labels"),
        ({"y": np.linspace(0, 1, 240)}, ValueError, "Unknown label type"),
        ({"y": np.full(240, np.nan)}, ValueError, "y contains NaN"),
        ({"y_test": np.full(90, np.nan)}, ValueError, "y_test contains NaN"),
        (
            {"y_test": np.zeros(90, dtype=int)},
            ValueError,
            "y_test has no image of 5 of the 6 classes of y, 1, 2, 3, 4, 5: expected test images of each",
        ),
        ({"y_test": ["0"] * 90}, ValueError, "y_test has no image of 6 of the 6"),
        ({"random_state": "a"}, ValueError, "cannot be used to seed"),
        ({"scorers": [Energy()]}, TypeError, r"scorers are given, but estimator is Recorder\(\): expected a DFB"),
        ({"estimator": make_detector(), "scorers": []}, TypeError, r"scorers=\[\]: expected a list of scorers"),
        ({"estimator": make_detector(), "scorers": [Energy]}, TypeError, r"scorers\[0\] is the class Energy"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_fitted(train, test, other, recorder, changes, error, match):
    arguments = {"estimator": recorder, "X": train[0], "y": train[1], "X_test": test[0], "y_test": test[1]}
    with pytest.raises(error, match=match):
        class_count_sweep(**arguments | {"ood": other, "counts": [2, 3]} | changes)
    assert Recorder.fits == []
