"""The sweeps must report what joining by hand, and fitting by hand, gives."""

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import Dataset, TensorDataset

from skdfb import evaluation
from skdfb.detector import FeatureDetector
from skdfb.evaluation import class_accuracy
from skdfb.evaluation._table import METRICS
from skdfb.fusion import TemperatureFusion
from skdfb.images import Images, as_images
from skdfb.metrics import aupr_score, auroc_score, fpr_at_tpr
from skdfb.scorers import MSP, BackgroundLogit, Energy, Mahalanobis
from tests.detector.conftest import make_detector, make_images
from tests.evaluation.helpers import framed

class_count_sweep = framed(evaluation.class_count_sweep)
compare_scorers = framed(evaluation.compare_scorers)
evaluate = framed(evaluation.evaluate)
temperature_sweep = framed(evaluation.temperature_sweep)

# ------------------------------------------------------------- temperatures


class PartsOnly(BaseEstimator):
    """Has the columns of X as parts, and no fusion. Views are by name: parts ``"background..."`` are background."""

    def __init__(self, names=("foreground", "background"), scorer=None, views=None):
        self.names = names
        self.scorer = scorer
        self.views = views
        views = [name.split("_")[0] for name in names] if views is None else views
        scorers = scorer if isinstance(scorer, list) else [scorer] * len(names)
        self.joint_score_ = SimpleNamespace(parts_=list(zip(names, views, scorers, strict=True)))
        self.part_scorers_ = dict(zip(names, scorers, strict=True))
        self.calls = []

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


def by_hand(known, unknown, join):
    """Metrics of scores joined image by image."""
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
    assert list(table.columns) == ["temperature", "ood", *METRICS]
    assert table["temperature"].tolist() == [0.5, 0.5, 2.5, 2.5, 40, 40]
    assert table["ood"].tolist() == ["near", "far"] * 3
    for row in table.to_dict("records"):
        expected = by_hand(known, unknown[row["ood"]], joined_at(row["temperature"]))
        assert {name: row[name] for name in METRICS} == pytest.approx(expected, abs=1e-12)
    assert table.loc[table["ood"] == "near", "auroc"].nunique() == 3


def test_each_set_is_passed_over_once(known, unknown):
    detector = PartsOnly()
    temperature_sweep(detector, known[:, :2], {name: X[:, :2] for name, X in unknown.items()})
    assert detector.calls == [60, 50, 40]


def test_default_temperatures_hold_that_of_the_paper(known, unknown):
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
        (["vim", "energy", "background"], ("energy", "background"), [1, 2]),
    ],
)
def test_parts(known, unknown, names, parts, chosen):
    n = len(names)
    detector = PartsOnly(names, scorer=Energy())
    table = temperature_sweep(detector, known[:, :n], {"far": unknown["far"][:, :n]}, [2.0], parts=parts)
    expected = temperature_sweep(PartsOnly(), known[:, chosen], {"far": unknown["far"][:, chosen]}, [2.0])
    assert table.equals(expected)


def test_views_decide_which_parts_are_background(known, unknown):
    """Names of parts are free: a background part is one on the background view."""
    detector = PartsOnly(["near", "vim"], views=["background", "dense"], scorer=Energy())
    table = temperature_sweep(detector, known[:, :2], {"far": unknown["far"][:, :2]}, [2.0])
    expected = temperature_sweep(PartsOnly(), known[:, [1, 0]], {"far": unknown["far"][:, [1, 0]]}, [2.0])
    assert table.equals(expected)


@pytest.mark.parametrize("output", EQ_7)
def test_the_scorer_of_the_chosen_part_decides_the_branch(known, unknown, output):
    """It need not be the first part of the detector."""
    scorer, _ = EQ_7[output]
    (other,) = (scorer for name, (scorer, _) in EQ_7.items() if name != output)
    names, shown = ["foreground_dense", "foreground_classifier", "background"], {"far": unknown["far"][:, :3]}
    detector = PartsOnly(names, scorer=[other, scorer, Energy()])
    found = temperature_sweep(detector, known[:, :3], shown, [2.0], parts=("foreground_classifier", "background"))
    chosen = {"far": unknown["far"][:, [1, 2]]}
    assert found.equals(temperature_sweep(PartsOnly(scorer=scorer), known[:, [1, 2]], chosen, [2.0]))
    assert not found.equals(temperature_sweep(PartsOnly(scorer=other), known[:, [1, 2]], chosen, [2.0]))


