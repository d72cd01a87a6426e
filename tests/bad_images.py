"""One table of bad images, for every function and method that takes images."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset

Array = npt.NDArray[Any]


class ItemDataset(Dataset[Any]):
    """A map-style dataset over a list."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class CountingDataset(ItemDataset):
    """Counts how often each item is read."""

    def __init__(self, items: Any) -> None:
        super().__init__(items)
        self.counts = np.zeros(len(items), dtype=int)

    def __getitem__(self, index: int) -> Any:
        self.counts[index] += 1
        return super().__getitem__(index)


class IterableStyle(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([np.zeros((4, 4, 3))])


def zeros(*shape: int) -> Array:
    return np.zeros(shape, dtype=np.uint8)


def with_value(value: float) -> Array:
    array = np.zeros((5, 6, 7, 3))
    array[3, 2, 1, 0] = value
    return array


# A function that makes the bad images, and the type and the message of the error that as_images raises for them.
BAD_IMAGES: dict[str, tuple[Any, type[Exception], str]] = {
    "nan": (lambda: with_value(np.nan), ValueError, r"X contains NaN or infinity \(first in image 3\)"),
    "infinity": (lambda: with_value(np.inf), ValueError, "X contains NaN or infinity"),
    "float_0_to_255": (
        lambda: with_value(254.0),
        ValueError,
        r"X has float pixels in 0\.\.254: expected floats in 0\.\.1 or uint8",
    ),
    "normalised": (lambda: with_value(-2.1), ValueError, r"in -2\.1\.\.0: .*Do not normalise by mean .* is done here"),
    "channels_first": (lambda: zeros(5, 3, 6, 4), ValueError, r"shape \(5, 3, 6, 4\).*np\.moveaxis\(X, -3, -1\)"),
    "alpha": (lambda: zeros(5, 6, 4, 4), ValueError, r"shape \(5, 6, 4, 4\).*alpha channel: pass X\[\.\.\., :3\]"),
    "two_channels": (lambda: zeros(5, 6, 4, 2), ValueError, r"shape \(5, 6, 4, 2\): expected images as an array"),
    "rank_5": (lambda: zeros(2, 5, 6, 4, 3), ValueError, r"shape \(2, 5, 6, 4, 3\): expected images as"),
    "rank_1": (lambda: zeros(7), ValueError, r"shape \(7,.*Reshape your data"),
    "rank_0": (lambda: np.uint8(3), ValueError, r"shape \(\), so no pixels"),
    "no_images": (lambda: zeros(0, 6, 4, 3), ValueError, r"shape \(0, 6, 4, 3\), so no pixels"),
    "no_height": (lambda: zeros(5, 0, 4, 3), ValueError, r"shape \(5, 0, 4, 3\), so no pixels"),
    "empty_list": (list, ValueError, r"X has shape \(0,\), so no pixels"),
    "empty_object_array": (lambda: np.array([], dtype=object), ValueError, "X has 0 images: expected at least 1"),
    "empty_dataset": (lambda: ItemDataset([]), ValueError, "X has 0 images: expected at least 1"),
    "single_colour": (
        lambda: zeros(32, 32, 3),
        ValueError,
        r"shape \(32, 32, 3\).*single colour image.*pass X\[None\]",
    ),
    "single_alpha": (lambda: zeros(32, 32, 4), ValueError, "looks like a single colour image"),
    "single_pil": (
        lambda: Image.new("RGB", (4, 4)),
        TypeError,
        r"X is a single Image: expected a sequence of images; wrap it in a list: X=\[\.\.\.\]",
    ),
    "single_path": (lambda: Path("image.png"), TypeError, "X is a single PosixPath: expected .*; wrap it in a list"),
    "single_string": (lambda: "image.png", TypeError, "X is a single str: expected .*; wrap it in a list"),
    "iterable_dataset": (IterableStyle, TypeError, "X is an iterable-style dataset: expected a map-style dataset"),
    "strings": (lambda: np.full((3, 2), "a"), TypeError, "X has dtype <U1: expected images as"),
    "complex": (lambda: np.zeros((5, 6, 4, 3), dtype=complex), TypeError, "X has dtype complex128"),
    "numbers_among_paths": (
        lambda: [Image.new("RGB", (4, 4)), 3],
        TypeError,
        r"X\[1\] has type int: expected images as",
    ),
    "none": (lambda: None, TypeError, "X has dtype object: expected images as"),
    "item_channels_first": (
        lambda: [zeros(4, 4, 3), zeros(3, 5, 4)],
        ValueError,
        r"X\[1\] has shape \(3, 5, 4\).*np\.moveaxis\(X\[1\], -3, -1\)",
    ),
    "item_alpha": (lambda: [zeros(4, 4, 3), zeros(5, 4, 4)], ValueError, r"X\[1\] has .*pass X\[1\]\[\.\.\., :3\]"),
    "item_nan": (lambda: [zeros(4, 4, 3), np.full((5, 4), np.nan)], ValueError, r"X\[1\] contains NaN"),
    "item_empty": (lambda: [zeros(4, 4, 3), zeros(0, 4)], ValueError, r"X\[1\] has shape \(0, 4, 1\)"),
    "tensor_channels_last": (
        lambda: [torch.zeros(4, 5, 3)],
        ValueError,
        r"X\[0\] has shape .*a torch tensor has its channels first",
    ),
    "masked": (
        lambda: np.ma.masked_equal(zeros(5, 6, 4, 3), 0),
        ValueError,
        r"X is a masked array with 360 masked pixels: expected .*; pass X\.filled\(0\)",
    ),
    "masked_table": (lambda: np.ma.masked_equal(zeros(5, 6), 0), ValueError, "X is a masked array with 30 masked"),
    "dates": (lambda: np.zeros((5, 6, 4, 3), "M8[s]"), TypeError, r"X has dtype datetime64\[s\]"),
    "records": (lambda: np.zeros((5, 6, 4), [("red", "u1")]), TypeError, "X has dtype .*'red'"),
    "ragged": (lambda: [[1, 2], [3]], ValueError, "X cannot be made an array"),
    "generator": (lambda: (path for path in ["a.png"]), TypeError, "X (is a generator|has dtype object)"),
    "loader": (lambda: DataLoader(ItemDataset([1])), TypeError, "X (is a DataLoader|has dtype object)"),
}
