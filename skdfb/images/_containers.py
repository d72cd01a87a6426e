"""What holds images: data frames, columns of arrays, tables of a dataset library, pairs of image and label."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from skdfb.images._files import image_extensions, is_file, is_web_address
from skdfb.images._folders import is_folder, scan_folder
from skdfb.images._pixels import ACCEPTED_FORMS

__all__ = ["image_and_label", "is_dataset", "is_image_item", "opened", "unwrapped"]

# Names of the columns of image sets that are published as tables.
_IMAGE_KEYS = ("image", "img", "pixel_values", "picture")
_LABEL_KEYS = ("label", "labels", "target", "class", "fine_label", "coarse_label")
_TABLES = (".csv", ".tsv")


def unwrapped(X: Any, name: str) -> Any:
    """Return the images that a container holds: a folder, a list, an array or a dataset; anything else as it is.

    Raises
    ------
    TypeError
        If ``X`` is a single image, or a table of numbers and other things, or of one column too many.
    ValueError, OSError
        If ``X`` is a path that does not exist, or a folder without images; see :func:`scan_folder`.
    """
    if isinstance(X, Image.Image) or is_file(X):
        return opened(X, name)
    if isinstance(X, DataLoader):
        raise TypeError(f"{name} is a DataLoader, which gives batches: expected its images; pass {name}.dataset.")
    if isinstance(X, Dataset) and not (hasattr(X, "__len__") and hasattr(X, "__getitem__")):
        raise TypeError(f"{name} is an iterable-style dataset: expected a map-style dataset with a length.")
    if hasattr(X, "iloc") and hasattr(X, "ndim"):
        return _of_frame(X, name)
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.shape[1] == 1 and X.dtype.kind in "OUS":
        return X[:, 0]
    if isinstance(X, Mapping) and not hasattr(X, "ndim"):  # a sparse matrix of scipy is a mapping, too
        return _of_columns(X, name)
    return X


def opened(X: Any, name: str) -> Any:
    """Return what a folder holds, if ``X`` is the path of one; anything else as it is, but for single images."""
    if isinstance(X, str | os.PathLike) and is_web_address(X):
        raise ValueError(
            f"{name} is the web address {str(X)!r}: expected images; download them first, and pass the path of their "
            "folder or a list of paths."
        )
    if isinstance(X, str | os.PathLike) and not _is_single(X):
        return scan_folder(X, name)
    if isinstance(X, Image.Image) or is_file(X):
        _refuse_single(X, name)
    return X


def is_dataset(X: Any) -> bool:
    """Tell whether items are to be read from ``X`` one by one, when they are needed."""
    if isinstance(X, Dataset):
        return True
    if isinstance(X, list | tuple):
        return len(X) > 0 and _is_record(X[0])
    # Lazy sequences, and the tables of dataset libraries.
    has_items = hasattr(X, "__len__") and hasattr(X, "__getitem__")
    is_array = hasattr(X, "__array__") or hasattr(X, "iloc") or hasattr(X, "dtype")
    return has_items and not is_array and not isinstance(X, Mapping | str | bytes | bytearray | range)


def is_image_item(item: Any) -> bool:
    """Tell whether an item is a single image by its type."""
    return isinstance(item, Image.Image) or is_file(item) or (isinstance(item, np.ndarray | Tensor) and item.ndim > 1)


def image_and_label(item: Any, index: int) -> tuple[Any, ...]:
    """Return an item of a dataset as a tuple that begins with the image, and then has its label if it has one.

    Raises
    ------
    TypeError
        If it is a mapping without an image.
    """
    if isinstance(item, Mapping):
        key = _image_key(item)
        if key is None:
            raise TypeError(
                f"image {index} has type {type(item).__name__} with the keys {_shortened(list(item))}: expected a "
                f"path, a PIL image or an array (H, W[, C]), or one of the keys {list(_IMAGE_KEYS)}."
            )
        label = [item[name] for name in _LABEL_KEYS if name in item][:1]
        return (_undecoded(item[key]), *label)
    return tuple(item) if isinstance(item, tuple | list) else (item,)


def _is_record(item: Any) -> bool:
    """Tell whether an item is an image with its label, or a row with an image."""
    if isinstance(item, Mapping):
        return True
    is_pair = isinstance(item, tuple | list) and len(item) > 1 and is_image_item(item[0])
    # Two images of a list are no image and its label, but [row, row] of numbers is not an image either.
    return is_pair and not (isinstance(item, list) and is_image_item(item[1]))


def _is_single(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is, or by its extension was meant to be, a file."""
    if os.path.isfile(path):
        return True
    text = os.fsdecode(path)
    is_pattern = any(character in text for character in "*?[")
    meant = not is_pattern and os.path.splitext(text)[1].lower() in image_extensions() | set(_TABLES)
    return meant and not is_folder(path)


def _refuse_single(X: Any, name: str) -> None:
    kind, remedy = type(X).__name__, f"wrap it in a list: {name}=[...]"
    if isinstance(X, str | os.PathLike) and os.fsdecode(X).lower().endswith(_TABLES):
        remedy = f"for a table of paths, pass the paths and labels of load_image_table({name})"
    raise TypeError(f"{name} is a single {kind}: expected a sequence of images; {remedy}.")


def _of_frame(X: Any, name: str) -> Any:
    """Return the column of images of a data frame or series; one of numbers as it is."""
    columns = X.to_frame() if X.ndim == 1 else X
    others = [column for column in columns.columns if getattr(columns[column].dtype, "kind", "O") not in "buif"]
    if not others or (X.ndim == 1 and getattr(X.dtype, "kind", "O") in "buif"):
        return X
    if len(columns.columns) > 1:
        raise TypeError(
            f"{name} is a table with the columns {_shortened(list(columns.columns))}, of which {_shortened(others)} "
            f"are no numbers: expected numbers, or a column of images; pass {name}[{others[0]!r}]."
        )
    return columns.iloc[:, 0].tolist()


def _of_columns(X: Mapping[Any, Any], name: str) -> Any:
    """Return the items of columns by name, as dataset libraries give several rows at once."""
    key = _image_key(X)
    if key is None:
        listed = f" Pass {name}.paths and {name}.labels." if {"paths", "labels"} <= set(X) else ""
        raise TypeError(
            f"{name} is a {type(X).__name__} with the keys {_shortened(list(X))}: expected {ACCEPTED_FORMS}; or a "
            f"column of images under one of the names {list(_IMAGE_KEYS)}.{listed}"
        )
    return [dict(zip(X, row, strict=True)) for row in zip(*X.values(), strict=True)]


def _image_key(row: Mapping[Any, Any]) -> Any:
    return next((key for key in _IMAGE_KEYS if key in row), None)


def _undecoded(image: Any) -> Any:
    """Return the file of an image that a dataset library did not decode."""
    if isinstance(image, Mapping) and {"bytes", "path"} <= set(image):
        return image["path"] if image["bytes"] is None else image["bytes"]
    return image


def _shortened(names: Sequence[Any], most: int = 5) -> str:
    shown = ", ".join(repr(name)[:40] for name in names[:most])
    return f"[{shown}{', ...' if len(names) > most else ''}]"
