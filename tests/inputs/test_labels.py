"""Labels of any kind, by each door: the right classes, or one clear and short error that names the first bad label."""

import datetime
import warnings
from enum import Enum, IntEnum, StrEnum

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.exceptions import DataConversionWarning
from sklearn.model_selection import StratifiedKFold, cross_val_score
from torch.utils.data import Dataset

import skdfb
from skdfb import CAMMaskGenerator, Trainer
from skdfb.detector import FeatureDetector
from skdfb.evaluation import LeaveClassesOut, class_accuracy, left_out_auroc
from skdfb.exceptions import InvalidModelError
from skdfb.scorers import Energy
from tests.detector.conftest import make_detector, make_images, tiny_backbone

pd = pytest.importorskip("pandas")

N = 48
X, INDICES = make_images(N)
ROWS = np.random.default_rng(0).normal(size=(N, 5)) + 4 * np.eye(5)[INDICES]
BIG, HUGE = 2**60, 2**70


class Plain(Enum):
    C = "third"
    A = 1  # not comparable with the other values: the order is that of the definition
    B = 2.5


class Whole(IntEnum):
    C = 2
    A = 0
    B = 1


class Text(StrEnum):
    C = "c"
    A = "a"
    B = "b"


def of(labels, make=list):
    """Three labels, one per image."""
    return make([labels[index] for index in INDICES])


def series(dtype):
    return lambda labels: pd.Series(labels, index=range(100, 100 + N), dtype=dtype)


def objects(labels):
    array = np.empty(len(labels), dtype=object)
    array[:] = labels
    return array


DAYS = [datetime.date(2020, 1, day) for day in (1, 2, 3)]

# What is given, and the classes that come out, in order.
GOOD = {
    "integers": (of([3, 5, 9]), [3, 5, 9]),
    "negative integers": (of([-2, 0, 7], np.array), [-2, 0, 7]),
    "unsigned": (of([1, 2, 255], lambda y: np.array(y, np.uint8)), [1, 2, 255]),
    "booleans and one more class": (of([False, True, True], np.array), [False, True]),
    "whole floats": (of([1.0, 2.0, 3.0]), [1.0, 2.0, 3.0]),
    "strings": (of(["c", "a", "b"]), ["a", "b", "c"]),
    "strings of NumPy": (of([np.str_("c"), "a", "b"]), ["a", "b", "c"]),
    "array of strings": (of(["c", "a", "b"], np.array), ["a", "b", "c"]),
    "objects: strings": (of(["c", "a", "b"], objects), ["a", "b", "c"]),
    "objects: integers": (of([3, 5, 9], objects), [3, 5, 9]),
    "objects: integers above 2**53": (of([BIG, BIG + 1, BIG + 2], objects), [BIG, BIG + 1, BIG + 2]),
    "big integers": (of([HUGE, HUGE + 1, 5]), [5, HUGE, HUGE + 1]),
    "scalars of NumPy": (of([np.int64(3), np.array(5), np.uint8(9)]), [3, 5, 9]),
    "scalars of torch": (of([torch.tensor(3), torch.tensor(5), 9]), [3, 5, 9]),
    "tensor": (torch.tensor(INDICES), [0, 1, 2]),
    "tensor of int16": (torch.tensor(INDICES, dtype=torch.int16), [0, 1, 2]),
    "tensor of uint8": (torch.tensor(INDICES, dtype=torch.uint8), [0, 1, 2]),
    "tensor with a gradient": (torch.tensor(INDICES, dtype=torch.float32, requires_grad=True), [0.0, 1.0, 2.0]),
    "tensor of bfloat16": (torch.tensor(INDICES, dtype=torch.bfloat16), [0.0, 1.0, 2.0]),
    "range": (of(range(3), tuple), [0, 1, 2]),
    "enumeration": (of([Plain.A, Plain.B, Plain.C]), [Plain.C, Plain.A, Plain.B]),
    "integer enumeration": (of([Whole.C, Whole.A, Whole.B]), [Whole.A, Whole.B, Whole.C]),
    "text enumeration": (of([Text.C, Text.A, Text.B], objects), [Text.A, Text.B, Text.C]),
    "pandas int64": (of([3, 5, 9], series("int64")), [3, 5, 9]),
    "pandas Int64": (of([BIG, BIG + 1, BIG + 2], series("Int64")), [BIG, BIG + 1, BIG + 2]),
    "pandas Int32": (of([3, 5, 9], series("Int32")), [3, 5, 9]),
    "pandas array": (of([3, 5, 9], lambda y: pd.array(y, dtype="Int64")), [3, 5, 9]),
    "pandas boolean": (of([False, True, True], series("boolean")), [False, True]),
    "pandas string": (of(["c", "a", "b"], series("string")), ["a", "b", "c"]),
    "pandas object": (of(["c", "a", "b"], series(object)), ["a", "b", "c"]),
    "pandas category": (of(["c", "a", "b"], series("category")), ["a", "b", "c"]),
    "pandas category of integers": (of([9, 3, 5], series("category")), [3, 5, 9]),
    "pandas Categorical": (of(["c", "a", "b"], pd.Categorical), ["a", "b", "c"]),
    "pandas Index": (of(["c", "a", "b"], pd.Index), ["a", "b", "c"]),
}


