"""Paths and labels of images from a table: a CSV file or a data frame."""

import csv
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from sklearn.utils import Bunch

from skdfb.images import encode_labels, label_array, shown

__all__ = ["load_image_table"]

# Usual names of columns, in lower case and with "_" between words.
_PATH_NAMES = {
    *("path", "paths", "file", "files", "filename", "filenames", "filepath", "file_name", "file_path", "image_file"),
    *("image", "images", "image_path", "image_name", "image_filename", "img", "img_path", "img_name", "picture"),
}
_LABEL_NAMES = {
    *("label", "labels", "class", "classes", "class_name", "label_name", "target", "targets", "species", "category"),
    "y",
}
_MISSING = {"", "NA", "N/A", "#N/A", "NaN", "nan", "<NA>"}  # texts that stand for no value
_DELIMITERS = ",;\t|"
_MOST_SHOWN = 5  # rows in a message
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".tif")  # that tables of names leave out


@dataclass(frozen=True)
class _Table:
    """A table of any kind."""

    given: str  # what a message calls it
    columns: list[Any]
    read: Callable[[Any], list[Any]]  # the values of a column
    places: Sequence[int]  # of the rows: lines of a file, or numbers from 0
    unit: str  # what a message calls a place

    def named(self, rows: Sequence[int]) -> str:
        """Return the places of rows as a text; of many, the first ones."""
        texts = [str(self.places[row]) for row in rows[:_MOST_SHOWN]]
        return f"{self.unit}{'s' if len(rows) > 1 else ''} {', '.join(texts)}{_dots(rows)}"


