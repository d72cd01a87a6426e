"""Histograms count exactly the scores that they get."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skdfb.displays import ScoreHistogramDisplay
from tests.displays.stubs import Detector, legend_of


def bars(ax, index):
    """The heights and edges of the outline of a set."""
    outlines = [patch for patch in ax.patches if not patch.get_fill()]
    x, y = outlines[index].get_xy().T
    return y[1:-1:2], np.append(x[:-1:2], x[-1])


def test_from_estimator():
    images = {"known": np.full((5, 4, 4, 3), 0.5), "noise": np.zeros((3, 4, 4, 3))}
    display = ScoreHistogramDisplay.from_estimator(Detector(), images)
    np.testing.assert_allclose(display.scores["known"], 0.5)
    assert display.threshold == 0.25
    assert legend_of(display.ax_) == ["known", "noise", "threshold"]
    assert display.ax_.lines[0].get_xdata()[0] == 0.25


def test_the_threshold_of_a_pipeline_is_that_of_its_last_step():
    pipeline = make_pipeline(FunctionTransformer(), Detector())
    display = ScoreHistogramDisplay.from_estimator(pipeline, {"known": np.full((5, 4, 4, 3), 0.5)})
    assert display.threshold == 0.25


@pytest.mark.parametrize(("n", "n_bins"), [(20, 7), (20_000, 60), (200, "auto")])
def test_counts(n, n_bins):
    scores = np.random.default_rng(0).normal(size=n)
    display = ScoreHistogramDisplay.from_predictions({"known": scores}, n_bins=n_bins, stat="count")
    heights, _ = bars(display.ax_, 0)
    assert heights.sum() == n  # extreme scores are in the outer bins
    if n_bins != "auto":
        assert len(heights) == n_bins


def test_density_does_not_depend_on_the_size_of_a_set():
    scores = np.random.default_rng(0).normal(size=100)
    display = ScoreHistogramDisplay.from_predictions({"one": scores, "ten": np.tile(scores, 10)})
    np.testing.assert_allclose(bars(display.ax_, 0)[0], bars(display.ax_, 1)[0])


def test_more_images_get_more_bins():
    rng, sizes = np.random.default_rng(0), []
    for n in (20, 2000, 20_000):
        display = ScoreHistogramDisplay.from_predictions({"known": rng.normal(size=n)})
        sizes.append(len(bars(display.ax_, 0)[0]))
    assert 8 <= sizes[0] < sizes[1] < sizes[2] <= 80


def test_each_score_of_a_small_set_is_a_point():
    scores = {"few": np.arange(20.0), "many": np.linspace(0, 20, 51)}
    ax = ScoreHistogramDisplay.from_predictions(scores).ax_
    points = [found.get_offsets() for found in ax.collections if len(found.get_offsets()) > 1]
    assert len(points) == 1
    np.testing.assert_allclose(np.sort(points[0][:, 0]), np.arange(20))
    assert (points[0][:, 1] < 0).all()
    assert min(ax.get_yticks()) >= 0


def test_extreme_scores_do_not_widen_the_bins():
    scores = np.concatenate([np.random.default_rng(0).normal(size=500), [-1e6, -np.inf, 1e9]])
    ax = ScoreHistogramDisplay.from_predictions({"known": scores}, stat="count").ax_
    heights, edges = bars(ax, 0)
    assert -6 < edges[0] < edges[-1] < 6
    assert heights.sum() == 503
    assert "lower" in ax.get_xlabel()


def test_unreadable_images_are_named():
    display = ScoreHistogramDisplay.from_predictions({"known": [1.0, np.nan, 2.0]})
    assert legend_of(display.ax_) == ["known (1 of 3 unreadable)"]
    assert display.n_unreadable == {"known": 1}
    assert display.scores["known"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("threshold", "label"),
    [
        (-np.inf, "threshold -∞: nothing plotted is rejected"),
        (np.inf, "threshold ∞: everything plotted is rejected"),
        (-1e9, "threshold -1e+09: nothing plotted is rejected"),
    ],
)
def test_a_threshold_without_a_place_is_in_the_legend(threshold, label):
    display = ScoreHistogramDisplay.from_predictions({"known": np.arange(9.0)}, threshold=threshold)
    assert not display.ax_.lines
    assert legend_of(display.ax_) == ["known", label]


def test_equal_scores():
    display = ScoreHistogramDisplay.from_predictions({"known": np.full(60, 2.0)}, stat="count")
    assert bars(display.ax_, 0)[0].sum() == 60


def test_names_are_written_as_they_are():
    display = ScoreHistogramDisplay.from_predictions({"_hidden $x": np.arange(9.0), "a" * 90: np.arange(9.0)})
    display.figure_.draw_without_rendering()
    first, second = legend_of(display.ax_)
    assert first == r" _hidden \$x"
    assert len(second) == 34


@pytest.mark.parametrize(
    ("scores", "options", "error", "message"),
    [
        ({}, {}, TypeError, "scores is an empty mapping: expected a mapping"),
        (np.arange(3.0), {}, TypeError, "scores is a ndarray: expected a mapping"),
        ({"known": ["a"]}, {}, ValueError, r"scores\['known'\] has dtype"),
        ({"known": [np.nan]}, {}, ValueError, r"scores\['known'\] holds 1 NaN"),
        ({"known": [-np.inf]}, {}, ValueError, "no finite score"),
        ({"known": [1.0]}, {"stat": "share"}, ValueError, "stat='share': expected 'density' or 'count'"),
        ({"known": [1.0]}, {"n_bins": 0}, ValueError, "n_bins == 0, must be >= 1"),
    ],
)
def test_bad_scores_are_refused(scores, options, error, message):
    with pytest.raises(error, match=message):
        ScoreHistogramDisplay.from_predictions(scores, **options)


def test_a_long_legend_has_more_room_in_a_low_figure():
    display = ScoreHistogramDisplay({f"set {number}": np.linspace(0, 1, 50) for number in range(6)}, threshold=0.5)
    low, high = (display.plot(ax=Figure((7, inches)).add_subplot()).ax_.get_ylim()[1] for inches in (2.2, 4))
    assert low > 1.3 * high
