"""What ``skdfb score`` finds for each image, and a summary of all of it that needs little memory."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from skdfb.exceptions import UnreadableImageError

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
    # The detector holds the outputs of all images that one call gets.
    size = detector.batch_size
    for start in range(0, len(paths), size):
        yield _scored(detector, paths[start : start + size])


def _scored(detector: Any, paths: Sequence[str]) -> list[Row]:
    import warnings

    from skdfb.exceptions import UnreadableImageWarning
    from skdfb.images import LenientImages, check_images

    images = check_images(detector, list(paths), reset=False, lenient=True)
    assert isinstance(images, LenientImages)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnreadableImageWarning)  # each has a row that says so
            scores, labels = detector.score_and_classify(images)
    except UnreadableImageError:
        if len(images.errors) < len(paths):
            raise
        # Raised because it looks like a mistake in the call; here it is a batch among others.
        return [_unreadable(path, images.errors[place]) for place, path in enumerate(paths)]
    p_values, threshold = detector.joint_score_.p_values(scores), detector.offset_
    return [
        _unreadable(path, images.errors[place])
        if place in images.errors
        else Row(
            path,
            float(scores[place]),
            float(p_values[place]),
            ACCEPTED if scores[place] >= threshold else REJECTED,
            labels[place].item() if hasattr(labels[place], "item") else labels[place],
        )
        for place, path in enumerate(paths)
    ]


def _unreadable(path: str, error: UnreadableImageError) -> Row:
    return Row(path, None, None, UNREADABLE, None, error.reason)
