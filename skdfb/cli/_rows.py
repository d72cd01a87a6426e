"""What ``skdfb score`` finds for each image, and a summary of all of it that needs little memory."""

import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["ACCEPTED", "REJECTED", "UNREADABLE", "Row", "Summary", "scored_batches"]

ACCEPTED, REJECTED, UNREADABLE = "accepted", "rejected", "unreadable"
_N_SHOWN = 20


@dataclass(frozen=True)
class Row:
    """What is known of an image; an image that cannot be read has the reason and no score."""

    path: str
    score: float | None
    p_value: float | None
    verdict: str
    label: Any
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the values by name."""
        return asdict(self)


@dataclass
class Summary:
    """Counts of verdicts, and the rejected images with the lowest scores."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys([ACCEPTED, REJECTED, UNREADABLE], 0))
    surest: list[Row] = field(default_factory=list)

    def add(self, rows: Iterable[Row]) -> None:
        """Count some more rows."""
        rejected = list(self.surest)
        for row in rows:
            self.counts[row.verdict] += 1
            if row.verdict == REJECTED:
                rejected.append(row)
        self.surest = heapq.nsmallest(_N_SHOWN, rejected, key=_score_of)

    @property
    def n_images(self) -> int:
        """The number of images."""
        return sum(self.counts.values())


def _score_of(row: Row) -> float:
    return float("inf") if row.score is None else row.score


def scored_batches(detector: Any, paths: Sequence[str]) -> Iterator[list[Row]]:
    """Score images and yield the rows of one batch after the other."""
    if not paths:
        return
    rows = map(_row, detector.iter_scores(list(paths)))
    while batch := list(itertools.islice(rows, detector.batch_size)):
        yield batch


def _row(found: Any) -> Row:
    if found.error:
        return Row(found.path, None, None, UNREADABLE, None, found.error)
    return Row(found.path, found.score, found.p_value, ACCEPTED if found.accepted else REJECTED, found.label)
