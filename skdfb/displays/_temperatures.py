"""Metrics over the temperature of the paper's Eq. 7."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils._optional_dependencies import check_matplotlib_support

from skdfb.displays._canvas import canvas_for
from skdfb.displays._detectors import check_sets, method_of
from skdfb.displays._style import as_text, line_style, marker_of, text_color
from skdfb.fusion import TemperatureFusion
from skdfb.metrics import auroc_score, fpr_at_tpr
from skdfb.scorers import scorer_output

__all__ = ["TemperatureDisplay"]

_COLUMNS = ("temperature", "ood", "auroc", "fpr95")
_METRICS = {"auroc": "AUROC (higher is better)", "fpr95": "FPR95 (lower is better)"}
_PAPER = 2.5
# Where a detector has several parts of a kind, those of the paper.
_EQ_7 = {"foreground": "foreground_dense", "background": "background_logit"}


class TemperatureDisplay:
    """AUROC and FPR95 over the temperature that divides the background score.

    The scores are joined by Eq. 7 of the paper, and the plot is its Fig. 6. Build it with :meth:`from_estimator` or
    :meth:`from_predictions`.

    Parameters
    ----------
    table : mapping of str to array-like of shape (n_rows,)
        The columns ``temperature``, ``ood``, ``auroc`` and ``fpr95``: a table of
        :func:`skdfb.evaluation.temperature_sweep`, or a data frame.

    Attributes
    ----------
    temperatures : ndarray of shape (n_temperatures,)
        The temperatures, ascending.
    metrics : dict of str to dict of str to ndarray of shape (n_temperatures,)
        ``"auroc"`` and ``"fpr95"`` by the name of the OOD set.
    axes_ : ndarray of matplotlib Axes of shape (2,)
        The axes of AUROC and FPR95.
    figure_ : matplotlib Figure or SubFigure
        The figure that contains the axes.

    Raises
    ------
    ValueError
        If a column is missing, or not each OOD set has one row per temperature.

    See Also
    --------
    skdfb.evaluation.temperature_sweep : The table.
    skdfb.fusion.TemperatureFusion : Eq. 7.

    Notes
    -----
    The dotted line is the paper's temperature of 2.5. With several OOD sets, the thick line is their mean. Do not
    report the best temperature: it was chosen on the same OOD images.

    Examples
    --------
    >>> from skdfb.displays import TemperatureDisplay
    >>> table = {"temperature": [1, 2.5, 5], "ood": ["noise"] * 3}
    >>> table |= {"auroc": [0.90, 0.95, 0.93], "fpr95": [0.3, 0.2, 0.2]}
    >>> TemperatureDisplay.from_predictions(table).metrics["auroc"]["noise"]
    array([0.9 , 0.95, 0.93])
    """

    def __init__(self, table: Mapping[str, npt.ArrayLike]) -> None:
        missing = [column for column in _COLUMNS if column not in table]
        if missing:
            raise ValueError(f"table has no column {missing[0]!r}: expected the columns {list(_COLUMNS)}.")
        columns = {name: np.asarray(table[name]) for name in _COLUMNS}
        self.temperatures = np.unique(columns["temperature"].astype(np.float64))
        self.metrics: dict[str, dict[str, npt.NDArray[np.float64]]] = {metric: {} for metric in _METRICS}
        for name in dict.fromkeys(columns["ood"].tolist()):
            rows = np.flatnonzero(columns["ood"] == name)
            rows = rows[np.argsort(columns["temperature"][rows].astype(np.float64), kind="stable")]
            if not np.array_equal(columns["temperature"][rows].astype(np.float64), self.temperatures):
                raise ValueError(
                    f"the OOD set {name!r} has rows for the temperatures {columns['temperature'][rows].tolist()}: "
                    f"expected one for each of {self.temperatures.tolist()}."
                )
            for metric in _METRICS:
                self.metrics[metric][name] = columns[metric][rows].astype(np.float64)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X_id: Any,
        ood: Mapping[str, Any],
        temperatures: Sequence[float] = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0),
        *,
        parts: tuple[str, str] | None = None,
        ax: Any = None,
    ) -> Self:
        """Join the parts of a fitted detector at several temperatures and plot the metrics.

        Parameters
        ----------
        estimator : DFBDetector
            Fitted detector with ``score_parts``. Its own fusion is not used.
        X_id : images
            Test images of the known classes.
        ood : mapping of str to images
            OOD test images by the name of the set.
        temperatures : sequence of float, default=(1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
            Each is finite and greater than 0.
        parts : tuple of (str, str), default=None
            Names of the foreground and of the background part. None takes the only parts whose names begin with
            "foreground" and "background", or, if there are several, "foreground_dense" and "background_logit".
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. Axes are divided into panels. None creates a new figure.

        Returns
        -------
        TemperatureDisplay
            The display with the plot.
        """
        check_sets(ood, "ood")
        score_parts = method_of(estimator, "score_parts")
        names = _part_names([part[0] for part in estimator.joint_score_.parts_], parts)
        outputs = {"foreground": scorer_output(estimator.part_scorers_[names["foreground"]])}
        # Parameters are checked before any image is scored.
        fusions = [_fusion(temperature, outputs) for temperature in temperatures]
        known, *unknown = (
            {kind: scores[name] for kind, name in names.items()} for scores in map(score_parts, [X_id, *ood.values()])
        )
        table: dict[str, list[Any]] = {column: [] for column in _COLUMNS}
        for temperature, fusion in zip(temperatures, fusions, strict=True):
            known_scores = fusion.combine(known)
            for name, scores in zip(ood, unknown, strict=True):
                pair = known_scores, fusion.combine(scores)
                for column, value in zip(
                    _COLUMNS, (temperature, name, auroc_score(*pair), fpr_at_tpr(*pair)), strict=True
                ):
                    table[column].append(value)
        return cls(table).plot(ax=ax)

    @classmethod
    def from_predictions(cls, table: Mapping[str, npt.ArrayLike], *, ax: Any = None) -> Self:
        """Plot a given table.

        Parameters
        ----------
        table : mapping of str to array-like of shape (n_rows,)
            A table of :func:`skdfb.evaluation.temperature_sweep`, or a data frame with its columns.
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. Axes are divided into panels. None creates a new figure.

        Returns
        -------
        TemperatureDisplay
            The display with the plot.
        """
        return cls(table).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Plot the metrics.

        Parameters
        ----------
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. Axes are divided into panels. None creates a new figure.

        Returns
        -------
        TemperatureDisplay
            The display itself, with the attributes ``axes_`` and ``figure_``.
        """
        check_matplotlib_support(type(self).__name__)
        n_entries = len(self.metrics["auroc"]) + 1
        canvas = canvas_for(ax, (7, 3.2 + 0.2 * -(-n_entries // 3)))
        places = canvas.place.subgridspec(2, 1, height_ratios=(3, 0.2 * -(-n_entries // 3)))
        axes: npt.NDArray[Any] = places[0].subgridspec(1, len(_METRICS)).subplots(squeeze=False)[0]
        for ax, (metric, label) in zip(axes, _METRICS.items(), strict=True):
            self._plot_metric(ax, self.metrics[metric])
            ax.set(xlabel="temperature T", ylabel=label)
        below = canvas.figure.add_subplot(places[1])
        below.set_axis_off()
        handles = axes[0].get_legend_handles_labels()[0]
        below.legend(handles=handles, loc="upper center", ncols=min(3, len(handles)), fontsize="small", frameon=False)
        self.axes_, self.figure_ = axes, canvas.figure
        return self

    def _plot_metric(self, ax: Any, curves: dict[str, npt.NDArray[np.float64]]) -> None:
        for index, (name, values) in enumerate(curves.items()):
            ax.plot(
                self.temperatures,
                values,
                **line_style(index),
                marker=marker_of(index),
                markersize=5,
                label=as_text(name, 26),
            )
        if len(curves) > 1:
            mean = np.mean(list(curves.values()), axis=0)
            ax.plot(self.temperatures, mean, color=text_color(), linewidth=2.5, label="mean")
        if self.temperatures[0] <= _PAPER <= self.temperatures[-1]:
            ax.axvline(_PAPER, color=text_color(), linestyle=":", linewidth=1, label=f"T = {_PAPER}, the paper's")


def _fusion(temperature: float, outputs: dict[str, Any]) -> TemperatureFusion:
    # Both temperatures, since the output of the scorer decides which of them is used. Nothing is learned from scores.
    fusion = TemperatureFusion(temperature, probability_temperature=temperature)
    fusion.fit({"foreground": [0.0], "background": [0.0]}, outputs=outputs)
    return fusion


def _part_names(fitted: list[str], parts: Any) -> dict[str, str]:
    """Return the names of the two parts by "foreground" and "background"."""
    names = {kind: [name for name in fitted if name.startswith(kind)] for kind in _EQ_7}
    if parts is None:
        chosen = {kind: _EQ_7[kind] if _EQ_7[kind] in names[kind] else names[kind][0] for kind in _EQ_7 if names[kind]}
        unclear = [kind for kind in _EQ_7 if len(names[kind]) != 1 and chosen.get(kind) != _EQ_7[kind]]
        if unclear:
            raise ValueError(
                f"parts is None: expected one foreground and one background part, got {fitted}. Pass "
                "parts=(foreground, background), two of these names."
            )
        return chosen
    if isinstance(parts, str) or len(parts) != len(_EQ_7) or not set(parts) <= set(fitted):
        raise ValueError(f"parts={parts!r}: expected the names of a foreground and of a background part, of {fitted}.")
    return dict(zip(_EQ_7, parts, strict=True))
