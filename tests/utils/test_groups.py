"""Groups of images: any labels, one per image, none missing."""

import numpy as np
import pandas as pd
import pytest
import torch

from skdfb.utils import check_groups


@pytest.mark.parametrize(
    "groups",
    [
        ["b", "a", "b"],
        ("b", "a", "b"),
        np.array(["b", "a", "b"]),
        np.array([7, -1, 7]),
        np.array([0.5, 0.25, 0.5]),
        [("anna", 1), ("anna", 2), ("anna", 1)],
        pd.Series(["b", "a", "b"], index=[5, 3, 1]),
        pd.Series(["b", "a", "b"], dtype="category"),
        pd.array([3, 1, 3], dtype="Int64"),
        torch.tensor([3, 1, 3]),
        ["1", 1, "1"],
    ],
    ids=repr,
)
def test_any_labels(groups):
    assert check_groups(groups, 3).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["a", "b"], r"groups has 2 labels for 3 images: expected a 1-d array-like with one label per image"),
        ("abc", "groups='abc': expected"),
        (7, "groups=7: expected"),
        (np.zeros((3, 1)), r"groups has shape \(3, 1\): expected"),
        ([None, "a", "b"], "groups has no label for 1 of 3 images: .*give each image .* a label of its own"),
        ([np.nan, 1.0, np.nan], "groups has no label for 2 of 3 images"),
        (pd.array([1, None, 3], dtype="Int64"), "groups has no label for 1 of 3 images"),
        ([["a"], ["b"], ["c"]], "groups has a label that cannot be compared"),
    ],
)
def test_bad_groups(groups, message):
    with pytest.raises((TypeError, ValueError), match=message):
        check_groups(groups, 3)
