"""Class labels of any kind: read, checked, and turned into indices."""

import datetime
from collections.abc import Iterable, Mapping, Sequence, Set
from enum import Enum
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor

__all__ = ["encode_labels", "label_array", "label_places", "shown"]

_MOST_SHOWN = 100  # characters of the user's data in a message
_EXACT = 2**53  # floats hold no larger integers exactly


def shown(value: Any, most: int = _MOST_SHOWN) -> str:
    """Return a value as a text for messages, cut to a length."""
    if isinstance(value, str | bytes | list | tuple):
        value = value[:most]  # the text of a long value would take long to make
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write integers of thousands of digits
        text = f"a very large {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def label_array(y: Any, name: str = "y") -> npt.NDArray[Any]:
    """Return labels as an array of one dimension whose items can be compared and told apart.

    Parameters
    ----------
    y : array-like of shape (n,), or (n, 1) with a warning
        Strings, numbers, booleans or members of an enumeration, in a list, an array, a tensor or a column of pandas.
    name : str, default="y"
        The name of the argument in error messages.

    Returns
    -------
    labels : ndarray of shape (n,)
        Of the dtype of the labels. Members of an enumeration stay as they are, and so do integers of more than 64 bits:
        the dtype is object then.

    Raises
    ------
    ValueError, TypeError
        Naming the first label that is none, and its place.
    """
    if isinstance(y, Tensor):
        y = y.detach().cpu()
        y = (y if y.dtype.itemsize > 2 or not y.dtype.is_floating_point else y.float()).numpy()
    if isinstance(y, Mapping | Set | str | bytes | Image.Image):
        raise TypeError(f"{name} is a {type(y).__name__}: expected one class label per image, in a list or an array.")
    if (isinstance(y, np.ndarray) and y.ndim != 1) or _is_frame(y):
        y = _column(y, name)
    if isinstance(y, np.ndarray) and y.dtype.kind in "biuf":
        return _checked_numbers(y, name)
    if isinstance(y, np.ndarray) and y.dtype.kind == "U":
        return y
    items = [_plain(item) for item in _items(y, name)]
    for place, item in enumerate(items):
        _check_item(item, place, name)
    # Strings in an array of objects stay there: their texts may differ much in length.
    as_objects = getattr(getattr(y, "dtype", None), "kind", "") == "O" or hasattr(y, "iloc")
    return _joined(items, name, as_objects=as_objects)


