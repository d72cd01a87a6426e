"""Colours, lines, markers and texts that all displays share."""

from collections.abc import Mapping
from typing import Any

__all__ = ["OTHERS", "PALETTE", "as_text", "line_style", "marker_of", "text_color"]

# Okabe and Ito's colours, which people with any colour vision tell apart. Without black and yellow: one of them is not
# legible on a dark page, the other not on a white one.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C8C8C")
OTHERS = "#F0E442"  # yellow: legible on pictures
# Five and seven have no common divisor: 35 curves differ.
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "^", "s", "D", "v", "P", "X")


def line_style(index: int) -> dict[str, Any]:
    """Return colour and dashes of one of several curves."""
    return {"color": PALETTE[index % len(PALETTE)], "linestyle": _DASHES[index % len(_DASHES)]}


def marker_of(index: int) -> str:
    """Return the marker of one of several sets of points."""
    return _MARKERS[index % len(_MARKERS)]


def text_color() -> Any:
    """Return the colour of texts in the current style: black on a light page, white on a dark one."""
    import matplotlib as mpl

    params: Mapping[str, Any] = mpl.rcParams
    return params["text.color"]


def as_text(name: Any, most: int = 34) -> str:
    """Return a name as matplotlib has to get it; the middle of a long one is left out."""
    text = " ".join(str(name).split())
    if len(text) > most:
        text = f"{text[: most - most // 3 - 1]}…{text[-(most // 3) :]}"
    # Dollars would begin a formula, and matplotlib leaves labels out that begin with an underscore.
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