def test_parts_of_the_images_detector():
    X, y = make_images(60)
    scorers = [("msp", "dense", MSP()), ("energy", "classifier", Energy())]
    detector = make_detector(scorer=scorers, background_scorer=[("own", BackgroundLogit())], fusion=None, alpha=0.3)
    detector = detector.set_params(classifier_trainer__max_steps=3, dense_trainer__max_steps=3).fit(X, y)
    X_id, noise = make_images(30, seed=1)[0], make_images(20, seed=2)[0][:, ::-1] // 2
    table = temperature_sweep(detector, X_id, {"noise": noise}, [2.5], parts=("energy", "background_own"))
    parts = [detector.score_parts(images) for images in (X_id, noise)]
    joint = [found["energy"] + found["background_own"] / 2.5 for found in parts]
    assert table["auroc"].tolist() == [auroc_score(*joint)]
    with pytest.raises(ValueError, match=r"one background part, got \['msp', 'energy'\] and \['background_own'"):
        temperature_sweep(detector, X_id, {"noise": noise})


@pytest.mark.parametrize(
    ("names", "parts", "match"),
    [
        (["foreground", "background_knn", "background_vim"], None, r"parts is None.*'background_knn'.*parts=\(fore"),
        (["foreground_a", "foreground_b", "background"], None, "parts is None"),
        (
            ["foreground", "foreground_b"],
            None,
            r"parts is None: .* got \['foreground', 'foreground_b'\] and \[\]",
        ),
        (["foreground", "background"], ("foreground",), "expected the names of a foreground and of a background part"),
        (["foreground", "background"], "fb", "expected the names of a foreground and of a background part"),
        (
            ["foreground", "background"],
            ("background", "foreground"),
            r"foreground part, .*\['foregro.* got 'background'",
        ),
        (
            ["foreground", "background"],
            ("foreground", "background_logit"),
            "background part.*, got 'background_logit'",
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
        ([1.0, 0.0], ValueError, r"temperatures=\[1.0, 0.0\]: expected finite numbers greater than 0, got 0.0"),
        ([-1], ValueError, "expected finite numbers greater than 0, got -1"),
        ([np.inf], ValueError, "expected finite numbers greater than 0, got inf"),
        ([np.nan], ValueError, "expected finite numbers greater than 0, got nan"),
        (["1"], ValueError, "expected finite numbers greater than 0, got '1'"),
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
    with pytest.raises(TypeError, match=r"Expected a fitted DFBDetector, got Isolation.* has no score_parts"):
        temperature_sweep(IsolationForest(), known, unknown)


def test_arrays_and_pipelines(known, unknown):
    known, unknown = known[:, :2], {name: X[:, :2] for name, X in unknown.items()}
    pipeline = make_pipeline(StandardScaler().fit(known), PartsOnly())
    scaled = {name: pipeline[0].transform(X) for name, X in unknown.items()}
    expected = temperature_sweep(PartsOnly(), pipeline[0].transform(known), scaled, [1.0, 3.0])
    assert temperature_sweep(pipeline, known, unknown, np.array([1.0, 3.0])).equals(expected)


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
    """Rows of numbers from any form of X."""
    if isinstance(X, Images):
        return X.read(np.arange(len(X)))[:, 0, 0].numpy()
    return np.stack([item[0] for item in X]) if isinstance(X, Dataset) else np.asarray(X)


class Recorder(OutlierMixin, BaseEstimator):
    """Records what each clone was fitted with, and scores by the mean of a row."""

    seen: ClassVar[list] = []

    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, X, y=None):
        assert not hasattr(self, "fitted_")  # a clone of its own
        self.seen.append((len(X), tuple(np.unique(y).tolist()), self.random_state))
        self.fitted_ = True
        return self

    def score_samples(self, X):
        return rows_of(X).mean(1)


@pytest.fixture
def recorder():
    Recorder.seen = []
    return Recorder()


def test_rows_are_what_fitting_by_hand_gives(train, test, other, recorder):
    class_count_sweep(recorder, *train, *test, other, counts=[2, 5], random_state=0)
    table = class_count_sweep(
        feature_detector(random_state=3), *train, *test, other, counts=[2, 5], random_state=0
    )  # the same classes for each estimator
    assert table[["n_classes", "repeat", "ood"]].to_numpy().tolist() == [
        [2, 0, "other"],
        [2, 0, "noise"],
        [5, 0, "other"],
        [5, 0, "noise"],
    ]
    expected = []
    for _, classes, _ in recorder.seen:
        chosen_train, chosen_test = (np.isin(y, classes) for _, y in (train, test))
        fitted = feature_detector(random_state=3).fit(train[0][chosen_train], train[1][chosen_train])
        expected.append(evaluate(fitted, test[0][chosen_test], other, test[1][chosen_test], n_bootstrap=0))
    assert table.iloc[:, 2:].equals(pd.concat(expected, ignore_index=True))
    assert table["n_id"].tolist() == [30, 30, 75, 75]
    assert table["accuracy"].between(0.5, 1).all()


def test_smaller_sets_are_subsets_of_larger_ones(train, test, other, recorder):
    class_count_sweep(recorder, *train, *test, other, counts=[4, 2, 6, 3], n_repeats=3, random_state=0)
    drawn = [set(classes) for _, classes, _ in recorder.seen]
    assert [len(classes) for classes in drawn] == [4, 2, 6, 3] * 3
    for four, two, six, three in (drawn[:4], drawn[4:8], drawn[8:]):
        assert two < three < four < six == set(range(N_CLASSES))
    assert [n for n, _, _ in recorder.seen] == [160, 80, 240, 120] * 3
    assert len({frozenset(classes) for classes in drawn[1::4]}) > 1


def test_random_state(train, test, other, recorder):
    def seen(estimator, **arguments):
        Recorder.seen = []
        table = class_count_sweep(estimator, *train, *test, other, counts=[2, 3], **arguments)
        return Recorder.seen, table

    first, table = seen(recorder, n_repeats=2, random_state=0)
    again, table_again = seen(recorder, n_repeats=2, random_state=0)
    assert first == again
    assert table.equals(table_again)
    seeds = [seed for _, _, seed in first]
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3]
    assert all(isinstance(seed, int) for seed in seeds)
    assert recorder.random_state is None
    assert not hasattr(recorder, "fitted_")
    # A seed that is set stays, and the classes are the same; fewer repeats are the first of more.
    fixed, _ = seen(Recorder(random_state=7), n_repeats=2, random_state=0)
    assert [seed for _, _, seed in fixed] == [7] * 4
    assert [classes for _, classes, _ in fixed] == [classes for _, classes, _ in first]
    one, _ = seen(recorder, random_state=0)
    assert one == first[:2]
    assert seen(recorder, n_repeats=2, random_state=1)[0] != first
    nested, _ = seen(make_pipeline(StandardScaler(), recorder), random_state=0)
    assert all(isinstance(seed, int) for _, _, seed in nested)


def test_labels_of_any_kind(train, test, other):
    names = np.asarray(["ape", "bee", "cat", "dog", "eel", "fox"])
    arguments = {"counts": [3, 6], "n_repeats": 2, "random_state": 0}
    expected = class_count_sweep(feature_detector(), *train, *test, other, **arguments)
    for y, y_test in (
        (names[train[1]], names[test[1]]),
        (names[train[1]].astype(object), names[test[1]].tolist()),
        (train[1] * 7 - 3, test[1] * 7 - 3),
    ):
        table = class_count_sweep(feature_detector(), train[0], y, test[0], y_test, other, **arguments)
        assert table.equals(expected)


def test_test_images_of_other_labels_are_ignored(train, test, other):
    arguments = {"counts": [3, 6], "random_state": 0}
    X_test, y_test = np.concatenate([test[0], other["other"]]), np.concatenate([test[1], np.full(40, 77)])
    expected = class_count_sweep(feature_detector(), *train, *test, other, **arguments)
    assert class_count_sweep(feature_detector(), *train, X_test, y_test, other, **arguments).equals(expected)


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
    assert Recorder.seen[0] == Recorder.seen[1]


def test_labels_of_datasets(train, test, other, recorder):
    def as_dataset(X, y):
        return TensorDataset(torch.as_tensor(X), torch.as_tensor(y))

    expected = class_count_sweep(recorder, *train, *test, other, counts=[2, 4], random_state=0)
    table = class_count_sweep(
        recorder, as_dataset(*train), None, as_dataset(*test), None, other, counts=[2, 4], random_state=0
    )
    assert table.equals(expected)
    assert Recorder.seen[:2] == Recorder.seen[2:]


def test_estimators_that_do_not_classify(train, test, other):
    table = class_count_sweep(
        make_pipeline(StandardScaler(), IsolationForest(n_estimators=5)), *train, *test, other, [2, 6], random_state=0
    )
    assert table[["oscr", "accuracy"]].isna().all(axis=None)
    assert table[["auroc", "ood_rejected"]].notna().all(axis=None)


def test_scorers_on_the_images_detector():
    (X, y), (X_test, y_test) = make_images(80), make_images(30, seed=1)
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    detector = make_detector(
        scorer=Energy(), background_scorer=BackgroundLogit(), fusion=TemperatureFusion(), alpha=0.1
    ).set_params(classifier_trainer__max_steps=3, dense_trainer__max_steps=30)
    scorers = [MSP(), Energy()]
    table = class_count_sweep(detector, X, y, X_test, y_test, {"noise": noise}, [2, 3], scorers=scorers, random_state=0)
    assert list(table.columns) == ["n_classes", "repeat", "scorer", "method", "ood", *METRICS, "oscr", "accuracy"]
    assert table["n_classes"].tolist() == [2] * 6 + [3] * 6
    fitted = clone(detector).fit(X, y)  # all three classes, the same seed
    expected = compare_scorers(fitted, X_test, {"noise": noise}, X=X, y=y, scorers=scorers, y_id=y_test)
    of_all = table[table["n_classes"] == 3].reset_index(drop=True)
    assert of_all[expected.columns].equals(expected)
    accuracy = class_accuracy(fitted, X_test, y_test)
    assert accuracy["plain"] != accuracy["dfb"]
    assert of_all["accuracy"].tolist() == [accuracy["plain"], accuracy["dfb"], accuracy["dfb"]] * 2
    plain = class_count_sweep(detector, X, y, X_test, y_test, {"noise": noise}, [3], random_state=0)
    (row,) = plain.to_dict("records")
    (dfb,) = of_all[(of_all["scorer"] == "Energy") & (of_all["method"] == "dfb")].to_dict("records")
    assert [row[name] for name in ("auroc", "oscr", "accuracy")] == [dfb[n] for n in ("auroc", "oscr", "accuracy")]


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"counts": [1, 3]}, ValueError, r"counts=\[1, 3\]: expected numbers from 2 to 6, .*, got 1\."),
        ({"counts": [3, 7]}, ValueError, "expected numbers from 2 to 6, the number of classes of y, got 7"),
        ({"counts": []}, TypeError, r"counts=\[\]: expected a list of numbers of classes"),
        ({"counts": 3}, TypeError, "counts=3: expected a list"),
        ({"counts": "3"}, TypeError, "counts='3': expected a list"),
        ({"counts": [2.0]}, TypeError, "each of counts must be an instance of int"),
        ({"n_repeats": 0}, ValueError, "n_repeats == 0, must be >= 1"),
        ({"ood": np.zeros((3, 8))}, TypeError, "ood is a ndarray"),
        ({"y": None}, ValueError, "y is None: expected one class label per image of X"),
        ({"y_test": None}, ValueError, "y_test is None: expected one class label per image of X_test"),
        ({"y": [0, 1]}, ValueError, "X has 240 images and y has 2 labels: expected one label per image"),
        ({"y_test": [0, 1]}, ValueError, "X_test has 90 images and y_test has 2 labels: expected one label per image"),
        ({"y": np.linspace(0, 1, 240)}, ValueError, "Unknown label type"),
        ({"y": np.full(240, np.nan)}, ValueError, "y contains NaN"),
        ({"y_test": np.full(90, np.nan)}, ValueError, "y_test contains NaN"),
        (
            {"y_test": np.zeros(90, dtype=int)},
            ValueError,
            "y_test has no image of 5 of the 6 classes of y, 1, 2, 3, 4, 5",
        ),
        ({"y_test": ["0"] * 90}, ValueError, "y_test has no image of 6 of the 6"),
        ({"random_state": "a"}, ValueError, "cannot be used to seed"),
        (
            {"scorers": [Energy()]},
            TypeError,
            r"Recorder\(\) is not a DFBDetector: expected scorers=None",
        ),
        ({"estimator": make_detector(), "scorers": []}, TypeError, r"scorers=\[\]: expected a list of scorers"),
        ({"estimator": make_detector(), "scorers": [Energy]}, TypeError, r"scorers\[0\] is the class Energy"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_fitted(train, test, other, recorder, changes, error, match):
    arguments = {"estimator": recorder, "X": train[0], "y": train[1], "X_test": test[0], "y_test": test[1]}
    with pytest.raises(error, match=match):
        class_count_sweep(**arguments | {"ood": other, "counts": [2, 3]} | changes)
    assert Recorder.seen == []
