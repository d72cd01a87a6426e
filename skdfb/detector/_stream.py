"""Scores of images one after the other, for sources that are larger than the memory, or have no end."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from joblib import effective_n_jobs

from skdfb.exceptions import UnreadableImageError
from skdfb.images import Images, Indices, LenientImages, SingleImages
from skdfb.utils import own_torch_modes

__all__ = ["ImageScore", "Judged", "Rows", "in_chunks", "in_own_modes"]

Batch = TypeVar("Batch")
# Scores, p-values, whether they are accepted, and labels of a batch.
Judged = tuple[Sequence[float], Sequence[float], Sequence[bool], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class ImageScore:
    """What :meth:`skdfb.DFBDetector.iter_scores` tells of an image.

    Parameters
    ----------
    index : int
        Number of the image in the source, from 0.
    path : str or None
        Its file; None if it did not come from a file.
    score : float
        Higher is more in-distribution; NaN for an image that cannot be read.
    p_value : float
        Share of known images that score as low, in (0, 1]; NaN for an image that cannot be read.
    accepted : bool
        Whether the score reaches the threshold; False for an image that cannot be read.
    label : label or None
        The most probable class, also of an image that is not accepted; None for an image that cannot be read.
    error : str
        Why the image cannot be read; else empty.

    Examples
    --------
    >>> from skdfb.detector import ImageScore
    >>> row = ImageScore(0, "new/0.jpg", score=-3.2, p_value=0.004, accepted=False, label="daisy")
    >>> f"{row.path}: {'accepted' if row.accepted else 'rejected'} (p = {row.p_value})"
    'new/0.jpg: rejected (p = 0.004)'
    """

    index: int
    path: str | None
    score: float
    p_value: float
    accepted: bool
    label: Any
    error: str = ""


def in_chunks(source: Any, size: int, n_jobs: int | None) -> Iterator[tuple[int, Any]]:
    """Yield parts of a source with the number of their first image; only an iterator comes in several parts."""
    if not isinstance(source, Iterator):
        yield 0, source
        return
    # As many batches as are read at a time.
    size *= 1 if n_jobs is None else effective_n_jobs(n_jobs)
    start = 0
    while chunk := list(itertools.islice(source, size)):
        yield start, chunk
        start += len(chunk)


def in_own_modes(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield batches that are computed in the library's own modes of torch; between them, the caller has its own."""
    while True:
        with own_torch_modes():
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


class Rows:
    """Makes a row per image of a part of a source, whose numbers begin with ``first``."""

    def __init__(self, images: Images, first: int) -> None:
        self._first, self._names = first, images.names
        self._errors: dict[int, UnreadableImageError] = {}
        if isinstance(images, LenientImages):
            self._errors = images.errors
            if isinstance(images.images, SingleImages):
                images.images.first = first

    def of(self, indices: Indices, judged: Judged) -> Iterator[ImageScore]:
        """Yield the rows of a batch."""
        for place, score, p_value, accepted, label in zip(indices.tolist(), *judged, strict=True):
            path = None if self._names is None else self._names[place]
            # It was noted when the image was read; the score is that of one black pixel.
            if (error := self._errors.pop(place, None)) is not None:
                yield ImageScore(self._first + place, path, math.nan, math.nan, False, None, error.reason)
            else:
                yield ImageScore(self._first + place, path, score, p_value, accepted, label)
