"""Curves are those of scikit-learn, and their numbers those of skdfb.metrics."""

import numpy as np
import pytest
from sklearn.metrics import auc, precision_recall_curve, roc_curve

from skdfb.displays import OODCurveDisplay
from skdfb.metrics import aupr_score, auroc_score, fpr_at_tpr
from tests.displays.stubs import Detector, legend_of

RNG = np.random.default_rng(0)
ID = RNG.normal(1, 1, 200).round(1)  # with ties
OOD = {"near": RNG.normal(0.5, 1, 150).round(1), "far": RNG.normal(-3, 1, 30)}


def labelled(name):
    return np.repeat([1, 0], [len(ID), len(OOD[name])]), np.concatenate([ID, OOD[name]])


@pytest.mark.parametrize("name", OOD)
def test_roc(name):
    display = OODCurveDisplay.from_predictions(ID, OOD)
    curve, line = display.curves[name], next(ln for ln in display.ax_.lines if name in ln.get_label())
    fpr, tpr, _ = roc_curve(*labelled(name), drop_intermediate=False)
    np.testing.assert_array_equal(line.get_xdata(), curve.x)
    # Points inside of straight lines are left out, so each other one is one of scikit-learn's.
    points = set(zip(fpr, tpr, strict=True))
    assert set(zip(curve.x, curve.y, strict=True)) <= points
    assert auc(curve.x, curve.y) == pytest.approx(auroc_score(ID, OOD[name]), abs=1e-12)
    assert curve.area == auroc_score(ID, OOD[name])
    assert curve.fpr95 == fpr_at_tpr(ID, OOD[name]) == curve.at_tpr95[0]
    assert curve.at_tpr95 in points
    assert curve.at_tpr95[1] >= 0.95


@pytest.mark.parametrize("name", OOD)
def test_precision_recall(name):
    display = OODCurveDisplay.from_predictions(ID, OOD, kind="pr")
    curve = display.curves[name]
    precision, recall, _ = precision_recall_curve(*labelled(name))
    points = list(zip(recall, precision, strict=True))
    for point in zip(curve.x, curve.y, strict=True):
        assert any(np.allclose(point, other, rtol=0, atol=1e-12) for other in points)
    # The steps enclose the average precision.
    assert np.sum(np.diff(curve.x) * curve.y[1:]) == pytest.approx(curve.area, abs=1e-12)
    assert curve.area == aupr_score(ID, OOD[name])
    assert next(ln for ln in display.ax_.lines if name in ln.get_label()).get_drawstyle() == "steps-pre"
    assert curve.at_tpr95[0] >= 0.95


@pytest.mark.parametrize("n", [1, 19, 20, 21, 100])
def test_the_mark_is_that_of_the_metric(n):
    known, unknown = RNG.normal(size=n), RNG.normal(size=37)
    curve = OODCurveDisplay.from_predictions(known, {"noise": unknown}).curves["noise"]
    assert curve.at_tpr95[0] == fpr_at_tpr(known, unknown)


def test_the_threshold_of_the_detector_is_a_point():
    known, unknown = np.full((4, 4, 4, 3), 0.5), np.zeros((5, 4, 4, 3))
    known[0], unknown[:2] = 0.1, 0.3
    display = OODCurveDisplay.from_estimator(Detector(), known, {"noise": unknown})
    assert display.curves["noise"].at_threshold == (0.4, 0.75)
    marks = [tuple(line.get_xydata()[0]) for line in display.ax_.lines if line.get_marker() == "X"]
    assert marks == [(0.4, 0.75)]
    assert "threshold of the detector" in legend_of(display.ax_)
    precise = OODCurveDisplay.from_estimator(Detector(), known, {"noise": unknown}, kind="pr")
    assert precise.curves["noise"].at_threshold == (0.75, 0.6)


def test_a_threshold_that_accepts_nothing_has_no_precision():
    display = OODCurveDisplay.from_predictions([1.0], {"noise": [0.0]}, kind="pr", threshold=9.0)
    assert display.curves["noise"].at_threshold is None
    assert OODCurveDisplay.from_predictions([1.0], {"noise": [0.0]}, threshold=np.inf).curves["noise"].at_threshold == (
        0,
        0,
    )


def test_legend():
    labels = legend_of(OODCurveDisplay.from_predictions([3.0, 2.0, np.nan], {"noise": [2.5, 0.0, np.nan]}).ax_)
    assert labels == [
        "noise (1 unreadable): AUROC 0.750, FPR95 0.500",
        "95 % TPR",
        "1 in-distribution images unreadable",
    ]


def test_infinite_scores():
    curve = OODCurveDisplay.from_predictions([np.inf, 1.0], {"noise": [-np.inf, 0.0]}).curves["noise"]
    assert curve.area == 1
    assert (curve.x[-1], curve.y[-1]) == (1, 1)


@pytest.mark.parametrize(
    ("ood", "options", "error", "message"),
    [
        (OOD, {"kind": "det"}, ValueError, "kind='det': expected 'roc' or 'pr'"),
        (OOD["far"], {}, TypeError, "ood_scores is a ndarray: expected a mapping"),
        ({"noise": []}, {}, ValueError, r"ood_scores\['noise'\] has shape \(0,\)"),
    ],
)
def test_bad_scores_are_refused(ood, options, error, message):
    with pytest.raises(error, match=message):
        OODCurveDisplay.from_predictions(ID, ood, **options)