def encode_labels(labels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
    """Return the classes and the class of each label, from what :func:`label_array` returns.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        The labels.

    Returns
    -------
    classes : ndarray of shape (K,)
        Sorted; members of an enumeration by their values, or, if these cannot be compared, in the order of their
        definition.
    indices : ndarray of int of shape (n,)
        Place of each label among the classes.
    """
    if labels.dtype != object or not isinstance(labels[0], Enum):
        classes, indices = np.unique(labels, return_inverse=True)
        return classes, indices
    members = list(dict.fromkeys(labels.tolist()))
    try:
        members.sort(key=lambda member: member.value)
    except TypeError:
        order: list[Any] = list(type(members[0]).__members__.values())
        members.sort(key=order.index)
    classes = _as_objects(members)
    return classes, label_places(labels, classes)


def label_places(labels: npt.NDArray[Any], classes: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Return the place of each label among the classes, shape (n,); -1 for a label that is none of them."""
    # Not by np.isin or np.searchsorted, which may compare as text, so that 1 equals "1".
    place_of = {label: place for place, label in enumerate(classes.tolist())}
    return np.array([place_of.get(label, -1) for label in labels.tolist()], dtype=np.intp)


def _is_frame(y: Any) -> bool:
    return hasattr(y, "columns") and hasattr(y, "to_numpy")


def _column(y: Any, name: str) -> Any:
    """Return the only column of labels of two dimensions, with scikit-learn's warning; refuse other shapes."""
    shape = tuple(y.shape)
    if len(shape) == 2 and shape[1] == 1:
        column_or_1d(np.zeros(shape), warn=True)
        return y.iloc[:, 0] if hasattr(y, "iloc") else y[:, 0]
    remedy = f"for one-hot rows or probabilities of classes, pass {name}.argmax(1)"
    if _is_frame(y):
        remedy = f"pass the column of the labels; for one-hot columns pass {name}.to_numpy().argmax(1)"
    elif len(shape) != 2:
        remedy = "masks and images are no class labels"
    # The first words are scikit-learn's.
    raise ValueError(
        f"{name} should be a 1d array, got an array of shape {shape} instead: expected one class label per image; "
        f"{remedy}."
    )


def _items(y: Any, name: str) -> list[Any]:
    """Return the labels as a list, not cast to a common type."""
    if hasattr(y, "to_numpy"):  # pandas, polars: integers with gaps would become floats
        return list(y.tolist() if hasattr(y, "tolist") else y.to_list())
    if not isinstance(y, Iterable) and not hasattr(y, "__array__"):
        raise TypeError(f"{name} is {shown(y)}: expected one class label per image, in a list or an array.")
    y = np.asarray(y) if hasattr(y, "__array__") and not isinstance(y, np.ndarray) else y
    if isinstance(y, np.ndarray) and y.ndim != 1:
        y = _column(y, name)
    items = list(y)
    # Rows in a list, as of a table.
    rows = [item for item in items[:1] if isinstance(item, list | np.ndarray | Tensor) and np.ndim(item) == 1]
    if rows and all(np.shape(item) == np.shape(items[0]) for item in items) and _holds_numbers(items[0]):
        return list(_column(np.asarray([np.asarray(item) for item in items]), name))
    return items


def _holds_numbers(row: Sequence[Any]) -> bool:
    return len(row) == 1 or all(isinstance(_plain(value), Real) for value in row)


def _plain(item: Any) -> Any:
    """Return a label without the wrapping of NumPy or torch."""
    if isinstance(item, Enum):
        return item
    is_scalar = isinstance(item, np.generic) or (isinstance(item, np.ndarray | Tensor) and item.ndim == 0)
    if is_scalar and not isinstance(item, np.datetime64 | np.timedelta64):
        return item.item()
    return item


def _check_item(item: Any, place: int, name: str) -> None:
    """Refuse what is no label."""
    where = f"the label at place {place}"
    # NaN and pandas' NaT are not equal to themselves; a comparison with pandas' NA has no truth value.
    if item is None or type(item).__name__ in ("NAType", "NaTType") or (isinstance(item, float) and item != item):
        raise ValueError(
            f"Input {name} contains NaN: {where} is {item!r}, which is missing; give it a label or leave its image out."
        )
    if isinstance(item, Enum | str | Real):
        return
    expected = "expected a string, a number, a boolean or a member of an enumeration"
    remedy = f"for example {name} = [str(label) for label in {name}]"
    if isinstance(item, bytes):
        remedy = f"pass [label.decode() for label in {name}]"
    elif isinstance(item, Mapping):
        remedy = "targets of detection or of several tasks are no class labels: pass the entry that is the class"
    elif isinstance(item, Image.Image | np.ndarray | Tensor):
        remedy = "masks and images are no class labels: pass the class of the whole image"
    elif isinstance(item, tuple | list):
        remedy = f"join its parts, as in ['/'.join(map(str, label)) for label in {name}]"
    elif isinstance(item, datetime.date | datetime.timedelta | np.datetime64 | np.timedelta64):
        remedy = f"pass dates as texts, [str(label) for label in {name}]"
    text = "" if isinstance(item, Image.Image | np.ndarray | Tensor) else f" {shown(item, 60)},"
    # The first words are those that scikit-learn's checks require.
    raise ValueError(f"Unknown label type: {where} is{text} a {type(item).__name__}: {expected}; {remedy}.")


def _joined(items: list[Any], name: str, *, as_objects: bool) -> npt.NDArray[Any]:
    """Return checked labels as an array of the type that holds all of them exactly."""
    kinds = [_kind(item) for item in items]
    if len(set(kinds)) > 1:
        place = next(place for place, kind in enumerate(kinds) if kind != kinds[0])
        raise TypeError(
            f"{name} mixes labels that cannot be compared: {shown(items[0], 40)} ({kinds[0]}) at place 0 and "
            f"{shown(items[place], 40)} ({kinds[place]}) at place {place}: expected one kind; for example pass "
            f"[str(label) for label in {name}]."
        )
    if not items or kinds[0] == "str":
        return _as_objects(items) if as_objects else np.array(items, dtype=np.str_ if items else np.float64)
    if isinstance(items[0], Enum):
        return _as_objects(items)
    if all(isinstance(item, bool) for item in items):
        return np.array(items, dtype=np.bool_)
    if all(isinstance(item, Integral) for item in items):
        items = [int(item) for item in items]
        low, high = min(items), max(items)
        small = low >= -(2**63) and high < 2**63
        return np.array(items, dtype=np.int64) if small else _as_objects(items)
    large = [place for place, item in enumerate(items) if isinstance(item, Integral) and abs(int(item)) > _EXACT]
    if large:
        raise ValueError(
            f"{name} mixes floats with integers that no float holds exactly: {shown(items[large[0]], 40)} at place "
            f"{large[0]}: expected integers or strings alone; pass [int(label) for label in {name}]."
        )
    return _checked_numbers(np.array(items, dtype=np.float64), name)


def _kind(item: Any) -> str:
    if isinstance(item, Enum):
        return type(item).__name__
    return "str" if isinstance(item, str) else "number"


def _as_objects(items: Sequence[Any]) -> npt.NDArray[Any]:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def _checked_numbers(labels: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Refuse NaN, infinities and continuous numbers."""
    if labels.dtype.kind != "f":
        return labels
    bad = np.flatnonzero(~np.isfinite(labels))
    if len(bad):  # in scikit-learn's words
        missing = bool(np.isnan(labels[bad[0]]))
        what = "NaN" if missing else f"infinity or a value too large for {labels.dtype!r}"
        raise ValueError(
            f"Input {name} contains {what}: the label at place {bad[0]} is {labels[bad[0]]}; give it a finite label or "
            "leave its image out."
        )
    check_classification_targets(labels)
    return labels