def with_one(bad, place=7, good="a"):
    labels = [good if index else "b" for index in INDICES] if isinstance(good, str) else INDICES.tolist()
    labels[place] = bad
    return labels


ENUMS = of([Plain.A, Plain.B, Plain.C])

# What is given, and what the error must say.
BAD = {
    "None": (with_one(None), "label at place 7 is None, which is missing"),
    "NaN": (np.array(with_one(np.nan, good=0.0)), "contains NaN: the label at place 7"),
    "NaN among strings": (with_one(np.nan), "contains NaN: the label at place 7"),
    "infinity": (np.array(with_one(np.inf, good=0.0)), "contains infinity.*label at place 7"),
    "NA of Int64": (pd.Series(with_one(None, good=0), dtype="Int64"), "label at place 7 is <NA>"),
    "NA of string": (pd.Series(with_one(None), dtype="string"), "label at place 7 is"),
    "NA of boolean": (pd.Series([True, None, False] * 16, dtype="boolean"), "label at place 1 is <NA>"),
    "gap of a category": (pd.Series(with_one(None), dtype="category"), "label at place 7 is nan"),
    "NaT": (pd.Series(pd.to_datetime([None, *["2020-01-01"] * 47])), "label at place 0 is NaT"),
    "text and number": (with_one(3), r"mixes .* at place 0 and 3 \(number\) at place 7.*str\(label\)"),
    "two enumerations": ([*ENUMS[:-1], Whole.A], r"mixes .*\(Plain\) at place 0.*\(Whole\) at place 47"),
    "one-hot rows": (np.eye(3)[INDICES], r"shape \(48, 3\) instead.*y.argmax\(1\)"),
    "one-hot tensor": (torch.eye(3)[INDICES], r"shape \(48, 3\) instead.*y.argmax\(1\)"),
    "one-hot lists": (np.eye(3, dtype=int)[INDICES].tolist(), r"y.argmax\(1\)"),
    "one-hot arrays": (list(np.eye(3)[INDICES]), r"y.argmax\(1\)"),
    "one-hot frame": (pd.DataFrame(np.eye(3)[INDICES]), r"y.to_numpy\(\).argmax\(1\)"),
    "masks": (np.zeros((N, 16, 16), int), "masks and images are no class labels"),
    "list of masks": (list(np.zeros((N, 16, 16), int)), "place 0 is a ndarray.*masks and images are no class labels"),
    "PIL masks": ([Image.new("L", (16, 16))] * N, "place 0 is a Image.*masks and images"),
    "targets of detection": ([{"boxes": torch.zeros(99, 4), "labels": [1]}] * N, "a dict.*targets of detection"),
    "continuous": (np.linspace(0, 1, N), "Unknown label type: continuous"),
    "large integer and float": ([*with_one(BIG, good=0)[:-1], 0.5], "no float holds exactly.*at place 7"),
    "bytes": (of([b"c", b"a", b"b"]), r"place 0 is b'c', a bytes.*label.decode\(\)"),
    "tuples": (of([("a", 1), ("b", 2), ("c", 3)]), r"place 0 is \('a', 1\), a tuple.*join its parts"),
    "dates": (of(DAYS), "a date.*pass dates as texts"),
    "dates of NumPy": (of(DAYS, lambda y: np.array(y, "M8[D]")), "datetime64.*pass dates as texts"),
    "complex": (of([1j, 2j, 3j]), "a complex: expected a string, a number"),
    "objects": ([object()] * N, "a object: expected a string, a number"),
    "set": ({1, 2}, "y is a set: expected one class label per image"),
    "text": ("a" * N, "y is a str: expected one class label per image"),
    "number": (5, "y is 5: expected one class label per image"),
    "one class, long": (["x" * 10**6] * N, "y has one class, 'xxx"),
    "missing beside long ones": (["x" * 10**6, None] * 24, "label at place 1 is None"),
}


