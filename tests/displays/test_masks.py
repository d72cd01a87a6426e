"""Masks are plotted beside their images, whatever form these have."""

import numpy as np
import pytest
from PIL import Image

from skdfb.displays import MaskDisplay
from skdfb.exceptions import UnreadableImageError
from tests.displays.stubs import Detector, images


def drawn(ax):
    return np.asarray(ax.get_images()[0].get_array())


def test_from_estimator():
    X = images()
    display = MaskDisplay.from_estimator(Detector(), X)
    assert display.axes_.shape == (2, 3)
    np.testing.assert_array_equal(drawn(display.axes_[1, 0])[:, :3], 1)
    np.testing.assert_array_equal(drawn(display.axes_[1, 0])[:, 3:], 0)
    np.testing.assert_allclose(drawn(display.axes_[0, 2]), X[2], rtol=1e-6)


def test_only_the_first_images_are_segmented():
    detector = Detector()
    display = MaskDisplay.from_estimator(detector, images(5), max_images=2)
    assert detector.n_seen == [2]
    assert display.axes_.shape == (2, 2)


@pytest.mark.parametrize("form", ["folder", "paths", "PIL images", "arrays of several sizes", "one path"])
def test_forms_of_images(form, tmp_path):
    pixels = [np.full((8, 8, 3), 40, np.uint8), np.full((4, 10, 3), 200, np.uint8)]
    paths = [tmp_path / f"{index}.png" for index in range(2)]
    for path, values in zip(paths, pixels, strict=True):
        Image.fromarray(values).save(path)
    given = {
        "folder": tmp_path,
        "paths": paths,
        "PIL images": [Image.fromarray(values) for values in pixels],
        "arrays of several sizes": pixels,
        "one path": paths[0],
    }[form]
    n = 1 if form == "one path" else 2
    display = MaskDisplay.from_predictions(given, {"mask": np.zeros((n, 3, 3))})
    for index in range(n):
        np.testing.assert_array_equal(display.pictures[index], pixels[index])
        # The map is stretched over the image.
        assert (
            display.axes_[1, index].get_images()[0].get_extent() == display.axes_[0, index].get_images()[0].get_extent()
        )


def test_large_images_are_plotted_smaller():
    display = MaskDisplay.from_predictions(np.full((1, 1500, 900, 3), 7, np.uint8), {"mask": np.zeros((1, 3, 3))})
    assert display.pictures[0].shape == (500, 300, 3)
    assert (display.pictures[0] == 7).all()


def test_maps_of_several_sizes():
    maps = [np.zeros((4, 4), bool), np.ones((2, 3), bool)]
    display = MaskDisplay.from_predictions(images(2), {"mask": maps})
    np.testing.assert_array_equal(drawn(display.axes_[1, 1]), maps[1])


def test_grey_images_are_not_stretched():
    X = np.full((2, 5, 5), 128, dtype=np.uint8)
    for values in (X, X / 255):
        display = MaskDisplay.from_predictions(values, {"mask": np.zeros((2, 5, 5), dtype=bool)})
        np.testing.assert_allclose(drawn(display.axes_[0, 0]), np.full((5, 5, 3), values[0, 0, 0]), rtol=1e-6)
        assert display.axes_[1, 0].get_images()[0].get_clim() == (0, 1)


@pytest.mark.parametrize(
    ("X", "mask", "error", "message"),
    [
        (["no_such.png"], np.zeros((1, 4, 4)), UnreadableImageError, r"no_such\.png"),
        (np.zeros((4, 4)), np.zeros((1, 4, 4)), TypeError, r"images is an array of shape \(4, 4\): expected"),
        (
            np.zeros((2, 4, 4, 3)),
            np.zeros((1, 4, 4)),
            ValueError,
            r"maps\['mask'\] has shape \(1, 4, 4\): expected \(2,",
        ),
        (np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4, 3)), ValueError, r"maps\['mask'\] has shape \(2, 4, 4, 3\)"),
        (np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4), int), ValueError, "holds integers: .*pass masks < n_classes"),
        (np.zeros((1, 4, 4, 3)), np.full((1, 4, 4), 2.0), ValueError, r"values in 2\.\.2: expected probabilities"),
        (np.zeros((1, 4, 4, 3)), np.full((1, 4, 4), np.nan), ValueError, r"values in nan\.\.nan: expected prob"),
    ],
)
def test_bad_images_and_maps_are_refused(X, mask, error, message):
    with pytest.raises(error, match=message):
        MaskDisplay.from_predictions(X, {"mask": mask})


def test_maps_by_name_are_needed():
    with pytest.raises(TypeError, match="maps is a ndarray: expected a mapping"):
        MaskDisplay.from_predictions(images(), np.zeros((3, 6, 6)))
