"""Displays as pictures in bytes, for pages."""

import io
from collections.abc import Callable
from typing import Any

__all__ = ["as_png"]

_DOTS_PER_INCH = 130


def as_png(plot: Callable[[Any], Any], figsize: tuple[float, float], *, dark: bool = False) -> bytes:
    """Return what a function draws into a figure as a PNG file with a transparent ground.

    The caller's style is not used, and stays as it is.

    Parameters
    ----------
    plot : callable
        Takes a matplotlib Figure, like ``lambda figure: display.plot(ax=figure)``.
    figsize : tuple of (float, float)
        Width and height in inches.
    dark : bool, default=False
        Whether for a dark page.

    Returns
    -------
    png : bytes
        The file.
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    content = io.BytesIO()
    with matplotlib.style.context("dark_background" if dark else "default", after_reset=True):
        # Not by pyplot, which would keep the figure.
        figure = Figure(figsize=figsize, layout="constrained")
        plot(figure)
        figure.savefig(content, format="png", dpi=_DOTS_PER_INCH, transparent=True)
    return content.getvalue()
