"""The image sets of a report: scored once, with what is shown of them."""

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from skdfb.detector import Explanation
from skdfb.displays._pictures import Picture, read_pictures, rows_of
from skdfb.evaluation import Table, evaluate

__all__ = ["Example", "ScoredSet", "evaluated", "examples", "scored", "short_name"]

_SIDE = 176  # pixels of the longer side of a small picture

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class ScoredSet:
    """An image set and all that a detector tells of it; unreadable images are left out of ``rows``."""

    name: str
    images: Any
    explanation: Explanation
    rows: Rows
    seconds: float

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """Scores of the images that could be read."""
        return self.explanation.scores[self.rows]

    @property
    def n_unreadable(self) -> int:
        """Number of images that could not be read."""
        return len(self.explanation) - len(self.rows)

    def p_values(self, part: str) -> npt.NDArray[np.float64]:
        """Tail probabilities of a part, which rise with its score."""
        return self.explanation.part_p_values[part][self.rows]


@dataclass(frozen=True)
class Example:
    """One image of a report: a picture if it can be drawn, as bytes of its kind, and why it got its score."""

    name: str
    sentence: str
    nearest: str | None
    label: str | None
    picture: tuple[bytes, str] | None


def scored(detector: Any, images: Any, prepared: Any, name: str) -> ScoredSet:
    """Score and explain an image set; ``prepared`` turns the images into the input of the detector."""
    begin = time.perf_counter()
    # Detectors that older versions saved remember no images of the training.
    n_neighbors = 0 if getattr(detector, "reference_", None) is None else 1
    explanation = detector.explain(prepared(images), n_neighbors=n_neighbors)
    rows = np.flatnonzero(~np.isnan(explanation.scores))
    if len(rows) == 0:
        raise ValueError(f"no image of {name!r} can be read: expected at least one.")
    return ScoredSet(name, images, explanation, rows, time.perf_counter() - begin)


class _Scored:
    """A detector that has scored all images: what it is given are their scores."""

    def __init__(self, offset: float, classes: npt.NDArray[Any], labels: npt.NDArray[Any]) -> None:
        self.offset_, self.classes_, self.labels = offset, classes, labels

    def score_samples(self, X: Any) -> Any:
        return X

    def classify(self, X: Any) -> Any:
        return self.labels

    def score_and_classify(self, X: Any) -> Any:
        return X, self.labels


def evaluated(
    detector: Any, known: ScoredSet, unknown: Mapping[str, ScoredSet], y: npt.NDArray[Any] | None, random_state: Any
) -> Table:
    """Return the table of :func:`~skdfb.evaluation.evaluate` for images that were scored already."""
    step = _Scored(known.explanation.offset, detector.classes_, known.explanation.labels[known.rows])
    scores = {name: images.scores for name, images in unknown.items()}
    labels = None if y is None else y[known.rows]
    return evaluate(step, known.scores, scores, labels, random_state=random_state)


def examples(detector: Any, images: ScoredSet, chosen: Rows, y: npt.NDArray[Any] | None = None) -> list[Example]:
    """Return some of the images, in this order; ``y`` are the labels of all images."""
    explanation = images.explanation
    pictures = _pictures(detector, images.images, [int(row) for row in chosen])
    found = []
    for row, picture in zip(chosen, pictures, strict=True):
        near = zip(explanation.neighbors[row], explanation.neighbor_labels[row], strict=True)
        nearest = next((f"{short_name(name)} ({label})" for name, label in near), None)
        label = None if y is None else str(y[row])
        found.append(Example(short_name(explanation.names[row]), explanation.sentences[row], nearest, label, picture))
    return found


def short_name(name: str) -> str:
    """Return the end of a path: a report that is passed on must not tell the folders of a disk."""
    path = PurePath(name)
    return path.as_posix() if not path.is_absolute() and len(path.parts) < 3 else "/".join(path.parts[-2:])


def _pictures(detector: Any, images: Any, rows: list[int]) -> list[tuple[bytes, str] | None]:
    # Rows of numbers are no pictures, and files may have gone since.
    try:
        return [_small(picture) for picture in read_pictures(rows_of(images, rows), estimator=detector)] if rows else []
    except (TypeError, ValueError, OSError):
        return [None] * len(rows)


def _small(picture: Picture) -> tuple[bytes, str]:
    """Return a small picture as bytes, and their kind."""
    if picture.dtype != np.uint8:
        picture = np.round(picture * 255).astype(np.uint8)
    image, content = Image.fromarray(np.ascontiguousarray(picture)), io.BytesIO()
    kind = "jpeg" if max(image.size) > 64 else "png"  # few pixels would suffer from JPEG
    image.thumbnail((_SIDE, _SIDE))
    image.save(content, kind, **({"quality": 82} if kind == "jpeg" else {}))
    return content.getvalue(), kind
