"""Splits that leave classes out, and their metric."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, check_cv, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdfb.detector import FeatureDetector
from skdfb.evaluation import LeaveClassesOut, left_out_auroc
from skdfb.scorers import Energy, ViM
from tests.detector.conftest import make_detector, make_images

quick = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def problems(draw):
    """Labels of 3 to 9 classes of 2 to 12 images in random order, and a splitter that fits them."""
    counts = draw(st.lists(st.integers(2, 12), min_size=3, max_size=9))
    K = len(counts)
    y = np.random.RandomState(draw(st.integers(0, 99))).permutation(np.repeat(np.arange(K), counts))
    n_left_out = draw(st.none() | st.integers(1, K - 2))
    n_splits = draw(st.integers(1, 12) if n_left_out else st.integers(2, K))
    assume(n_left_out or K - -(-K // n_splits) >= 2)
    cv = LeaveClassesOut(
        n_splits, n_left_out=n_left_out, test_size=draw(st.floats(0.01, 0.99)), random_state=draw(st.integers(0, 99))
    )
    return y, cv


def folds_of(cv, y):
    return list(cv.split(np.zeros((len(y), 1)), y))


def left_out_of(y, train, test):
    return set(y[test]) - set(y[train])


# ------------------------------------------------------------------- splits


@quick
@given(problems())
def test_training_and_test_part_are_all_and_disjoint(problem):
    y, cv = problem
    folds = folds_of(cv, y)
    assert len(folds) == cv.get_n_splits() == cv.n_splits
    for train, test in folds:
        assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(len(y)))
        assert np.all(np.diff(train) > 0)
        assert np.all(np.diff(test) > 0)


@quick
@given(problems())
def test_left_out_classes_are_not_trained_on_and_kept_ones_are_on_both_sides(problem):
    y, cv = problem
    K = y.max() + 1
    for train, test in folds_of(cv, y):
        left_out = left_out_of(y, train, test)
        trained, tested = Counter(y[train].tolist()), Counter(y[test].tolist())
        assert len(trained) == K - len(left_out) >= 2
        assert len(left_out) == (cv.n_left_out or len(left_out)) > 0
        for k, n in Counter(y.tolist()).items():
            expected = n if k in left_out else min(max(round(cv.test_size * n), 1), n - 1)
            assert tested[k] == expected


@quick
@given(problems())
def test_classes_are_left_out_equally_often(problem):
    y, cv = problem
    times = Counter(dict.fromkeys(range(y.max() + 1), 0))
    for train, test in folds_of(cv, y):
        times.update(left_out_of(y, train, test))
    if cv.n_left_out is None:
        assert set(times.values()) == {1}
    assert max(times.values()) - min(times.values()) <= 1


@quick
@given(problems())
def test_images_of_a_kept_class_are_tested_in_turn(problem):
    y, cv = problem
    times = np.zeros(len(y), dtype=int)
    for train, test in folds_of(cv, y):
        kept = test[~np.isin(y[test], list(left_out_of(y, train, test)))]
        times[kept] += 1
    for k in range(y.max() + 1):
        assert np.ptp(times[y == k]) <= 1


@quick
@given(problems())
def test_an_int_fixes_the_splits_for_labels_of_any_kind(problem):
    y, cv = problem
    names = np.asarray(["ape", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis"])[y]
    first = folds_of(cv, y)
    for again in (folds_of(cv, y), folds_of(cv, names), folds_of(cv, names.tolist()), folds_of(cv, 7 * y - 3)):
        for (train, test), (train_again, test_again) in zip(first, again, strict=True):
            assert_array_equal(train, train_again)
            assert_array_equal(test, test_again)


def test_groups_are_as_equal_as_can_be():
    y = np.repeat(np.arange(7), 3)
    sizes = [len(left_out_of(y, *fold)) for fold in folds_of(LeaveClassesOut(3, random_state=0), y)]
    assert sizes == [3, 2, 2]


def test_randomness():
    y = np.repeat(np.arange(10), 10)
    flat = [np.concatenate([test for _, test in folds_of(LeaveClassesOut(random_state=seed), y)]) for seed in range(2)]
    assert not np.array_equal(*flat)
    shared = LeaveClassesOut(random_state=np.random.RandomState(0))
    first, second = (np.concatenate([test for _, test in folds_of(shared, y)]) for _ in range(2))
    assert_array_equal(first, flat[0])
    assert not np.array_equal(first, second)
    # Which classes go together is random, too.
    groups = [frozenset(left_out_of(y, *folds_of(LeaveClassesOut(random_state=s), y)[0])) for s in range(8)]
    assert len(set(groups)) > 4


def test_tested_images_are_drawn_from_the_whole_class():
    y = np.repeat(np.arange(3), 1000)
    train, test = folds_of(LeaveClassesOut(3, random_state=0), y)[0]
    kept = test[~np.isin(y[test], list(left_out_of(y, train, test)))] % 1000
    assert len(kept) == 400
    assert abs(kept.mean() - 499.5) < 4 * 289 / np.sqrt(400)


def test_conventions():
    cv = LeaveClassesOut(4, test_size=0.3)
    assert repr(cv) == "LeaveClassesOut(n_left_out=None, n_splits=4, random_state=None, test_size=0.3)"
    assert check_cv(cv) is cv
    assert cv.get_n_splits(None, None, None) == 4
    y = np.repeat(np.arange(4), 4)
    with pytest.warns(UserWarning, match="groups parameter is ignored"):
        next(cv.split(y, y, groups=y))


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"n_splits": 0}, "n_splits == 0, must be >= 1"),
        ({"n_splits": 2.0}, "n_splits must be an instance of int"),
        ({"n_left_out": 0}, "n_left_out == 0, must be >= 1"),
        ({"test_size": 0.0}, "test_size == 0.0, must be > 0"),
        ({"test_size": 1.0}, "test_size == 1.0, must be < 1"),
        ({"random_state": "a"}, "cannot be used to seed"),
    ],
)
def test_bad_parameters(parameters, match):
    with pytest.raises((TypeError, ValueError), match=match):
        LeaveClassesOut(**parameters)


@pytest.mark.parametrize(
    ("parameters", "y", "match"),
    [
        ({}, None, "y is None: expected one class label per image"),
        ({}, [0, 0, 1, 1], r"y has 2 class\(es\): expected at least 3"),
        ({}, [0, 0, 1, 1, 2, 2], "n_splits=5 is more than the 3 classes of y.* expected n_splits <= 3"),
        (
            {"n_splits": 2},
            [0, 0, 1, 1, 2, 2],
            "leaves out 2 of the 3 .*: expected at least 2 .*Raise n_splits",
        ),
        ({"n_left_out": 2}, [0, 0, 1, 1, 2, 2], "leaves out 2 of the 3 classes of y.*Lower n_left_out"),
        ({"n_left_out": 9}, [0, 0, 1, 1, 2, 2], "leaves out 9 of the 3"),
        ({"n_splits": 3}, ["a", "a", "b", "c", "c"], "class 'b' has 1 image: expected at least 2"),
        ({}, [0.1, 0.2, 0.3, 0.4], "Unknown label type"),
        ({}, [0.0, 1.0, np.nan], "y contains NaN"),
    ],
)
def test_bad_labels(parameters, y, match):
    with pytest.raises(ValueError, match=match):
        next(LeaveClassesOut(**parameters).split(np.zeros(4 if y is None else len(y)), y))


# ------------------------------------------------------------------- metric


class KnownClasses(BaseEstimator):
    """Scores a row by its first column."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def score_samples(self, X):
        return np.asarray(X)[:, 0]


