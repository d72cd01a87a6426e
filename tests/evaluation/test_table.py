"""Tables are dicts of arrays, with or without pandas."""

import builtins
import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skdfb.evaluation import Table, evaluate

TABLE = Table(ood=["noise", "textures"], n_ood=[20, 30], auroc=[0.99, 0.914159])


def test_columns():
    assert list(TABLE) == ["ood", "n_ood", "auroc"]
    assert TABLE.auroc is TABLE["auroc"]
    assert TABLE.ood.tolist() == ["noise", "textures"]
    assert [column.dtype.kind for column in TABLE.values()] == ["O", "i", "f"]
    assert type(TABLE.ood[0]) is str
    assert isinstance(TABLE, dict)
    with pytest.raises(AttributeError):
        TABLE.fpr95  # noqa: B018


def test_tab_completion_finds_columns_and_methods():
    assert {"ood", "auroc", "to_frame", "from_rows", "items"} <= set(dir(TABLE))


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"ood": ["noise"], "auroc": [0.5, 0.6]}, r"1-d columns of one length, got the shapes .*'auroc': \(2,\)"),
        ({"auroc": [[0.5, 0.6]]}, r"1-d columns of one length, got the shapes \{'auroc': \(1, 2\)\}"),
        ({"auroc": 0.5}, r"got the shapes \{'auroc': \(\)\}"),
    ],
)
def test_columns_are_of_one_length(columns, match):
    with pytest.raises(ValueError, match=match):
        Table(**columns)


def test_rows():
    rows = [{"ood": "noise", "auroc": 0.5}, {"auroc": 0.25, "ood": "else"}]
    table = Table.from_rows(rows)
    assert table.ood.tolist() == ["noise", "else"]
    assert table.auroc.tolist() == [0.5, 0.25]
    assert list(table) == ["ood", "auroc"]


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([], "Expected at least one row, got none"),
        ([{"a": 1, "b": 2}, {"a": 1}], r"Expected the columns \['a', 'b'\] in each row, got \['a'\]"),
        ([{"a": 1}, {"a": 1, "b": 2}], r"Expected the columns \['a'\] in each row, got \['a', 'b'\]"),
    ],
)
def test_bad_rows(rows, match):
    with pytest.raises(ValueError, match=match):
        Table.from_rows(rows)


def test_data_frame():
    frame = TABLE.to_frame()
    assert list(frame.columns) == list(TABLE)
    assert frame.loc[1, "ood"] == "textures"
    assert_array_equal(frame["auroc"], TABLE.auroc)
    frame.loc[0, "auroc"] = 0.0
    assert TABLE.auroc[0] == 0.99


def test_text():
    lines = repr(TABLE).split("\n")
    assert lines == ["ood       n_ood  auroc", "noise     20     0.99", "textures  30     0.9142"]
    other = copy.copy(TABLE)
    other.auroc = [0.25, 1]
    assert repr(other).split("\n")[1:] == ["noise     20     0.25", "textures  30     1"]
    assert repr(Table(ood=[], auroc=[])) == "ood  auroc"


@pytest.mark.parametrize("copied", [lambda table: pickle.loads(pickle.dumps(table)), copy.copy, copy.deepcopy])
def test_copies(copied):
    other = copied(TABLE)
    assert type(other) is Table
    assert repr(other) == repr(TABLE)
    assert [column.dtype for column in other.values()] == [column.dtype for column in TABLE.values()]
    assert_array_equal(other.auroc, TABLE.auroc)


def test_without_pandas(monkeypatch):
    original = builtins.__import__

    def without_pandas(name, *arguments, **options):
        if name == "pandas":
            raise ImportError(name)
        return original(name, *arguments, **options)

    class Scores:
        def score_samples(self, X):
            return X[:, 0]

    rng = np.random.default_rng(0)
    images, ood = rng.normal(size=(30, 2)), {"far": rng.normal(size=(20, 2)) - 3}
    monkeypatch.setattr(builtins, "__import__", without_pandas)
    table = evaluate(Scores(), images, ood, random_state=0)
    assert table.n_ood.tolist() == [20]
    assert repr(table).startswith("ood  n_id  n_ood  auroc")
    with pytest.raises(ImportError, match=r"to_frame\(\) needs pandas: run pip install pandas"):
        table.to_frame()
