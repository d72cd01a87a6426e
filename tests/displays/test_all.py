"""All displays: where they plot, and what they leave behind."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import skdfb.displays
from tests.displays.stubs import Detector, images

KNOWN, OOD = images(8), {"noise": images(6, seed=1)}
TABLE = {"temperature": [1.0, 5.0], "ood": ["a", "a"], "auroc": [0.7, 0.9], "fpr95": [0.3, 0.1]}
DISPLAYS = {
    "FeatureEmbeddingDisplay": lambda cls, **ax: cls.from_estimator(
        Detector(), KNOWN, OOD, [1, 2] * 4, method="pca", random_state=0, **ax
    ),
    "MaskDisplay": lambda cls, **ax: cls.from_estimator(Detector(), KNOWN, **ax),
    "OODCurveDisplay": lambda cls, **ax: cls.from_estimator(Detector(), KNOWN, OOD, **ax),
    "RejectionDisplay": lambda cls, **ax: cls.from_estimator(Detector(), KNOWN, 1, neighbor_images=images(2), **ax),
    "ScoreHistogramDisplay": lambda cls, **ax: cls.from_estimator(Detector(), {"known": KNOWN, **OOD}, **ax),
    "SegmentationDisplay": lambda cls, **ax: cls.from_estimator(Detector(), KNOWN, **ax),
    "TemperatureDisplay": lambda cls, **ax: cls.from_predictions(TABLE, **ax),
    "TrainingDisplay": lambda cls, **ax: cls.from_estimator(Detector(), **ax),
}
each_display = pytest.mark.parametrize("name", DISPLAYS)


def displayed(name, **ax):
    return DISPLAYS[name](getattr(skdfb.displays, name), **ax)


def test_each_display_is_tested():
    assert list(DISPLAYS) == skdfb.displays.__all__


@each_display
def test_one_new_figure(name):
    display = displayed(name)
    assert plt.get_fignums() == [display.figure_.number]
    display.figure_.draw_without_rendering()  # no warning, such as of a layout that does not fit
    display.plot()
    assert len(plt.get_fignums()) == 2


@each_display
@pytest.mark.parametrize("form", ["axes", "figure", "subfigure"])
def test_in_a_figure_of_the_caller(name, form):
    figure = plt.figure(figsize=(9, 9), layout="constrained")
    if form == "axes":
        ax = place = figure.subplots(2, 2)[0, 1]
        expected = figure
    else:
        ax = place = figure if form == "figure" else figure.subfigures(1, 2)[1]
        expected = place
    display = displayed(name, ax=ax)
    assert display.figure_ is expected
    display.plot(ax=place)
    figure.draw_without_rendering()
    assert plt.get_fignums() == [figure.number]


@each_display
def test_several_axes_are_refused(name):
    _, axes = plt.subplots(1, 3)
    with pytest.raises(TypeError, match=r"expected .*a figure or a subfigure"):
        displayed(name, ax=axes)


@each_display
def test_dark_style(name):
    with plt.style.context("dark_background"):
        figure = displayed(name).figure_
        figure.canvas.draw()
        # Texts have the colour of the style: no black is set.
        texts = [text for ax in figure.axes for text in (ax.title, ax.xaxis.label, *ax.texts)]
        assert all(text.get_color() == "white" for text in texts)


def test_an_error_leaves_no_figure():
    for call in (
        lambda: skdfb.displays.MaskDisplay.from_estimator(Detector(), np.zeros((2, 3))),
        lambda: skdfb.displays.OODCurveDisplay.from_predictions([1.0], {"noise": [np.nan]}),
        lambda: skdfb.displays.ScoreHistogramDisplay.from_predictions({"known": [1.0]}, n_bins=-1),
        lambda: skdfb.displays.TrainingDisplay.from_predictions({"dense": {}}),
    ):
        with pytest.raises((TypeError, ValueError)):
            call()
    assert plt.get_fignums() == []