class OnlyDecisions(KnownClasses):
    score_samples = property()  # none

    def decision_function(self, X):
        return np.asarray(X)[:, 0]


@pytest.mark.parametrize("labels", [np.arange(4), np.array(["a", "b", "c", "d"]), np.array(list("abcd"), dtype=object)])
@pytest.mark.parametrize("estimator", [KnownClasses(), OnlyDecisions()])
def test_auroc_of_known_against_others(estimator, labels):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 2)), labels[rng.integers(0, 4, 60)]
    estimator.fit(X, labels[[1, 2]])
    expected = roc_auc_score(np.isin(y, labels[[1, 2]]), X[:, 0])
    assert left_out_auroc(estimator, X, y) == pytest.approx(expected, abs=1e-12)
    assert left_out_auroc(make_pipeline(estimator), X, y.tolist()) == pytest.approx(expected, abs=1e-12)


def test_threshold_plays_no_part():
    """Without a threshold, ``decision_function`` is infinite for each row."""
    X, y = gaussians(range(N_CLASSES), seed=0)
    train = y < 4
    detector = FeatureDetector(alpha=None, random_state=0).fit(X[train], y[train])
    assert np.isinf(detector.decision_function(X)).all()
    assert left_out_auroc(detector, X, y) > 0.9


def test_known_above_others_is_one():
    estimator = KnownClasses().fit(None, [0, 1])
    X, y = np.array([[3.0], [2.0], [1.0]]), [0, 1, 2]
    assert left_out_auroc(estimator, X, y) == 1
    assert left_out_auroc(estimator, -X, y) == 0


@pytest.mark.parametrize(
    ("y", "match"),
    [
        ([0, 1, 0], "All of the labels of y are classes of the estimator, 0, 1: .*LeaveClassesOut"),
        ([2, 3, 2], "None of the labels of y are classes of the estimator, 0, 1: .*LeaveClassesOut"),
        (None, "y is None: expected one label per image"),
    ],
)
def test_one_side_is_refused(y, match):
    with pytest.raises(ValueError, match=match):
        left_out_auroc(KnownClasses().fit(None, [0, 1]), np.zeros((3, 1)), y)


