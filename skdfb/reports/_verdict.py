"""What a report says first: one sentence, and what a reader should know before trusting it."""

import math
from collections.abc import Sequence
from typing import Any

from skdfb.evaluation import Table
from skdfb.reports._sets import ScoredSet

__all__ = ["cautions", "percent", "verdict", "with_interval"]

_FEW = 100  # images of a set whose numbers are rough
_UNIT = "\u00a0%"  # on one line with the number
_MOST_NAMED = 5  # OOD sets that the first sentence names


def percent(share: float) -> str:
    """Return a share in percent; a share near 0 or 1 does not become 0 or 100 % by rounding."""
    if math.isnan(share):
        return "–"
    if 0 < share < 0.0005:
        return f"less than 0.1{_UNIT}"
    if 0.9995 <= share < 1:
        return f"more than 99.9{_UNIT}"
    return f"{round(100 * share, 1):g}{_UNIT}"


def with_interval(row: dict[str, Any], metric: str, *, as_percent: bool = False) -> tuple[str, str]:
    """Return a metric and its interval as texts."""
    value, low, high = (float(row[name]) for name in (metric, f"{metric}_low", f"{metric}_high"))
    if math.isnan(value):
        return "–", ""
    shown = percent if as_percent else "{:.3f}".format
    return shown(value), f"{shown(low)} to {shown(high)}"


def verdict(table: Table, alpha: float | None) -> str:
    """Return the sentence that sums up a detector."""
    rows = _rows(table)
    if alpha is None:
        lowest = min(rows, key=lambda row: row["auroc"])
        return (
            "The detector has no threshold (alpha is None), so it rejects nothing. Its scores tell known images from "
            f"{lowest['ood']} with an AUROC of {lowest['auroc']:.3f}{', the lowest of all sets' if rows[1:] else ''}."
        )
    known = f"{percent(rows[0]['id_rejected'])} of the known ones (aimed at: at most {percent(alpha)})"
    if len(rows) > _MOST_NAMED:
        shares = sorted(row["ood_rejected"] for row in rows)
        others = [f"between {percent(shares[0])} and {percent(shares[-1])} of the {len(rows)} OOD sets"]
    else:
        others = [f"{percent(row['ood_rejected'])} of {row['ood']}" for row in rows]
    return f"Of images like these, the detector rejects {_listing([known, *others])}."


def cautions(table: Table, alpha: float | None, known: ScoredSet, unknown: Sequence[ScoredSet]) -> list[str]:
    """Return what weakens the verdict, the worst first."""
    rows, found = _rows(table), []
    if alpha is not None and rows[0]["id_rejected_low"] > alpha:
        share, interval = with_interval(rows[0], "id_rejected", as_percent=True)
        found.append(
            f"More known images are rejected than aimed at: {share} ({interval}) instead of at most {percent(alpha)}. "
            "These images differ from those that set the threshold: other cameras, places or classes, or images of the "
            "training that were much alike."
        )
    for row in rows:
        if row["auroc_low"] <= 0.5:
            auroc, interval = with_interval(row, "auroc")
            found.append(
                f"{row['ood']}: the scores are not shown to be better than chance (AUROC {auroc}, {interval})."
            )
        elif alpha is not None and row["ood_rejected"] < 0.5:
            found.append(
                f"{row['ood']}: most of these images are accepted; {percent(row['ood_rejected'])} are rejected."
            )
    for images in [known, *unknown]:
        n = len(images.rows)
        if images.n_unreadable:
            found.append(
                f"{images.name}: {images.n_unreadable} of {len(images.explanation)} images could not be read. They are "
                "left out of all numbers."
            )
        if n < _FEW:
            found.append(f"{images.name}: only {n} image{'s' if n > 1 else ''}, so that its numbers are rough.")
    return found


def _rows(table: Table) -> list[dict[str, Any]]:
    return [{name: column[row] for name, column in table.items()} for row in range(len(table.ood))]


def _listing(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
