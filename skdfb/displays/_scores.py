"""Histograms of scores."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_scalar
from sklearn.utils._optional_dependencies import check_matplotlib_support

from skdfb.displays._canvas import single_axes
from skdfb.displays._detectors import check_sets, readable_scores, scores_of, threshold_of
from skdfb.displays._style import PALETTE, as_text, line_style, marker_of, text_color

__all__ = ["ScoreHistogramDisplay"]

_FEW = 50  # images of a set that are also plotted as points
_FEWEST_BINS, _MOST_BINS = 8, 80
_MANY = 4  # entries from which the legend gets a place of its own, above the histograms
_STRIP = 0.07  # height of the points of one set, as a share of the height of the histograms

Scores = npt.NDArray[np.float64]


class ScoreHistogramDisplay:
    """Histograms of the scores of in-distribution and OOD images, with the threshold of a detector.

    Build it with :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    scores : mapping of str to array-like of shape (n,)
        Scores by the name of the image set; higher is more in-distribution. NaN, the score of images that cannot be
        read, is left out, and the legend says so.
    threshold : float or None
        Images with lower scores are rejected. None plots no threshold; of an infinite one the legend tells what it
        means.

    Attributes
    ----------
    scores : dict of str to ndarray of shape (n,)
        The scores, without NaN.
    n_unreadable : dict of str to int
        Number of images without a score, by the name of the set.
    ax_ : matplotlib Axes
        The axes with the histograms.
    figure_ : matplotlib Figure
        The figure that contains the axes.

    Raises
    ------
    TypeError
        If `scores` is not a mapping or is empty.
    ValueError
        If the scores of a set are not 1-d or not numbers, or no score is finite.

    See Also
    --------
    OODCurveDisplay : The trade-off of all thresholds.

    Notes
    -----
    The sets share their bins. The points of sets of at most 50 images are plotted below the histograms, where a
    histogram says little. Scores far from all others are counted in the outer bins.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.displays import ScoreHistogramDisplay
    >>> rng = np.random.default_rng(0)
    >>> display = ScoreHistogramDisplay.from_predictions({"known": rng.normal(3, 1, 99), "noise": rng.normal(0, 1, 99)})
    >>> display.ax_.get_xlabel()
    'score (higher is more in-distribution)'
    """

    def __init__(self, scores: Mapping[str, npt.ArrayLike], threshold: float | None) -> None:
        check_sets(scores, "scores")
        found = {name: readable_scores(values, f"scores[{name!r}]") for name, values in scores.items()}
        self.scores = {name: values for name, (values, _) in found.items()}
        self.n_unreadable = {name: n_missing for name, (_, n_missing) in found.items()}
        if not any(np.isfinite(values).any() for values in self.scores.values()):
            raise ValueError(f"scores holds no finite score in {list(scores)}: expected at least one.")
        self.threshold = threshold

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        images: Mapping[str, Any],
        *,
        ax: Any = None,
        n_bins: int | Literal["auto"] = "auto",
        stat: Literal["density", "count"] = "density",
    ) -> Self:
        """Score images with a fitted detector and plot the histograms.

        Parameters
        ----------
        estimator : estimator
            Fitted estimator with ``score_samples`` and, for the threshold, ``offset_``; or with ``decision_function``,
            whose threshold is 0. Also a pipeline or a parameter search that ends in one.
        images : mapping of str to images
            Images by the name of the set, in a form that ``score_samples`` accepts.
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. None creates a new figure.
        n_bins : int or "auto", default="auto"
            Number of bins. "auto" follows the number and the spread of the scores (Freedman and Diaconis).
        stat : {"density", "count"}, default="density"
            What the bars show: "density" makes sets of different sizes comparable, "count" is the number of images.

        Returns
        -------
        ScoreHistogramDisplay
            The display with the plot.
        """
        check_sets(images, "images")
        scores = {name: scores_of(estimator, X) for name, X in images.items()}
        return cls(scores, threshold_of(estimator)).plot(ax=ax, n_bins=n_bins, stat=stat)

    @classmethod
    def from_predictions(
        cls,
        scores: Mapping[str, npt.ArrayLike],
        *,
        threshold: float | None = None,
        ax: Any = None,
        n_bins: int | Literal["auto"] = "auto",
        stat: Literal["density", "count"] = "density",
    ) -> Self:
        """Plot the histograms of given scores.

        Parameters
        ----------
        scores : mapping of str to array-like of shape (n,)
            Scores by the name of the image set; higher is more in-distribution.
        threshold : float, default=None
            Images with lower scores are rejected.
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. None creates a new figure.
        n_bins : int or "auto", default="auto"
            Number of bins. "auto" follows the number and the spread of the scores (Freedman and Diaconis).
        stat : {"density", "count"}, default="density"
            What the bars show: "density" makes sets of different sizes comparable, "count" is the number of images.

        Returns
        -------
        ScoreHistogramDisplay
            The display with the plot.
        """
        return cls(scores, threshold).plot(ax=ax, n_bins=n_bins, stat=stat)

    def plot(
        self,
        *,
        ax: Any = None,
        n_bins: int | Literal["auto"] = "auto",
        stat: Literal["density", "count"] = "density",
    ) -> Self:
        """Plot the histograms.

        Parameters
        ----------
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. None creates a new figure.
        n_bins : int or "auto", default="auto"
            Number of bins. The same bins are used for all sets.
        stat : {"density", "count"}, default="density"
            What the bars show.

        Returns
        -------
        ScoreHistogramDisplay
            The display itself, with the attributes ``ax_`` and ``figure_``.
        """
        check_matplotlib_support(type(self).__name__)
        if stat not in ("density", "count"):
            raise ValueError(f"stat={stat!r}: expected 'density' or 'count'.")
        edges = self._edges(n_bins)
        ax = single_axes(ax, (7, 4))
        handles = []
        for index, (name, values) in enumerate(self.scores.items()):
            # Extreme scores are counted in the first and the last bin.
            values, style = np.clip(values, edges[0], edges[-1]), line_style(index)
            shared = {"bins": edges, "density": stat == "density"}
            ax.hist(values, **shared, histtype="stepfilled", color=style["color"], alpha=0.3)
            ax.hist(values, **shared, histtype="step", **style, linewidth=1.5)
            handles.append(self._handle(index, name))
        self._plot_points(ax, edges)
        self._plot_threshold(ax, edges, handles)
        ax.set(xlabel=self._x_label(edges), ylabel="density" if stat == "density" else "images per bin")
        many = len(handles) > _MANY
        if many:  # their legend finds no free place
            rows = -(-len(handles) // 2)
            # The legend has a height in inches, so it takes a larger share of a low figure.
            share = min((0.15 + 0.17 * rows) / (ax.bbox.height / ax.figure.dpi), 0.7)
            ax.set_ylim(top=max(1.1 + 0.07 * rows, 1 / (1 - share)) * ax.get_ylim()[1])
        ax.legend(handles=handles, fontsize="small", loc="upper left" if many else "best", ncols=1 + many)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _edges(self, n_bins: Any) -> npt.NDArray[np.float64]:
        """Return the edges of the bins."""
        pooled = np.concatenate(list(self.scores.values()))
        finite = pooled[np.isfinite(pooled)]
        # A few extreme scores must not make the bins so wide that all other scores are in one bin.
        within = np.quantile(finite, [0.01, 0.99])
        margin = 0.25 * (within[1] - within[0])
        low, high = max(finite.min(), within[0] - margin), min(finite.max(), within[1] + margin)
        if low == high:
            low, high = low - 0.5, high + 0.5
        if n_bins == "auto":
            n_bins = _n_bins(list(self.scores.values()), high - low)
        check_scalar(n_bins, "n_bins", Integral, min_val=1)
        return np.linspace(low, high, int(n_bins) + 1)

    def _handle(self, index: int, name: str) -> Any:
        from matplotlib.lines import Line2D

        missing, n = self.n_unreadable[name], len(self.scores[name])
        note = f" ({missing:,} of {n + missing:,} unreadable)" if missing else ""
        # The marker tells the points, and the dashes tell the outlines apart.
        marker = marker_of(index) if n <= _FEW else None
        return Line2D([], [], **line_style(index), marker=marker, markersize=5, label=as_text(name) + note)

    def _plot_points(self, ax: Any, edges: Scores) -> None:
        """Plot each score of small sets, below the histograms."""
        few = [index for index, values in enumerate(self.scores.values()) if len(values) <= _FEW]
        if not few:
            return
        ax.set_ylim(bottom=0)
        height = _STRIP * ax.get_ylim()[1]
        ticks = [tick for tick in ax.get_yticks() if 0 <= tick <= ax.get_ylim()[1]]
        for row, index in enumerate(few):
            values = np.clip(list(self.scores.values())[index], edges[0], edges[-1])
            options = {"marker": marker_of(index), "color": PALETTE[index % len(PALETTE)]}
            ax.scatter(values, np.full(len(values), -(row + 0.7) * height), s=18, alpha=0.7, linewidths=0, **options)
        ax.hlines(0, 0, 1, transform=ax.get_yaxis_transform(), color=text_color(), linewidth=0.8)
        ax.set(yticks=ticks, ylim=(-(len(few) + 0.4) * height, None))

    def _plot_threshold(self, ax: Any, edges: Scores, handles: list[Any]) -> None:
        from matplotlib.lines import Line2D

        if self.threshold is None:
            return
        line = {"color": text_color(), "linestyle": "--", "linewidth": 1.2}
        span = edges[-1] - edges[0]
        if edges[0] - span <= self.threshold <= edges[-1] + span:
            handles.append(ax.axvline(self.threshold, label="threshold", **line))
            return
        # A threshold that is infinite or far from all scores has no place on the axis.
        effect = "nothing" if self.threshold < edges[0] else "everything"
        label = f"threshold {self.threshold:.3g}: {effect} plotted is rejected"
        handles.append(Line2D([], [], linestyle="none", label=label.replace("inf", "∞")))

    def _x_label(self, edges: Scores) -> str:
        pooled = np.concatenate(list(self.scores.values()))
        outside = {"lower": int((pooled < edges[0]).sum()), "higher": int((pooled > edges[-1]).sum())}
        counted = " and ".join(f"{count:,} {side}" for side, count in outside.items() if count)
        # The outer bins hold more than their width tells.
        note = f"\n{counted} scores are counted in the outer bins" if counted else ""
        return f"score (higher is more in-distribution){note}"


def _n_bins(sets: list[Scores], span: float) -> int:
    """Return the number of bins: the rule of Freedman and Diaconis for the set of median spread."""
    widths = []
    for values in sets:
        finite = values[np.isfinite(values)]
        if finite.size > 1:
            widths.append(2 * np.subtract(*np.quantile(finite, [0.75, 0.25])) / finite.size ** (1 / 3))
    width = float(np.median(widths)) if widths else 0.0
    return int(np.clip(np.ceil(span / width), _FEWEST_BINS, _MOST_BINS)) if width > 0 else 20
