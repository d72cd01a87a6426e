"""Tables are dicts of arrays, whatever is installed."""

import builtins
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


def test_rows():
    rows = [{"ood": "noise", "auroc": 0.5}, {"auroc": 0.25, "ood": "else"}]
    table = Table.from_rows(rows)
    assert table.ood.tolist() == ["noise", "else"]
    assert table.auroc.tolist() == [0.5, 0.25]


def test_data_frame():
    frame = TABLE.to_frame()
    assert list(frame.columns) == list(TABLE)
    assert frame.loc[1, "ood"] == "textures"
    assert_array_equal(frame["auroc"], TABLE.auroc)


def test_text():
    lines = repr(TABLE).split("\n")
    assert lines == ["ood       n_ood  auroc", "noise     20     0.99", "textures  30     0.9142"]


def test_pickle():
    other = pickle.loads(pickle.dumps(TABLE))
    assert type(other) is Table
    assert repr(other) == repr(TABLE)


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
    with pytest.raises(ImportError, match=r"to_frame\(\) needs pandas: run pip install pandas"):
        table.to_frame()
