"""OSCR and the open-set F1 score against their slow definitions and against scikit-learn, and their properties."""

import enum
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from skdfb.metrics import auroc_score, open_set_f1_score, oscr_score

deterministic = settings(derandomize=True, deadline=None)

# Few different values, so that ties are common.
scores = st.lists(st.integers(-5, 5), min_size=1, max_size=12)
classified = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=12)


def oracle_oscr(id_scores, ood_scores, correct):
    """Trapezoids under the curve of the correct classification rate over the false positive rate."""
    points = [(0.0, 0.0)]  # above all scores, nothing is accepted
    for threshold in sorted(set(id_scores) | set(ood_scores), reverse=True):
        rate = sum(s >= threshold and hit for s, hit in zip(id_scores, correct, strict=True)) / len(id_scores)
        points.append((sum(t >= threshold for t in ood_scores) / len(ood_scores), rate))
    return sum((right[0] - left[0]) * (left[1] + right[1]) / 2 for left, right in pairwise(points))


@deterministic
@given(classified, scores)
def test_oscr_is_the_area_under_its_curve(known, ood_scores):
    id_scores, correct = zip(*known, strict=True)
    expected = oracle_oscr(id_scores, ood_scores, correct)
    assert oscr_score(id_scores, ood_scores, correct) == pytest.approx(expected, abs=1e-12)


@deterministic
@given(scores, scores)
def test_oscr_is_auroc_if_all_are_correct_and_0_if_none_is(id_scores, ood_scores):
    n = len(id_scores)
    assert oscr_score(id_scores, ood_scores, [True] * n) == auroc_score(id_scores, ood_scores)
    assert oscr_score(id_scores, ood_scores, [False] * n) == 0


@deterministic
@given(classified, scores)
def test_oscr_is_at_most_accuracy_and_auroc(known, ood_scores):
    id_scores, correct = zip(*known, strict=True)
    oscr = oscr_score(id_scores, ood_scores, correct)
    assert 0 <= oscr <= min(np.mean(correct), auroc_score(id_scores, ood_scores)) + 1e-12
    wrong = np.logical_not(correct)
    of_wrong = oscr_score(id_scores, ood_scores, wrong)
    assert oscr + of_wrong == pytest.approx(auroc_score(id_scores, ood_scores), abs=1e-12)


@deterministic
@given(classified, scores)
def test_only_the_order_of_scores_counts(known, ood_scores):
    id_scores, correct = (np.asarray(values) for values in zip(*known, strict=True))
    id_scores, ood_scores = id_scores.astype(float), np.asarray(ood_scores, dtype=float)
    expected = oscr_score(id_scores, ood_scores, correct)
    for increasing in (np.exp, np.arctan, lambda s: s**3 - 7, lambda s: np.where(s == 5, np.inf, s)):
        assert oscr_score(increasing(id_scores), increasing(ood_scores), correct) == expected
    assert oscr_score(id_scores[::-1], ood_scores[::-1], correct[::-1]) == expected


def test_oscr_equals_accuracy_if_correct_images_are_above_all_others():
    assert oscr_score([3, 2, 0], [1, 1], [True, True, False]) == 2 / 3
    assert oscr_score([0, 2, 3], [1, 1], [False, False, True]) == 1 / 3
    assert oscr_score([1, 1], [1], [True, False]) == 0.25  # a tie counts one half


