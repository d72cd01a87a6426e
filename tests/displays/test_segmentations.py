"""Class maps show the most probable class per pixel, and nothing where this is the background."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from PIL import Image

from skdfb.displays import SegmentationDisplay
from skdfb.displays._style import OTHERS, PALETTE
from tests.displays.stubs import Detector, images


def test_from_estimator():
    X = images()
    display = SegmentationDisplay.from_estimator(Detector(), X)
    assert display.axes_.shape == (3, 3)
    np.testing.assert_allclose(display.axes_[1, 0].get_images()[0].get_array(), X[1], rtol=1e-6)
    assert (display.class_maps[:, :, :3] == 1).all()
    assert (display.class_maps[:, :, 3:] == 2).all()
    overlay = display.axes_[1, 1].get_images()[1].get_array()
    np.testing.assert_allclose(overlay[:, :3], np.broadcast_to(to_rgba(PALETTE[0], 0.65), (6, 3, 4)))
    np.testing.assert_array_equal(overlay[..., 3][:, 3:], 0)
    background = display.axes_[1, 2].get_images()[0]
    np.testing.assert_array_equal(background.get_array(), Detector().segment(X)[1, ..., -1])
    assert background.get_clim() == (0, 1)


def legend_of(display):
    legends = [ax.get_legend() for ax in display.figure_.axes if ax.get_legend() is not None]
    return [text.get_text() for legend in legends for text in legend.get_texts()]


def test_the_legend_names_the_classes_that_are_there():
    assert legend_of(SegmentationDisplay.from_estimator(Detector(), images())) == ["bee"]


def test_of_many_classes_the_largest_have_colours():
    maps = np.repeat([np.arange(10), np.arange(10)], [1, 1], axis=0)[None]  # classes 0..9 on two pixels each
    maps = np.concatenate([maps, np.full((1, 3, 10), 70)], axis=1)
    probabilities = np.eye(101)[maps]
    display = SegmentationDisplay.from_predictions(images(1), probabilities)
    assert legend_of(display) == ["0", "1", "2", "3", "4", "70", "5 other classes"]
    overlay = display.axes_[0, 1].get_images()[1].get_array()
    np.testing.assert_allclose(overlay[0, 9], to_rgba(OTHERS, 0.65))


def test_only_background_has_no_legend():
    probabilities = np.zeros((1, 4, 4, 3))
    probabilities[..., -1] = 1
    display = SegmentationDisplay.from_predictions(images(1), probabilities)
    assert legend_of(display) == []


@pytest.mark.parametrize("n", [1, 3, 4, 10])
def test_numbers_of_images(n):
    display = SegmentationDisplay.from_estimator(Detector(), images(12), max_images=n)
    assert display.axes_.shape == (n, 3)
    assert len(display.pictures) == n


def test_paths_keep_their_form(tmp_path):
    Image.fromarray(np.zeros((8, 20, 3), np.uint8)).save(tmp_path / "a.png")
    display = SegmentationDisplay.from_estimator(Detector(), [tmp_path / "a.png"])
    assert display.axes_[0, 2].get_images()[0].get_extent() == [-0.5, 19.5, 7.5, -0.5]


@pytest.mark.parametrize(
    ("shape", "value", "message"),
    [
        ((2, 4, 4, 3), 0.3, r"has shape \(2, 4, 4, 3\) for 3 images: expected one map per image"),
        ((3, 4, 4), 0.3, r"has shape \(3, 4, 4\) and dtype float64: expected floats of shape \(n, H, W, K \+ 1\)"),
        ((3, 4, 4, 3), 1.5, r"values in 1\.5\.\.1\.5: expected probabilities"),
        ((3, 4, 4, 3), np.nan, r"values in nan\.\.nan: expected probabilities"),
    ],
)
def test_bad_probabilities_are_refused(shape, value, message):
    with pytest.raises(ValueError, match=message):
        SegmentationDisplay.from_predictions(images(), np.full(shape, value))


def test_bad_names_and_detectors_are_refused():
    with pytest.raises(ValueError, match="classes has 1 names: expected 2"):
        SegmentationDisplay.from_predictions(images(), np.full((3, 4, 4, 3), 0.3), classes=["ant"])
    with pytest.raises(TypeError, match="has no segment: expected a fitted detector"):
        SegmentationDisplay.from_estimator(object(), images())
