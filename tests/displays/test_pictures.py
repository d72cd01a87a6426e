"""Some images are taken of any form, without reading the others."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import TensorDataset

from skdfb.displays._pictures import listed, n_images_of, read_pictures, rows_of
from skdfb.images import as_images

X = np.arange(4 * 5 * 5 * 3, dtype=np.uint8).reshape(4, 5, 5, 3)
FORMS = {
    "array": X,
    "list": list(X),
    "tensor": torch.from_numpy(X),
    "images": as_images(X),
    "dataset": [(image, 1) for image in X],
    "torch dataset": TensorDataset(torch.from_numpy(np.moveaxis(X, -1, 1)), torch.arange(4)),
    "columns": {"image": list(X), "label": [0] * 4},
}


@pytest.mark.parametrize("form", FORMS)
def test_rows(form):
    images = listed(FORMS[form])
    assert n_images_of(images) == 4
    pictures = read_pictures(rows_of(images, [2, 0]))
    np.testing.assert_array_equal(pictures, X[[2, 0]])


def test_rows_of_numbers():
    class Detector:
        image_shape_ = (5, 5, 3)

    table = pd.DataFrame(X.reshape(4, -1))
    pictures = read_pictures(rows_of(listed(table), [3]), estimator=Detector())
    np.testing.assert_array_equal(pictures[0], X[3])


def test_integers_of_a_camera_are_read_as_the_detector_reads_them():
    class Detector:
        image_range_ = (0, 4095)

    pictures = read_pictures(np.full((1, 5, 5), 819, np.uint16), estimator=Detector())
    np.testing.assert_allclose(pictures[0], np.full((5, 5, 3), 0.2), rtol=1e-6)


def test_images_of_other_channels_are_grey():
    class Detector:
        _n_channels_ = 5

    pictures = read_pictures(np.eye(5)[None, None].repeat(4, axis=1), estimator=Detector())
    np.testing.assert_allclose(pictures[0], np.full((4, 5, 3), 0.2))