def detector(**changes):
    trainer = Trainer(max_steps=1, batch_size=8)
    return make_detector(scorer=Energy(), classifier_trainer=trainer, dense_trainer=trainer, alpha=0.3, **changes)


def features(**changes):
    return FeatureDetector(Energy(), alpha=0.3, random_state=0, **changes)


def same(found, expected):
    """Equal, one by one; an enumeration must not have become a number."""
    assert list(found) == list(expected)
    assert all(isinstance(one, Enum) == isinstance(other, Enum) for one, other in zip(found, expected, strict=True))


class Labelled(Dataset):
    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return N

    def __getitem__(self, index):
        return Image.fromarray(X[index]), self.labels[index]


@pytest.mark.parametrize(("y", "classes"), GOOD.values(), ids=GOOD)
def test_features(y, classes):
    fitted = features().fit(ROWS, y)
    same(fitted.classes_.tolist(), classes)
    assert fitted.score(ROWS, y) == np.mean(fitted.classify(ROWS) == fitted.classes_[np.searchsorted(
        np.arange(len(classes)), _indices(y, classes))])  # fmt: skip
    assert fitted.score(ROWS, y) > 0.6
    assert fitted.predict_open_set(ROWS, unknown_label=-99).shape == (N,)


def _indices(y, classes):
    y = y.detach().float() if isinstance(y, torch.Tensor) else y
    return [classes.index(label) for label in (y.tolist() if hasattr(y, "tolist") else y)]


@pytest.fixture(scope="module")
def network():
    """A trained classifier, so that masks need no training."""
    return detector().fit(X, INDICES).classifier_


@pytest.mark.parametrize(("y", "classes"), GOOD.values(), ids=GOOD)
def test_masks(y, classes, network):
    backbone = network if len(classes) == 3 else tiny_backbone()
    masks = CAMMaskGenerator(backbone, device="cpu", trainer=Trainer(max_steps=1), scales=(1.0,), random_state=0)
    masks.fit(X, y)
    same(masks.classes_.tolist(), classes)
    labels = masks.classify(X)
    assert set(labels.tolist()) <= set(classes)
    np.testing.assert_array_equal(masks.transform(X, labels), masks.transform(X))
    assert masks.transform(X, y).max() <= len(classes)


@pytest.mark.parametrize("name", ["enumeration", "integer enumeration", "big integers", "pandas Int64", "pandas string",
                                  "pandas category", "scalars of torch"])  # fmt: skip
def test_detector(name, tmp_path):
    y, classes = GOOD[name]
    fitted = detector().fit(X, y)
    same(fitted.classes_.tolist(), classes)
    accuracy = fitted.score(X, y)
    assert accuracy == class_accuracy(fitted, X, y)["dfb"]
    refitted = fitted.refit_scorer(X=X, y=y)
    np.testing.assert_allclose(refitted.score_samples(X), fitted.score_samples(X))
    with pytest.raises(ValueError, match="y differs from the labels of fit") as raised:
        fitted.refit_scorer(X=X, y=list(y)[::-1])
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(
    "labels", [INDICES, of(["c", "a", "b"]), of([Whole.C, Whole.A, Whole.B])], ids=["int", "str", "enum"]
)
def test_items_of_datasets(labels):
    fitted = detector().fit(Labelled(labels))
    same(fitted.classes_.tolist(), sorted(set(np.asarray(labels, dtype=object).tolist())))
    assert fitted.score(Labelled(labels)) == fitted.score(X, labels)


