"""Splits into known and unknown classes, and the classes of published experiments."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.model_selection import check_cv, cross_val_score

from skdfb.detector import FeatureDetector
from skdfb.evaluation import LeaveClassesOut, OpenSetSplit, left_out_auroc, open_set_protocol
from skdfb.scorers import Energy

quick = settings(max_examples=60, deadline=None, derandomize=True)
NAMES = np.asarray(["ape", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis"])


@st.composite
def problems(draw):
    """Labels of 3 to 9 classes of 2 to 12 images in random order, and a splitter that fits them."""
    counts = draw(st.lists(st.integers(2, 12), min_size=3, max_size=9))
    K = len(counts)
    y = np.random.RandomState(draw(st.integers(0, 99))).permutation(np.repeat(np.arange(K), counts))
    n_known = draw(st.integers(2, K - 1))
    cv = OpenSetSplit(
        n_known,
        draw(st.none() | st.integers(1, K - n_known)),
        n_splits=draw(st.integers(1, 8)),
        test_size=draw(st.floats(0.01, 0.99)),
        random_state=draw(st.integers(0, 99)),
    )
    return y, cv


def folds_of(cv, y):
    return list(cv.split(np.zeros((len(y), 1)), y))


@quick
@given(problems())
def test_parts_have_the_images_of_their_classes(problem):
    y, cv = problem
    n, folds, class_splits = Counter(y.tolist()), folds_of(cv, y), list(cv.class_splits(y))
    assert len(folds) == len(class_splits) == cv.get_n_splits() == cv.n_splits
    for (train, test), (known, unknown) in zip(folds, class_splits, strict=True):
        assert np.all(np.diff(train) > 0)
        assert np.all(np.diff(test) > 0)
        assert not set(train) & set(test)
        assert set(y[train]) == set(known)
        trained, tested = Counter(y[train].tolist()), Counter(y[test].tolist())
        assert set(tested) == {*known, *unknown}
        for k in known:
            assert tested[k] == min(max(round(cv.test_size * n[k]), 1), n[k] - 1)
            assert trained[k] + tested[k] == n[k]
        for k in unknown:
            assert tested[k] == n[k]


@quick
@given(problems())
def test_classes_are_as_many_as_asked_for_and_ascending(problem):
    y, cv = problem
    K = y.max() + 1
    for known, unknown in cv.class_splits(y):
        assert len(known) == cv.n_known
        assert len(unknown) == (K - cv.n_known if cv.n_unknown is None else cv.n_unknown)
        assert not set(known) & set(unknown)
        assert np.all(np.diff(known) > 0)
        assert np.all(np.diff(unknown) > 0)


@quick
@given(problems())
def test_classes_do_not_depend_on_images(problem):
    """Training labels, test labels and the list of classes give the same class splits."""
    y, cv = problem
    first = list(cv.class_splits(y))
    for labels, names in (
        (np.unique(y), np.arange(9)),
        (y[::-1].tolist(), np.arange(9)),
        (np.repeat(y, 3), np.arange(9)),
        (NAMES[: y.max() + 1], NAMES),
        (NAMES[y].tolist(), NAMES),
        (7 * y - 3, 7 * np.arange(9) - 3),
    ):
        for (known, unknown), (known_again, unknown_again) in zip(first, cv.class_splits(labels), strict=True):
            assert_array_equal(names[known], known_again)
            assert_array_equal(names[unknown], unknown_again)


@quick
@given(problems())
def test_images_of_a_known_class_are_tested_in_turn(problem):
    y, cv = problem
    times = np.zeros(len(y), dtype=int)
    for (_, test), (known, _) in zip(folds_of(cv, y), cv.class_splits(y), strict=True):
        times[test[np.isin(y[test], known)]] += 1
    for k in range(y.max() + 1):
        assert np.ptp(times[y == k]) <= 1


@quick
@given(problems())
def test_an_int_fixes_the_splits_for_labels_of_any_kind(problem):
    y, cv = problem
    first = folds_of(cv, y)
    for again in (folds_of(cv, y), folds_of(cv, NAMES[y]), folds_of(cv, NAMES[y].tolist())):
        for (train, test), (train_again, test_again) in zip(first, again, strict=True):
            assert_array_equal(train, train_again)
            assert_array_equal(test, test_again)


def test_each_class_is_drawn_as_often_as_any_other():
    cv = OpenSetSplit(3, 2, n_splits=4000, random_state=0)
    splits = list(cv.class_splits(range(8)))
    known, unknown = (Counter(np.concatenate([split[side] for split in splits]).tolist()) for side in (0, 1))
    for counts, share in ((known, 3 / 8), (unknown, 2 / 8)):
        assert len(counts) == 8
        assert all(abs(n / 4000 - share) < 0.03 for n in counts.values())


def test_randomness():
    shared = OpenSetSplit(5, random_state=np.random.RandomState(0))
    first, second = (np.concatenate([known for known, _ in shared.class_splits(range(10))]) for _ in range(2))
    assert not np.array_equal(first, second)
    expected = np.concatenate([known for known, _ in OpenSetSplit(5, random_state=0).class_splits(range(10))])
    assert_array_equal(first, expected)


def test_many_classes_in_a_list():
    """A warning of scikit-learn about labels that are all different would be an error here."""
    known, unknown = next(OpenSetSplit(20, random_state=0).class_splits(np.arange(200)))
    assert_array_equal(np.sort(np.concatenate([known, unknown])), np.arange(200))


def test_conventions():
    cv = OpenSetSplit(3, n_splits=4, test_size=0.3)
    shown = "OpenSetSplit(n_known=3, n_splits=4, n_unknown=None, random_state=None, test_size=0.3)"
    assert " ".join(repr(cv).split()) == shown
    assert check_cv(cv) is cv
    assert cv.get_n_splits(None, None, None) == 4
    y = np.repeat(np.arange(4), 4)
    with pytest.warns(UserWarning, match="groups parameter is ignored by OpenSetSplit"):
        next(cv.split(y, y, groups=y))


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"n_known": 1}, "n_known == 1, must be >= 2"),
        ({"n_known": 2.0}, "n_known must be an instance of int"),
        ({"n_unknown": 0}, "n_unknown == 0, must be >= 1"),
        ({"n_splits": 0}, "n_splits == 0, must be >= 1"),
        ({"test_size": 0.0}, "test_size == 0.0, must be > 0"),
        ({"test_size": 1.0}, "test_size == 1.0, must be < 1"),
        ({"random_state": "a"}, "cannot be used to seed"),
    ],
)
def test_bad_parameters(parameters, match):
    with pytest.raises((TypeError, ValueError), match=match):
        OpenSetSplit(**{"n_known": 2} | parameters)


@pytest.mark.parametrize(
    ("parameters", "y", "match"),
    [
        ({}, None, "y is None: expected one class label per image"),
        (
            {},
            [0, 0, 1, 1],
            r"y has 2 class\(es\): expected at least 3 for n_known=2, n_unknown=None. Lower",
        ),
        ({"n_unknown": 2}, [0, 0, 1, 1, 2, 2], "expected at least 4 for .*Lower n_known or n_unknown, or add classes"),
        ({}, ["a", "a", "b", "c", "c"], "class 'b' has 1 image: expected at least 2"),
        ({}, [0.1, 0.2, 0.3, 0.4], "Unknown label type"),
        ({}, [0.0, 1.0, np.nan], "y contains NaN"),
    ],
)
def test_bad_labels(parameters, y, match):
    cv = OpenSetSplit(2, **parameters)
    with pytest.raises(ValueError, match=match):
        next(cv.split(np.zeros(4 if y is None else len(y)), y))
    if "1 image" not in match:
        with pytest.raises(ValueError, match=match):
            next(cv.class_splits(y))


def test_with_the_metric_of_left_out_classes():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(6), 40)
    X = rng.normal(size=(240, 8))
    X[np.arange(240), y] += 8
    detector = FeatureDetector(Energy(), calibration_fraction=0.25, random_state=0)
    for cv in (OpenSetSplit(4, 1, n_splits=3, random_state=0), LeaveClassesOut(3, random_state=0)):
        found = cross_val_score(detector, X, y, cv=cv, scoring=left_out_auroc, error_score="raise")
        assert (found > 0.9).all()


# ---------------------------------------------------------------- protocols


@pytest.mark.parametrize(
    ("name", "n_known", "n_unknown", "n_classes"),
    [
        ("cifar10-6/4", 6, 4, (10, 10)),
        ("cifar+10", 4, 10, (10, 100)),
        ("cifar+50", 4, 50, (10, 100)),
        ("tiny-imagenet-20/180", 20, 180, (200, 200)),
    ],
)
def test_protocols(name, n_known, n_unknown, n_classes):
    splits = open_set_protocol(name)
    assert len(splits) == 5
    for known, unknown in splits:
        for classes, n, limit in ((known, n_known, n_classes[0]), (unknown, n_unknown, n_classes[1])):
            assert len(classes) == n
            assert np.all(np.diff(classes) > 0)
            assert classes[0] >= 0
            assert classes[-1] < limit
        if "+" not in name:  # both from the same data
            assert_array_equal(np.sort(np.concatenate([known, unknown])), np.arange(n_classes[0]))


def test_the_lists_of_public_code():
    """The lists of ARPL's split.py in their order; of long ones, their sums of indices and of squared indices."""
    six = [[0, 6, 4, 9, 1, 7], [7, 6, 4, 9, 0, 1], [1, 5, 7, 3, 9, 4], [8, 6, 1, 9, 0, 7], [2, 4, 1, 7, 9, 6]]
    four = [[4, 7, 9, 1], [6, 7, 1, 9], [9, 6, 1, 7], [6, 4, 9, 1], [1, 0, 9, 8]]
    assert [known.tolist() for known, _ in open_set_protocol("cifar10-6/4")] == [sorted(classes) for classes in six]
    sums = {
        "cifar+10": [(291, 13933), (516, 31962), (483, 30345), (599, 42901), (460, 30726)],
        "cifar+50": [(2592, 175376), (2509, 169095), (2590, 178870), (2567, 172641), (2525, 168599)],
    }
    for name, expected in sums.items():
        splits = open_set_protocol(name)
        assert [known.tolist() for known, _ in splits] == [sorted(classes) for classes in four]
        assert [(unknown.sum(), (unknown**2).sum()) for _, unknown in splits] == expected
    known = [classes for classes, _ in open_set_protocol("tiny-imagenet-20/180")]
    expected = [(2097, 288587), (1867, 252093), (1816, 222740), (2609, 419177), (1784, 239308)]
    assert [(classes.sum(), (classes**2).sum()) for classes in known] == expected


def test_cifar_50_has_the_classes_of_cifar_10():
    for (_, ten), (_, fifty) in zip(open_set_protocol("cifar+10"), open_set_protocol("cifar+50"), strict=True):
        assert set(ten) < set(fifty)


def test_a_caller_can_change_what_it_gets():
    open_set_protocol("cifar+10")[0][0][:] = 0
    assert open_set_protocol("cifar+10")[0][0].tolist() == [1, 4, 7, 9]


@pytest.mark.parametrize("name", ["cifar10", None, ["cifar+10"]])
def test_unknown_protocols_are_refused(name):
    with pytest.raises(ValueError, match=r"name=.*: expected one of \['cifar10-6/4', 'cifar\+10'"):
        open_set_protocol(name)
