"""Where a display draws: a new figure, or what the caller has."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Canvas", "canvas_for", "single_axes"]


class Canvas(NamedTuple):
    """A place for a grid of axes: a whole figure or subfigure, or the place of one axes in it."""

    figure: Any
    place: Any  # SubplotSpec

    def axes(self, n_rows: int, n_columns: int, heights: Any = None, sharex: Any = False) -> npt.NDArray[Any]:
        """Return new axes of shape (n_rows, n_columns)."""
        grid = self.place.subgridspec(n_rows, n_columns, height_ratios=heights)
        axes: npt.NDArray[Any] = grid.subplots(squeeze=False, sharex=sharex)
        return axes


def canvas_for(ax: Any, figsize: tuple[float, float]) -> Canvas:
    """Return the place of ``ax`` (Axes, Figure or SubFigure), or a new figure."""
    import matplotlib.pyplot as plt

    if ax is None:
        ax = plt.figure(figsize=figsize, layout="constrained")
    if _is_figure(ax):
        return Canvas(ax, ax.add_gridspec(1, 1)[0])
    place = getattr(ax, "get_subplotspec", lambda: None)()
    if place is None:
        raise TypeError(
            f"ax={ax!r}: expected axes of plt.subplots(), a figure or a subfigure, which can be divided into panels."
        )
    ax.set_axis_off()
    return Canvas(ax.get_figure(root=False), place)


def single_axes(ax: Any, figsize: tuple[float, float]) -> Any:
    """Return ``ax``, new axes in the figure or subfigure ``ax``, or new axes in a new figure."""
    import matplotlib.pyplot as plt

    if ax is None:
        return plt.subplots(figsize=figsize, layout="constrained")[1]
    if _is_figure(ax):
        return ax.subplots()
    if isinstance(ax, np.ndarray | list | tuple) or not hasattr(ax, "plot"):
        raise TypeError(f"ax is a {type(ax).__name__}: expected one Axes, a figure or a subfigure.")
    return ax


def _is_figure(ax: Any) -> bool:
    return hasattr(ax, "add_gridspec")