@pytest.mark.parametrize("door", ["detector", "features", "masks", "split", "score"])
@pytest.mark.parametrize(("y", "message"), BAD.values(), ids=BAD)
def test_errors(y, message, door, network):
    one_class = "one class" in message
    doors = {
        "detector": lambda: detector().fit(X, y),
        "features": lambda: features().fit(ROWS, y),
        "masks": lambda: CAMMaskGenerator(network, device="cpu").fit(X, y),
        "split": lambda: next(LeaveClassesOut().split(ROWS, y)),
        "score": lambda: SCORED.score(ROWS, y),
    }
    if door in ("features", "split", "score") and (one_class or isinstance(y, set | str | int)):
        return  # one class is fine there, and the number of samples is checked first
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((ValueError, TypeError), match=message) as raised:
            doors[door]()
    assert len(str(raised.value)) < 400


SCORED = features().fit(ROWS, INDICES)


@pytest.mark.parametrize("column", [INDICES[:, None], pd.DataFrame({"label": INDICES})], ids=["array", "frame"])
def test_a_column_is_accepted_with_a_warning(column):
    with pytest.warns(DataConversionWarning):
        fitted = features().fit(ROWS, column)
    same(fitted.classes_.tolist(), [0, 1, 2])


@pytest.mark.parametrize("name", ["pandas Int64", "pandas string", "pandas category", "strings", "big integers"])
def test_cross_validation(name):
    y = GOOD[name][0]
    if name != "big integers":  # scikit-learn's own splits do not take them
        assert cross_val_score(features(), ROWS, y, cv=StratifiedKFold(2)).min() > 0.5
    split = LeaveClassesOut(n_splits=2, n_left_out=1, random_state=0)
    labels = np.asarray(y, dtype=object)
    for train, test in split.split(ROWS, y):
        fitted = features().fit(ROWS[train], labels[train])
        assert len(fitted.classes_) == 2
        assert 0 <= left_out_auroc(fitted, ROWS[test], labels[test]) <= 1


@pytest.mark.parametrize("name", ["integers", "whole floats", "strings", "objects: strings", "big integers",
                                  "pandas category", "booleans and one more class", "unsigned", "integer enumeration",
                                  "enumeration", "text enumeration"])  # fmt: skip
def test_saved_and_loaded(name, tmp_path):
    y, classes = GOOD[name]
    fitted = features().fit(ROWS, y)
    skdfb.save(fitted, tmp_path / "model")
    loaded = skdfb.load(tmp_path / "model", customs=[Plain, Whole, Text])
    same(loaded.classes_.tolist(), classes)
    same(loaded.classify(ROWS).tolist(), fitted.classify(ROWS).tolist())
    assert loaded.classes_.dtype == fitted.classes_.dtype


def test_an_enumeration_needs_customs(tmp_path):
    skdfb.save(features().fit(ROWS, GOOD["enumeration"][0]), tmp_path / "model")
    for customs, message in (((), r"customs=\[Plain\]"), ({f"{__name__}.Plain": dict}, "lacks")):
        with pytest.raises(InvalidModelError, match=message):
            skdfb.load(tmp_path / "model", customs=customs)


@pytest.mark.parametrize("label", ["x" * 10**4, HUGE**300], ids=["text", "integer"])
def test_a_long_unknown_label_is_cut(label):
    fitted = features().fit(ROWS, of([label, 2 * label, 3 * label]))
    with pytest.raises(ValueError, match="unknown_label=") as raised:
        fitted.predict_open_set(ROWS, unknown_label=label)
    assert len(str(raised.value)) < 250
