"""The table that the functions of skdfb.evaluation return."""

import builtins
import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skdfb.evaluation import Table
from skdfb.evaluation._table import check_ood, metric_values

ROWS = [
    {"ood": "noise", "n_ood": 20, "auroc": 0.123456, "accuracy": float("nan")},
    {"ood": "a longer name", "n_ood": 1000, "auroc": 1.0, "accuracy": 0.5},
]


@pytest.fixture
def table():
    return Table.from_rows(ROWS)


def test_columns_are_arrays_items_and_attributes(table):
    assert list(table) == ["ood", "n_ood", "auroc", "accuracy"]
    for name, column in table.items():
        assert isinstance(column, np.ndarray)
        assert column.shape == (2,)
        assert getattr(table, name) is column is table[name]
    assert table.n_ood.dtype == np.dtype(np.intp)
    assert table.auroc.dtype == np.float64
    assert_array_equal(table.auroc, [0.123456, 1.0])
    with pytest.raises(AttributeError, match="fpr95"):
        _ = table.fpr95
    with pytest.raises(KeyError, match="fpr95"):
        _ = table["fpr95"]


def test_texts_stay_strings_of_python(table):
    assert table.ood.dtype == object
    assert [type(name) for name in table.ood] == [str, str]
    table.ood[0] = "a name that is longer than the longest one"
    assert table.ood[0] == "a name that is longer than the longest one"


def test_columns_and_methods_are_listed(table):
    assert {"ood", "auroc", "to_frame", "from_rows", "items"} <= set(dir(table))


def test_from_rows_takes_the_columns_of_the_first_row():
    table = Table.from_rows([{"b": 1, "a": 2}, {"a": 4, "b": 3}])
    assert list(table) == ["b", "a"]
    assert_array_equal([table.b, table.a], [[1, 3], [2, 4]])
    with pytest.raises(KeyError, match="b"):
        Table.from_rows([{"b": 1}, {"a": 2}])


@pytest.mark.parametrize("columns", [{"a": [1, 2], "b": [1]}, {"a": 3}, {"a": [[1, 2]], "b": [[3, 4]]}])
def test_columns_of_other_shapes_are_refused(columns):
    with pytest.raises(ValueError, match=r"columns have the shapes .*: expected 1-d columns of equal length"):
        Table(**columns)


def test_to_frame(table):
    pandas = pytest.importorskip("pandas")
    frame = table.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.equals(pandas.DataFrame(ROWS))
    frame.loc[0, "auroc"] = 0.0
    assert table.auroc[0] == 0.123456


def test_repr(table):
    assert repr(table).splitlines() == [
        "ood            n_ood  auroc   accuracy",
        "noise          20     0.1235  nan",
        "a longer name  1000   1       0.5",
    ]
    assert str(table) == repr(table)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda table: pickle.loads(pickle.dumps(table))])
def test_copies_and_pickles(table, copied):
    other = copied(table)
    assert type(other) is Table
    assert list(other) == list(table)
    for name in table:
        assert other[name].dtype == table[name].dtype
        assert_array_equal(other[name], table[name])
    assert repr(other) == repr(table)
    assert_array_equal(other.auroc, table.auroc)


def test_only_to_frame_needs_pandas(monkeypatch):
    original = builtins.__import__

    def without_pandas(name, *args, **kwargs):
        if name == "pandas":
            raise ImportError("No module named 'pandas'")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pandas)
    table = Table.from_rows(ROWS)
    assert "noise" in repr(table)
    assert table.auroc.max() == 1
    message = r"^to_frame\(\) needs pandas, which is not installed: run pip install pandas\.$"
    with pytest.raises(ImportError, match=message) as caught:
        table.to_frame()
    assert "No module named 'pandas'" in str(caught.value.__cause__)


def test_the_package_can_be_imported_without_pandas():
    code = "import sys; sys.modules['pandas'] = None; import skdfb.evaluation"  # importing pandas raises ImportError
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_metrics_by_the_name_of_their_column():
    assert metric_values([1.0, 2.0], [0.0]) == {"auroc": 1, "aupr_in": 1, "aupr_out": 1, "fpr95": 0}


@pytest.mark.parametrize(("ood", "given"), [({}, "empty"), ([1], "a list"), (None, "a NoneType")])
def test_ood_images_need_names(ood, given):
    with pytest.raises(
        TypeError, match=rf"ood is {given}: expected a mapping from names to OOD images, like \{{'noise'"
    ):
        check_ood(ood)
