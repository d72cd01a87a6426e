"""ROC and precision-recall curves of in-distribution against OOD images."""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils._optional_dependencies import check_matplotlib_support

from skdfb.displays._canvas import single_axes
from skdfb.displays._detectors import check_sets, readable_scores, scores_of, threshold_of
from skdfb.displays._style import PALETTE, as_text, line_style, text_color
from skdfb.metrics import aupr_score, auroc_score, fpr_at_tpr

__all__ = ["OODCurve", "OODCurveDisplay"]

Scores = npt.NDArray[np.float64]
Kind = Literal["roc", "pr"]
Point = tuple[float, float]


class OODCurve(NamedTuple):
    """One curve, with the numbers that it is summed up in."""

    x: Scores
    y: Scores
    area: float
    fpr95: float
    at_tpr95: Point
    at_threshold: Point | None


class OODCurveDisplay:
    """ROC or precision-recall curves of in-distribution images against one or more sets of OOD images.

    Build it with :meth:`from_estimator` or :meth:`from_predictions`. In-distribution is the positive class, as in
    :mod:`skdfb.metrics`, and the numbers in the legend are those of its functions.

    Parameters
    ----------
    id_scores : array-like of shape (n_id,)
        Scores of in-distribution images; higher is more in-distribution. NaN, the score of images that cannot be read,
        is left out, and the legend says so.
    ood_scores : mapping of str to array-like of shape (n_ood,)
        Scores of OOD images by the name of the set.
    kind : {"roc", "pr"}, default="roc"
        "roc" plots the share of in-distribution images that are accepted (true positive rate, TPR) over the share of
        OOD images that are accepted (false positive rate, FPR). "pr" plots precision over recall, which is the TPR.
    threshold : float, default=None
        The threshold of the detector; images with lower scores are rejected. None marks none.

    Attributes
    ----------
    curves : dict of str to OODCurve
        By the name of the OOD set, a named tuple: ``x`` and ``y``, the points of the curve; ``area``, the AUROC or
        AUPR; ``fpr95``; and the (x, y) points ``at_tpr95``, the first with a TPR of at least 95 %, and
        ``at_threshold``, or None.
    n_unreadable : dict of str to int
        Number of images without a score, by the name of the set; that of in-distribution images is "in-distribution".
    ax_ : matplotlib Axes
        The axes with the curves.
    figure_ : matplotlib Figure
        The figure that contains the axes.

    Raises
    ------
    TypeError
        If `ood_scores` is not a mapping or is empty.
    ValueError
        If scores are empty, not 1-d or not numbers, or `kind` is unknown.

    See Also
    --------
    ScoreHistogramDisplay : The scores themselves.
    skdfb.metrics.auroc_score : The area under the ROC curve.
    skdfb.metrics.fpr_at_tpr : FPR95.

    Notes
    -----
    Nothing is interpolated between the points of a precision-recall curve: its steps enclose the AUPR, which is the
    average precision. A precision-recall curve depends on the ratio of in-distribution to OOD images.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.displays import OODCurveDisplay
    >>> rng = np.random.default_rng(0)
    >>> display = OODCurveDisplay.from_predictions(rng.normal(3, 1, 99), {"noise": rng.normal(0, 1, 99)})
    >>> round(display.curves["noise"].area, 3)
    0.994
    """

    def __init__(
        self,
        id_scores: npt.ArrayLike,
        ood_scores: Mapping[str, npt.ArrayLike],
        kind: Kind = "roc",
        threshold: float | None = None,
    ) -> None:
        if kind not in ("roc", "pr"):
            raise ValueError(f"kind={kind!r}: expected 'roc' or 'pr'.")
        check_sets(ood_scores, "ood_scores")
        known, n_missing = readable_scores(id_scores, "id_scores")
        self.kind, self.threshold = kind, threshold
        self.n_unreadable = {"in-distribution": n_missing}
        self.curves: dict[str, OODCurve] = {}
        for name, values in ood_scores.items():
            unknown, n_missing = readable_scores(values, f"ood_scores[{name!r}]")
            self.curves[name] = _curve(known, unknown, kind, threshold)
            self.n_unreadable[name] = n_missing

    @classmethod
    def from_estimator(
        cls, estimator: Any, X_id: Any, ood: Mapping[str, Any], *, kind: Kind = "roc", ax: Any = None
    ) -> Self:
        """Score images with a fitted detector and plot the curves.

        Parameters
        ----------
        estimator : estimator
            Fitted estimator with ``score_samples`` and, for the threshold, ``offset_``; or with ``decision_function``,
            whose threshold is 0. Also a pipeline or a parameter search that ends in one.
        X_id : images
            Test images of the known classes, in a form that the estimator accepts.
        ood : mapping of str to images
            OOD test images by name.
        kind : {"roc", "pr"}, default="roc"
            The kind of curve.
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. None creates a new figure.

        Returns
        -------
        OODCurveDisplay
            The display with the plot.
        """
        check_sets(ood, "ood")
        if kind not in ("roc", "pr"):  # before any image is scored
            raise ValueError(f"kind={kind!r}: expected 'roc' or 'pr'.")
        known = scores_of(estimator, X_id)
        unknown = {name: scores_of(estimator, X) for name, X in ood.items()}
        return cls(known, unknown, kind, threshold_of(estimator)).plot(ax=ax)

    @classmethod
    def from_predictions(
        cls,
        id_scores: npt.ArrayLike,
        ood_scores: Mapping[str, npt.ArrayLike],
        *,
        kind: Kind = "roc",
        threshold: float | None = None,
        ax: Any = None,
    ) -> Self:
        """Plot the curves of given scores.

        Parameters
        ----------
        id_scores : array-like of shape (n_id,)
            Scores of in-distribution images; higher is more in-distribution.
        ood_scores : mapping of str to array-like of shape (n_ood,)
            Scores of OOD images by the name of the set.
        kind : {"roc", "pr"}, default="roc"
            The kind of curve.
        threshold : float, default=None
            The threshold of the detector; None marks none.
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. None creates a new figure.

        Returns
        -------
        OODCurveDisplay
            The display with the plot.
        """
        return cls(id_scores, ood_scores, kind, threshold).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Plot the curves.

        Parameters
        ----------
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. None creates a new figure.

        Returns
        -------
        OODCurveDisplay
            The display itself, with the attributes ``ax_`` and ``figure_``.
        """
        check_matplotlib_support(type(self).__name__)
        ax, is_roc = single_axes(ax, (7, 4.5)), self.kind == "roc"
        handles = []
        for index, (name, curve) in enumerate(self.curves.items()):
            # Nothing is interpolated in a precision-recall curve: see AUPR.
            drawn = {"drawstyle": "default" if is_roc else "steps-pre", "label": self._label(name, curve)}
            handles += ax.plot(curve.x, curve.y, **line_style(index), **drawn, linewidth=1.6)
            self._mark(ax, index, curve)
        line = {"color": text_color(), "linestyle": ":", "linewidth": 0.8, "zorder": 1}
        (ax.axhline if is_roc else ax.axvline)(0.95, **line)
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        if is_roc:
            ax.set(xlabel="OOD images accepted (FPR)", ylabel="in-distribution images accepted (TPR)")
        else:
            ax.set(xlabel="recall: in-distribution images accepted (TPR)", ylabel="precision")
        ax.legend(handles=[*handles, *self._mark_handles()], fontsize="small", loc="lower right" if is_roc else "best")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _label(self, name: str, curve: OODCurve) -> str:
        missing = self.n_unreadable[name]
        note = f" ({missing:,} unreadable)" if missing else ""
        area = "AUROC" if self.kind == "roc" else "AUPR"
        return f"{as_text(name)}{note}: {area} {curve.area:.3f}, FPR95 {curve.fpr95:.3f}"

    def _mark(self, ax: Any, index: int, curve: OODCurve) -> None:
        """Mark the points at a TPR of 95 % and at the threshold."""
        for point, marker, size, face in ((curve.at_tpr95, "o", 6, "none"), (curve.at_threshold, "X", 8, None)):
            if point is not None:
                color = PALETTE[index % len(PALETTE)]
                ax.plot(*point, marker, markersize=size, color=color, markerfacecolor=face or color, zorder=3)

    def _mark_handles(self) -> list[Any]:
        from matplotlib.lines import Line2D

        options = {"linestyle": "none", "color": text_color()}
        handles = [Line2D([], [], marker="o", markersize=6, markerfacecolor="none", label="95 % TPR", **options)]
        if any(curve.at_threshold is not None for curve in self.curves.values()):
            handles.append(Line2D([], [], marker="X", markersize=8, label="threshold of the detector", **options))
        if missing := self.n_unreadable["in-distribution"]:
            handles.append(Line2D([], [], linestyle="none", label=f"{missing:,} in-distribution images unreadable"))
        return handles


def _curve(known: Scores, unknown: Scores, kind: Kind, threshold: float | None) -> OODCurve:
    thresholds = np.unique(np.concatenate([known, unknown]))[::-1]
    accepted_id, accepted_ood = _n_accepted(known, thresholds), _n_accepted(unknown, thresholds)
    # The first threshold that accepts 95 % of the images; 95/100 is exact, unlike 0.95.
    first = int(np.argmax(accepted_id >= math.ceil(95 * known.size / 100)))
    marked = [(accepted_id[first], accepted_ood[first])]
    if threshold is not None:
        marked.append((_n_accepted(known, threshold), _n_accepted(unknown, threshold)))
    x, y = _coordinates(accepted_id, accepted_ood, known.size, unknown.size, kind)
    points = [_point(*counts, known.size, unknown.size, kind) for counts in marked]
    assert points[0] is not None, "at least one image is accepted"
    return OODCurve(
        *_without_straight_points(x, y, kind),
        area=(auroc_score if kind == "roc" else aupr_score)(known, unknown),
        fpr95=fpr_at_tpr(known, unknown),
        at_tpr95=points[0],
        at_threshold=points[1] if len(points) > 1 else None,
    )


def _n_accepted(scores: Scores, thresholds: Any) -> Any:
    return scores.size - np.searchsorted(np.sort(scores), thresholds, "left")


def _coordinates(accepted_id: Any, accepted_ood: Any, n_id: int, n_ood: int, kind: Kind) -> tuple[Scores, Scores]:
    """Return the points of a curve; it begins where nothing is accepted."""
    if kind == "roc":
        return np.append(0.0, accepted_ood / n_ood), np.append(0.0, accepted_id / n_id)
    # Precision is not defined where nothing is accepted; 1 is the convention.
    return np.append(0.0, accepted_id / n_id), np.append(1.0, accepted_id / (accepted_id + accepted_ood))


def _point(accepted_id: int, accepted_ood: int, n_id: int, n_ood: int, kind: Kind) -> Point | None:
    if kind == "pr" and accepted_id + accepted_ood == 0:
        return None
    x, y = _coordinates(accepted_id, accepted_ood, n_id, n_ood, kind)
    return float(x[1]), float(y[1])


def _without_straight_points(x: Scores, y: Scores, kind: Kind) -> tuple[Scores, Scores]:
    """Leave out the points inside of vertical and horizontal lines, where x or y stays: files get smaller."""
    same_x, same_y = np.diff(x) == 0, np.diff(y) == 0
    inner = same_x[:-1] & same_x[1:]
    if kind == "roc":
        inner |= same_y[:-1] & same_y[1:]
    kept = np.concatenate([[True], ~inner, [True]])
    return x[kept], y[kept]
