"""The lines are the numbers of the training, and smoothed ones are means of them."""

import numpy as np
import pytest

from skdfb.displays import TrainingDisplay
from tests.displays.stubs import Detector


def history(n, last=1.0):
    return {"loss": np.linspace(2, last, n), "learning_rate": np.linspace(0.1, 0.0, n)}


def test_from_estimator():
    display = TrainingDisplay.from_estimator(Detector())
    assert display.axes_.shape == (2, 1)
    loss, rate = (ax.lines[0] for ax in display.axes_[:, 0])
    assert loss.get_xydata().tolist() == [[1, 2], [2, 1]]
    assert rate.get_xydata().tolist() == [[1, 0.1], [2, 0.2]]
    assert display.axes_[0, 0].get_title() == "dense network"


def test_long_losses_are_smoothed_beside_the_raw_line():
    loss = np.random.default_rng(0).random(400)
    display = TrainingDisplay.from_predictions({"classifier": {"loss": loss, "learning_rate": loss}})
    raw, smoothed = display.axes_[0, 0].lines
    np.testing.assert_array_equal(raw.get_ydata(), loss)
    expected = [loss[max(0, place - 10) : place + 11].mean() for place in range(400)]
    np.testing.assert_allclose(smoothed.get_ydata(), expected)
    assert len(TrainingDisplay.from_predictions({"dense": history(99)}).axes_[0, 0].lines) == 1


def test_the_axis_of_a_loss_that_falls_far_is_logarithmic():
    display = TrainingDisplay.from_predictions({"classifier": history(50), "dense": history(50, last=0.01)})
    assert [ax.get_yscale() for ax in display.axes_[0]] == ["linear", "log"]
    assert [ax.get_ylabel() for ax in display.axes_[0]] == ["loss", "loss (log scale)"]


def test_one_step_is_a_point():
    assert TrainingDisplay.from_predictions({"dense": history(1)}).axes_[0, 0].lines[0].get_marker() == "o"


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({}, TypeError, "history is an empty mapping"),
        (history(3), TypeError, r"history\['loss'\] is a ndarray: expected a mapping .*\{'classifier': history\}"),
        ({"dense": {"loss": [1.0]}}, ValueError, r"history\['dense'\] has the keys \['loss'\]: expected"),
        ({"dense": {"loss": [1.0], "learning_rate": [1.0, 2]}}, ValueError, "1 losses and 2 learning rates"),
        ({"dense": {"loss": [np.nan], "learning_rate": [1.0]}}, ValueError, r"\['loss'\] holds 1 NaN"),
    ],
)
def test_bad_histories_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        TrainingDisplay.from_predictions(given)


def test_detectors_that_train_nothing_are_refused():
    with pytest.raises(TypeError, match="has no training_history_: expected a fitted detector that trains networks"):
        TrainingDisplay.from_estimator(object())
