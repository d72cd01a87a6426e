"""The curves are the columns of the table, and those of a detector are Eq. 7."""

import numpy as np
import pytest

from skdfb.displays import TemperatureDisplay
from skdfb.fusion import TemperatureFusion
from skdfb.metrics import auroc_score, fpr_at_tpr
from tests.displays.stubs import Detector, images

TABLE = {
    "temperature": [5.0, 1.0, 2.5, 1.0, 2.5, 5.0],  # in any order
    "ood": ["a", "a", "a", "b", "b", "b"],
    "auroc": [0.7, 0.9, 0.8, 0.5, 0.6, 0.4],
    "fpr95": [0.3, 0.1, 0.2, 0.5, 0.4, 0.6],
}


def test_curves():
    display = TemperatureDisplay.from_predictions(TABLE)
    assert display.temperatures.tolist() == [1, 2.5, 5]
    lines = {line.get_label(): line for line in display.axes_[0].lines}
    assert lines["a"].get_ydata().tolist() == [0.9, 0.8, 0.7]
    np.testing.assert_allclose(lines["mean"].get_ydata(), [0.7, 0.7, 0.55])
    assert lines["T = 2.5, the paper's"].get_xdata()[0] == 2.5
    assert display.axes_[1].lines[1].get_ydata().tolist() == [0.5, 0.4, 0.6]


def test_the_temperature_of_the_paper_does_not_widen_the_axis():
    table = {"temperature": [3, 4], "ood": ["a", "a"], "auroc": [0.7, 0.9], "fpr95": [0.3, 0.1]}
    display = TemperatureDisplay.from_predictions(table)
    assert [line.get_label() for line in display.axes_[0].lines] == ["a"]


def test_from_estimator():
    detector, known, unknown = Detector(), images(40), images(30, seed=1) ** 2
    display = TemperatureDisplay.from_estimator(detector, known, {"noise": unknown}, [1.0, 4.0])
    for place, temperature in enumerate([1.0, 4.0]):
        fusion = TemperatureFusion(probability_temperature=temperature)
        fusion.fit(detector.score_parts(known), outputs={"foreground": "log_probability"})
        pair = [fusion.combine(detector.score_parts(X)) for X in (known, unknown)]
        assert display.metrics["auroc"]["noise"][place] == auroc_score(*pair)
        assert display.metrics["fpr95"]["noise"][place] == fpr_at_tpr(*pair)


def test_parts_have_to_be_clear():
    detector = Detector()
    detector.joint_score_.parts_ *= 2
    with pytest.raises(ValueError, match="parts is None: expected one foreground and one background part"):
        TemperatureDisplay.from_estimator(detector, images(), {"noise": images()})
    with pytest.raises(ValueError, match=r"parts=.*expected the names of a foreground and of a background part"):
        TemperatureDisplay.from_estimator(Detector(), images(), {"noise": images()}, parts=("foreground", "other"))
    names = "foreground", "background_logit"
    assert TemperatureDisplay.from_estimator(detector, images(), {"noise": images()}, parts=names).metrics["auroc"]


def test_bad_tables_are_refused():
    with pytest.raises(ValueError, match="table has no column 'fpr95'"):
        TemperatureDisplay.from_predictions({name: TABLE[name] for name in ("temperature", "ood", "auroc")})
    table = {name: values[:5] for name, values in TABLE.items()}
    with pytest.raises(ValueError, match=r"'b' has rows for the temperatures \[1\.0, 2\.5\]: expected one for each"):
        TemperatureDisplay.from_predictions(table)


@pytest.mark.parametrize("temperature", [0, -1.0, "high"])
def test_bad_temperatures_are_refused_before_scoring(temperature):
    with pytest.raises(ValueError, match="temperature"):
        TemperatureDisplay.from_estimator(Detector(), None, {"noise": None}, [temperature])
