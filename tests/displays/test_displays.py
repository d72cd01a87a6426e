"""Displays plot exactly the numbers that they get."""

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("agg")
import matplotlib.pyplot as plt

from skdfb.displays import MaskDisplay, ScoreHistogramDisplay


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


class Detector:
    """A detector whose score is the mean pixel and whose foreground is the left half of the image."""

    offset_ = 0.25

    def score_samples(self, X):
        return X.mean((1, 2, 3))

    def segment(self, X):
        background = np.zeros(X.shape[:3])
        background[:, :, X.shape[2] // 2 :] = 1
        return np.stack([1 - background, background], axis=-1)


def test_histogram_from_estimator():
    images = {"known": np.full((5, 4, 4, 3), 0.5), "noise": np.zeros((3, 4, 4, 3))}
    display = ScoreHistogramDisplay.from_estimator(Detector(), images)
    np.testing.assert_allclose(display.scores["known"], 0.5)
    assert display.threshold == 0.25
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["known", "noise", "threshold"]
    assert display.ax_.lines[0].get_xdata()[0] == 0.25


def test_histogram_without_a_finite_threshold_has_no_line():
    scores = {"known": np.arange(9.0)}
    assert not ScoreHistogramDisplay.from_predictions(scores, threshold=-np.inf).ax_.lines
    assert not ScoreHistogramDisplay.from_predictions(scores).ax_.lines


def test_histogram_uses_the_given_axes():
    figure, ax = plt.subplots()
    display = ScoreHistogramDisplay.from_predictions({"known": np.arange(9.0)}, ax=ax, n_bins=3)
    assert display.ax_ is ax
    assert display.figure_ is figure


def test_masks_from_estimator():
    images = np.random.default_rng(0).random((3, 4, 4, 3))
    display = MaskDisplay.from_estimator(Detector(), images)
    assert display.axes_.shape == (2, 3)
    plotted = display.axes_[1, 0].get_images()[0].get_array()
    np.testing.assert_array_equal(plotted[:, :2], 1)
    np.testing.assert_array_equal(plotted[:, 2:], 0)
    np.testing.assert_allclose(display.axes_[0, 2].get_images()[0].get_array(), images[2])


@pytest.mark.parametrize(
    ("images", "mask", "error", "message"),
    [
        (["a.png"], np.zeros((1, 4, 4)), TypeError, r"^Expected images as an array of shape .*, got a list\. Read"),
        (np.zeros((4, 4)), np.zeros((1, 4, 4)), TypeError, r"^Expected images .*, got an array of shape \(4, 4\)\."),
        (
            np.zeros((2, 4, 4, 3)),
            np.zeros((1, 4, 4)),
            ValueError,
            r"maps\['mask'\] has shape \(1, 4, 4\): expected \(2, 4, 4\)",
        ),
        (np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4, 3)), ValueError, r"maps\['mask'\] has shape \(2, 4, 4, 3\)"),
        (np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4), int), ValueError, "holds integers: .*pass masks < n_classes"),
    ],
)
def test_bad_images_and_maps_are_refused(images, mask, error, message):
    with pytest.raises(error, match=message):
        MaskDisplay.from_predictions(images, {"mask": mask})


def test_grey_images_are_not_stretched():
    images = np.full((2, 4, 4), 128, dtype=np.uint8)
    display = MaskDisplay.from_predictions(images, {"mask": np.zeros((2, 4, 4), dtype=bool)})
    assert display.axes_[0, 0].get_images()[0].get_clim() == (0, 255)
    floats = MaskDisplay.from_predictions(images / 255, {"mask": np.zeros((2, 4, 4), dtype=bool)})
    assert floats.axes_[0, 0].get_images()[0].get_clim() == (0, 1)