def test_oscr_of_many_images_is_exact():
    n = 200_000
    value = oscr_score(np.arange(n) + 0.5, np.arange(n), np.arange(n) % 2 == 0)
    # Even images win against 1, 3, 5, ... OOD images.
    assert value == (n // 2) ** 2 / n**2


@pytest.mark.parametrize(
    ("correct", "message"),
    [
        ([1, 0], r"^correct has dtype int64: expected a boolean per image, such as y_pred == y_true"),
        ([True], r"^correct has 1 values and id_scores 2: expected one boolean per in-distribution image"),
        ([[True, False]], r"^correct has shape \(1, 2\): expected a 1-d array"),
        (True, r"^correct has shape \(\): expected a 1-d array"),
    ],
)
def test_bad_correct_is_refused(correct, message):
    with pytest.raises(ValueError, match=message):
        oscr_score([1.0, 2.0], [0.0], correct)


def test_bad_scores_are_refused_by_name():
    with pytest.raises(ValueError, match=r"^id_scores .*1 NaN of 2"):
        oscr_score([np.nan, 1.0], [0.0], [True, True])
    with pytest.raises(ValueError, match=r"^ood_scores .*is empty"):
        oscr_score([1.0], [], [False])


# ----------------------------------------------------------------------- F1


def oracle_f1(y_true, y_pred, classes):
    """Mean of 2 TP / (2 TP + FP + FN) over the classes and the unknown class, without those that never occur."""
    found = []
    for k in [*classes, None]:
        true = [label == k if k is not None else label not in classes for label in y_true]
        predicted = [label == k if k is not None else label not in classes for label in y_pred]
        hits = sum(t and p for t, p in zip(true, predicted, strict=True))
        if sum(true) + sum(predicted):
            found.append(2 * hits / (sum(true) + sum(predicted)))
    return sum(found) / len(found)


@st.composite
def predictions(draw):
    """Labels of classes 0 to 2, of unknown classes 7 and 8, and predictions in which -1 is unknown."""
    pairs = draw(st.lists(st.tuples(st.sampled_from([0, 1, 2, 7, 8]), st.sampled_from([0, 1, 2, -1])), max_size=20))
    pairs.append((0, draw(st.sampled_from([0, 1, 2, -1]))))
    return [list(labels) for labels in zip(*pairs, strict=True)]


@deterministic
@given(predictions())
def test_f1_follows_its_definition_and_scikit_learn(labels):
    y_true, y_pred = labels
    found = open_set_f1_score(y_true, y_pred, [0, 1, 2])
    assert found == pytest.approx(oracle_f1(y_true, y_pred, [0, 1, 2]), abs=1e-12)
    merged = np.where(np.isin(y_true, [0, 1, 2]), y_true, -1)
    assert found == pytest.approx(f1_score(merged, y_pred, average="macro"), abs=1e-12)


@deterministic
@given(predictions())
def test_names_and_order_make_no_difference(labels):
    y_true, y_pred = (np.asarray(values) for values in labels)
    expected = open_set_f1_score(y_true, y_pred, [0, 1, 2])
    assert open_set_f1_score(y_true[::-1], y_pred[::-1], [2, 0, 1]) == pytest.approx(expected, abs=1e-12)
    names = {0: "ant", 1: "bee", 2: "cat", 7: "dog", 8: "eel", -1: "unknown"}
    named = [[names[label] for label in values.tolist()] for values in (y_true, y_pred)]
    assert open_set_f1_score(*named, ["ant", "bee", "cat"]) == pytest.approx(expected, abs=1e-12)
    as_objects = [np.asarray(values, dtype=object) for values in named]
    assert open_set_f1_score(*as_objects, np.asarray(["ant", "bee", "cat"])) == pytest.approx(expected, abs=1e-12)


def test_perfect_and_worst():
    assert open_set_f1_score([0, 1, 5, 6], [0, 1, -1, -1], [0, 1]) == 1
    assert open_set_f1_score([0, 1, 5, 6], [1, 0, 0, 1], [0, 1]) == 0
    # Everything is rejected: the unknown class has precision 1/2 and recall 1.
    assert open_set_f1_score([0, 1, 5, 6], [-1] * 4, [0, 1]) == pytest.approx((2 / 3) / 3)


def test_any_label_of_no_class_is_unknown():
    """In a list, numbers and text stay what they are."""
    y_true, classes = [0, 1, "other", None, float("nan")], [0, 1]
    assert open_set_f1_score(y_true, [0, 1, "unknown", None, -1], classes) == 1
    assert open_set_f1_score(y_true, ["0", "1", 0, 0, 0], classes) == 0


def test_labels_of_other_types():
    class Animal(enum.Enum):
        ANT = 1
        BEE = 2

    assert open_set_f1_score([Animal.ANT, Animal.BEE, -1], [Animal.ANT, Animal.BEE, -1], list(Animal)) == 1
    assert open_set_f1_score([True, False, "?"], [True, False, "?"], [False, True]) == 1
    pd = pytest.importorskip("pandas")
    y = pd.Series(["a", "b", "c"], dtype="category")
    assert open_set_f1_score(y, pd.Series(["a", "b", "unknown"]), np.array(["a", "b"])) == 1


@pytest.mark.parametrize(
    ("y_true", "y_pred", "classes", "message"),
    [
        ([0, 1], [0], [0, 1], r"y_true has 2 labels and y_pred has 1: expected one label per image in both"),
        ([], [], [0, 1], r"y_true has shape \(0,\): expected a 1-d array with one label per image"),
        ([[0, 1]], [0, 1], [0, 1], r"y_true has shape \(1, 2\): expected a 1-d array"),
        ([0, 1], [[0], [1]], [0, 1], r"y_pred has shape \(2, 1\): expected a 1-d array"),
        ([0, 1], [0, 1], [], r"classes has shape \(0,\): expected a 1-d array"),
        ([0, 1], [0, 1], [0, 1, 0], r"classes=\[0, 1, 0\]: expected each class once"),
        (["0", "1"], [0, 1], [0, 1], r"None of the labels of y_true is one of classes=\[0, 1\]: expected .*same type"),
        ([0, 1], ["a", "b"], "ab", r"classes has shape \(\): expected a 1-d array"),
    ],
)
def test_bad_labels_are_refused(y_true, y_pred, classes, message):
    with pytest.raises(ValueError, match=message):
        open_set_f1_score(y_true, y_pred, classes)


def test_arguments_are_not_modified():
    arrays = [np.array([3.0, 1.0, 2.0]), np.array([2.0, 0.0]), np.array([True, False, True])]
    copies = [array.copy() for array in arrays]
    oscr_score(*arrays)
    assert all(np.array_equal(array, copy) for array, copy in zip(arrays, copies, strict=True))