def test_other_estimators_are_refused():
    X, y = np.zeros((3, 1)), [0, 1, 2]
    with pytest.raises(TypeError, match=r"Ridge.*has no classes_.*: expected a fitted detector"):
        left_out_auroc(Ridge().fit(X, y), X, y)
    with pytest.raises(TypeError, match="no classes_"):
        left_out_auroc(make_pipeline(StandardScaler(), Ridge()).fit(X, y), X, y)
    neither = BaseEstimator()
    neither.classes_ = np.arange(2)
    with pytest.raises(TypeError, match="neither score_samples nor decision_function"):
        left_out_auroc(neither, X, y)
    with pytest.raises(ValueError, match=r"id_scores has shape \(3, 3\)"):
        left_out_auroc(LogisticRegression().fit(X, y), np.zeros((4, 1)), [*y, 3])


def test_other_splitters_are_refused():
    y = np.repeat([0, 1], 10)
    with pytest.raises(ValueError, match="LeaveClassesOut"):
        cross_val_score(
            KnownClasses(), y[:, None], y, cv=StratifiedKFold(2), scoring=left_out_auroc, error_score="raise"
        )


# ------------------------------------------------------------------- search


class NearestMean:
    """A third-party scorer without base class: the negative distance to the nearest class mean, or the distance."""

    def __init__(self, sign=1):
        self.sign = sign

    def fit(self, representation, y):
        features = np.asarray(representation.features)
        self.means = np.stack([features[y == k].mean(0) for k in np.unique(y)])

    def score_samples(self, representation):
        features = np.asarray(representation.features)[:, None]
        return -self.sign * np.linalg.norm(features - self.means, axis=2).min(1)


N_CLASSES, N_NUISANCE, N_FEATURES = 6, 4, 20


def gaussians(classes, seed, n=40):
    """Class k lies 6 along axis k; four axes vary much for all of them, the others hardly."""
    rng = np.random.default_rng(seed)
    y = np.repeat(classes, n)
    X = 0.3 * rng.normal(size=(len(y), N_FEATURES))
    X[:, -N_NUISANCE:] *= 15
    X[np.arange(len(y)), y] += 6
    return X, y


def test_search_picks_the_number_of_components_that_is_right():
    """Four kept classes and four axes of nuisance fill 8 components; fewer leave nuisance, 19 leave a single axis."""
    X, y = gaussians(range(N_CLASSES), seed=0)
    search = GridSearchCV(
        FeatureDetector(ViM(), calibration_fraction=0.25, random_state=0),
        {"scorer__n_components": [1, 8, 19]},
        cv=LeaveClassesOut(3, random_state=0),
        scoring=left_out_auroc,
        error_score="raise",
    ).fit(X, y)
    assert search.best_params_ == {"scorer__n_components": 8}
    assert search.best_score_ > 0.99
    assert_array_equal(search.best_estimator_.classes_, np.arange(N_CLASSES))
    X_new, (X_unknown, _) = gaussians(range(N_CLASSES), seed=1)[0], gaussians([N_CLASSES, N_CLASSES + 1], seed=1)
    assert search.predict(X_new).mean() > 0.8
    assert search.predict(X_unknown).mean() == -1


def test_search_picks_the_better_scorer():
    X, y = gaussians(range(N_CLASSES), seed=0)
    scorers = [NearestMean(sign=-1), NearestMean()]
    search = GridSearchCV(
        make_pipeline(StandardScaler(), FeatureDetector(calibration_fraction=0.25, random_state=0)),
        {"featuredetector__scorer": scorers},
        cv=LeaveClassesOut(random_state=0),
        scoring=left_out_auroc,
        error_score="raise",
    ).fit(X, np.asarray(["ape", "bee", "cat", "dog", "eel", "fox"])[y])
    assert search.best_params_["featuredetector__scorer"].sign == 1
    assert search.cv_results_["mean_test_score"][0] == pytest.approx(1 - search.best_score_)


def test_heads_with_labels_follow_the_left_out_classes():
    X, y = gaussians(range(N_CLASSES), seed=0)
    head = 3 * np.eye(N_CLASSES, N_FEATURES), np.full(N_CLASSES, -9.0), np.arange(N_CLASSES)
    scores = cross_val_score(
        FeatureDetector(Energy(), head=head, calibration_fraction=0.25, random_state=0),
        X,
        y,
        cv=LeaveClassesOut(random_state=0),
        scoring=left_out_auroc,
        error_score="raise",
    )
    assert scores.shape == (5,)
    assert (scores > 0.99).all()  # the logits of rows that are left are low for the left-out classes


@pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")
def test_on_images():
    """The detector of images works in it as it is; after one training per split, scorers can be compared as well."""
    X, y = make_images(60)
    detector = make_detector(scorer=Energy(), alpha=0.1).set_params(
        classifier_trainer__max_steps=3, dense_trainer__max_steps=3
    )
    cv = LeaveClassesOut(3, random_state=0)
    auroc = cross_val_score(detector, X, y, cv=cv, scoring=left_out_auroc, error_score="raise")
    assert auroc.shape == (3,)
    train, test = next(cv.split(X, y))
    fitted = detector.fit(X[train], y[train])
    assert left_out_auroc(fitted, X[test], y[test]) == auroc[0]
    assert 0 <= left_out_auroc(fitted.refit_scorer(ViM(n_components=2)), X[test], y[test]) <= 1