def load_image_table(
    source: Any,
    *,
    path_column: str | None = None,
    label_column: str | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Bunch:
    r"""List the images of a table with their labels; no image is read.

    Parameters
    ----------
    source : path or data frame
        A CSV file in UTF-8, whose first line names the columns and whose values are separated by commas, semicolons,
        tabs or "|"; spaces around values are dropped. Or a data frame.
    path_column : str, default=None
        Column of the paths. None takes the column with a usual name, such as "path", "file", "filename" or "image".
    label_column : str, default=None
        Column of the labels. None takes the column with a usual name, such as "label", "class", "target" or "species".
    root : path, default=None
        The folder that relative paths are relative to. None is the folder of the CSV file, and for a data frame the
        working directory.

    Returns
    -------
    data : Bunch
        With the keys

        - ``paths``: list of n str, in the order of the rows;
        - ``labels``: ndarray of shape (n,), of str for a CSV file and as they are for a data frame; None without a
          column of labels;
        - ``classes``: sorted list of the labels; None where there are none.

    Raises
    ------
    FileNotFoundError
        If the table or files of it are missing; the first five are named, with their lines or rows.
    ValueError
        If no column or several columns may be the one of the paths or of the labels, if there are no rows, if a path or
        a label is missing, if a file has two labels, or if the file is no such table.
    TypeError
        If `source` is of another type, or paths are no texts.

    Warns
    -----
    UserWarning
        If no column has a usual name for labels, but there are further columns.

    See Also
    --------
    load_image_folder : Paths and labels from a folder.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from skdfb.datasets import load_image_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ["1.png", "2.png"]:
    ...         Image.new("RGB", (8, 8)).save(Path(folder) / name)
    ...     table = Path(folder) / "table.csv"
    ...     _ = table.write_text("file,species\n1.png,wren\n2.png,robin\n")
    ...     data = load_image_table(table)
    >>> [Path(path).name for path in data.paths], data.labels.tolist(), data.classes
    (['1.png', '2.png'], ['wren', 'robin'], ['robin', 'wren'])
    """
    if isinstance(source, str | os.PathLike):
        file = os.path.expanduser(os.fsdecode(source))
        table = _from_csv(file)
        root = os.path.dirname(file) if root is None else root
    else:
        table = _from_frame(source)
    if not table.places:
        raise ValueError(f"{table.given} has no rows: expected one row per image.")
    # 1. The columns.
    path_name = _column(table, path_column, "path_column", _PATH_NAMES)
    if path_name is None:
        raise ValueError(
            f"{table.given} has the columns {_listed(table.columns)}, none of which has a usual name for paths: "
            "expected the names of the columns in the first line; pass path_column=, the one of the paths."
        )
    label_name = _column(table, label_column, "label_column", _LABEL_NAMES, but=path_name)
    # 2. What is in them.
    paths = _paths(table, path_name, "" if root is None else os.path.expanduser(os.fsdecode(root)))
    if label_name is None:
        _warn_of_columns(table, path_name)
        return Bunch(paths=paths, labels=None, classes=None)
    labels = _labels(table, label_name)
    _check_agree(table, paths, labels)
    return Bunch(paths=paths, labels=labels, classes=encode_labels(labels)[0].tolist())


# ------------------------------------------------------------------ tables


def _from_csv(path: str) -> _Table:
    given = f"source is the file {path!r}, which"
    if os.path.isdir(path):
        raise IsADirectoryError(f"source is the folder {path!r}: expected a CSV file; pass it to load_image_folder.")
    if not os.path.exists(path):
        raise FileNotFoundError(f"source is the path {shown(path, 300)}, which does not exist: expected a CSV file.")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = file.readlines()
        header = next((line for line in lines if line.strip()), "")
        # The one that makes most columns; a comma, if all make one.
        delimiter = max(_DELIMITERS, key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
        # With the line on which a row ends. Spreadsheets save rows without values at the end.
        rows = [(reader.line_num, [value.strip() for value in row]) for row in reader if any(map(str.strip, row))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{given} cannot be read ({error}): expected CSV in UTF-8; for others pass a data frame, such as "
            "pandas.read_csv(source, encoding='latin-1') or pandas.read_excel(source)."
        ) from error
    if not rows:
        raise ValueError(f"{given} is empty: expected a line with the names of the columns, and one row per image.")
    columns = rows.pop(0)[1]
    for line, row in rows:
        if len(row) != len(columns):
            raise ValueError(
                f"{given} has {len(row)} values in line {line}: expected {len(columns)}, one per column of "
                f"{_listed(columns)}; put values with a {delimiter!r} in quotes."
            )

    def read(name: Any) -> list[Any]:
        place = columns.index(name)
        return [row[place] for _, row in rows]

    return _Table(given, columns, read, [line for line, _ in rows], "line")


def _from_frame(frame: Any) -> _Table:
    if not (hasattr(frame, "columns") and hasattr(frame, "to_numpy")):
        raise TypeError(
            f"source has type {type(frame).__name__}: expected the path of a CSV file, or a data frame; for columns "
            "in a dict, pass pandas.DataFrame(source)."
        )
    return _Table("source", list(frame.columns), lambda name: list(frame[name]), range(len(frame)), "row")


def _column(table: _Table, given: Any, parameter: str, usual: set[str], but: Any = None) -> Any:
    """Return the name of a column, given or usual; None if there is none."""
    if given is not None and given not in table.columns:
        raise ValueError(
            f"{parameter}={shown(given)}: expected one of the columns of source, {_listed(table.columns)}."
        )
    found = [name for name in table.columns if name != but and _plain(name) in usual]
    if given is not None:
        found = [name for name in table.columns if name == given]
    if len(found) > 1:
        raise ValueError(
            f"{table.given} has the columns {_listed(table.columns)}, of which {_listed(found)} may be meant: expected "
            f"one; pass {parameter}=, one of them, if their names differ."
        )
    return found[0] if found else None


def _plain(name: Any) -> str:
    return str(name).strip().lower().replace(" ", "_").replace("-", "_")


def _listed(names: Sequence[Any], most: int = 20) -> str:
    return ", ".join(shown(name, 40) for name in names[:most]) + (", ..." if len(names) > most else "")


def _dots(rows: Sequence[int]) -> str:
    return ", ..." if len(rows) > _MOST_SHOWN else ""


def _warn_of_columns(table: _Table, path_name: Any) -> None:
    others = [name for name in table.columns if name != path_name]
    if others:  # without labels, a detector would make classes of its own
        warnings.warn(
            f"{table.given} has no column with a usual name for labels, so that there are none; the other columns are "
            f"{_listed(others)}. If one of them has the labels, pass label_column=.",
            UserWarning,
            stacklevel=3,
        )


# ------------------------------------------------------------------ values


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip() in _MISSING
    # NaN and pandas' NaT are not equal to themselves; a comparison with pandas' NA has no truth value.
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )


def _check_complete(table: _Table, name: Any, values: Sequence[Any], what: str) -> None:
    missing = [row for row, value in enumerate(values) if _is_missing(value)]
    if missing:
        found = sorted({value for value in map(str, (values[row] for row in missing)) if value.strip()})
        raise ValueError(
            f"column {shown(name)} has no {what} in {table.named(missing)}{f' ({_listed(found)})' if found else ''}: "
            f"expected one {what} per row; fill them in, or leave these {len(missing)} of {len(values)} rows out."
        )


def _paths(table: _Table, name: Any, root: str) -> list[str]:
    """Return the paths of files that exist."""
    values = table.read(name)
    _check_complete(table, name, values, "path")
    for row, value in enumerate(values):
        if not isinstance(value, str | os.PathLike):
            raise TypeError(
                f"column {shown(name)} has a {type(value).__name__}, {shown(value)}, in {table.named([row])}: expected "
                "the paths of files; pass path_column=, the one of the paths."
            )
    paths = [os.path.join(root, os.path.expanduser(os.fsdecode(value))) for value in values]
    absent = [row for row, path in enumerate(paths) if not os.path.isfile(path)]
    if absent:
        first = [f"{paths[row]!r} ({table.named([row])})" for row in absent[:_MOST_SHOWN]]
        raise FileNotFoundError(
            f"{len(absent)} of {len(paths)} files of column {shown(name)} are missing: {', '.join(first)}"
            f"{_dots(absent)}. {_remedy(os.fsdecode(values[absent[0]]), paths[absent[0]], root)}"
        )
    return paths


def _remedy(value: str, path: str, root: str) -> str:
    """Return what may be wrong with the path of a file that is missing."""
    if "\\" in value and os.sep == "/":
        return "The paths are those of Windows: expected '/' instead of the backslashes."
    if os.path.isfile(value):
        return "The files are there as seen from the working directory: pass root='.'."
    added = next((end for end in _EXTENSIONS if os.path.isfile(path + end)), None)
    if added is not None:
        return f"There is {path + added!r}: expected paths with the extension, {added!r}."
    return f"Relative paths start from the folder {root or os.getcwd()!r}: for another one pass root=."


def _labels(table: _Table, name: Any) -> npt.NDArray[Any]:
    values = table.read(name)
    _check_complete(table, name, values, "label")
    return label_array(values, f"column {shown(name)}")


def _check_agree(table: _Table, paths: Sequence[str], labels: npt.NDArray[Any]) -> None:
    """Refuse a file with two labels."""
    first: dict[str, int] = {}
    for row, path in enumerate(paths):
        other = first.setdefault(path, row)
        if labels[other] != labels[row]:
            raise ValueError(
                f"{path!r} has two labels, {shown(labels.tolist()[other])} and {shown(labels.tolist()[row])}, in "
                f"{table.named([other, row])}: expected one label per file; images of several classes cannot be used."
            )
