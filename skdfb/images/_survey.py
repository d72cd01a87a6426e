"""One reading of all training images before any training: damaged files, ranges, images that are all the same."""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed

from skdfb._progress import progress_bar
from skdfb.exceptions import UnreadableImageError
from skdfb.images._images import N_FINGERPRINTS, Images, SingleImages, scale_of, spread_evenly
from skdfb.images._near_duplicates import fingerprint
from skdfb.images._pixels import number, value_bounds
from skdfb.images._scale import PixelScale, is_wide, with_channels
from skdfb.images._unreadable import check_readable

__all__ = ["survey"]

_N_COMPARED = 100  # training images that are compared to find sets in which all images are the same
# Images whose pixels all lie this close together show nothing.
_NEARLY = 2 / 255
_ROUNDING = 1e-6
# Files are checked and compared at a small size: damage shows at any.
_LEAST_SIDE = 64


class _Look(NamedTuple):
    """What one image tells: the type of its numbers, the least and the largest, and a digest."""

    dtype: np.dtype[Any]
    low: float
    high: float
    digest: bytes


def survey(
    images: Images, n_jobs: int | None, value_range: tuple[float, float] | None = None, *, compare: bool = True
) -> PixelScale | None:
    """Read each image once: learn the range of its numbers, and refuse what no training can use.

    Images that are read one by one keep what was learned, so that a second survey reads nothing. Arrays were checked
    as a whole; two of their images are read, as a rule.

    Parameters
    ----------
    images : Images
        The training images.
    n_jobs : int or None
        Threads that read.
    value_range : tuple of (float, float), default=None
        The range of the numbers of a table, for error messages.
    compare : bool, default=True
        Whether to refuse images that are all the same.

    Returns
    -------
    scale : PixelScale or None
        How numbers become pixels; None for a table.

    Raises
    ------
    skdfb.exceptions.UnreadableImageError
        If an image cannot be read, has other channels than the network takes, or pixels out of range.
    ValueError
        If all images are the same, or nearly of one colour, or were cast to the integers 0 and 1.
    """
    base = images
    while hasattr(base, "images"):  # a part of the images, or a wrapper
        base = base.images
    if isinstance(base, SingleImages):
        if not base.surveyed:
            read = _read_all(base, n_jobs)
            if compare:
                _check_differ(read, base.learn_scale(), base, value_range)
            base.surveyed = True
        return base.scale
    if not compare:
        return getattr(base, "scale", None)
    # One by one, until it is clear that they differ.
    rows = spread_evenly(len(images), _N_COMPARED)
    pixels = (images.read_one(int(row)).numpy() for row in rows)
    looks = (_look(image, float(image.min()), float(image.max())) for image in pixels)
    _check_differ(looks, PixelScale(), images, value_range)
    return getattr(base, "scale", None)


def _look(image: npt.NDArray[Any], low: float, high: float) -> _Look:
    digest = hashlib.blake2b(f"{image.dtype}{image.shape}".encode() + np.ascontiguousarray(image).tobytes())
    return _Look(image.dtype, low, high, digest.digest())


def _read_all(images: SingleImages, n_jobs: int | None) -> list[_Look]:
    """Read each image, learn and set the scale, and return looks at some of them."""
    sampled = set(spread_evenly(len(images), N_FINGERPRINTS).tolist())
    compared = set(spread_evenly(len(images), _N_COMPARED).tolist())

    def look_at(index: int) -> _Look | UnreadableImageError:
        try:
            image = images.read_numbers(index, _LEAST_SIDE)
            with images.checking(index) as name:
                image = with_channels(image, images.n_channels, name)
                low, high = value_bounds(image[None], name)
        except UnreadableImageError as error:
            return error
        if index in sampled:
            images.known[index] = fingerprint(image)
        # A digest takes time, so only of the images that are compared.
        return _look(image, low, high) if index in compared else _Look(image.dtype, low, high, b"")

    n_images = len(images)
    with progress_bar(n_images, "reading the images", over=range(n_images), is_long=n_images > _N_COMPARED) as places:
        found = Parallel(n_jobs=n_jobs, prefer="threads")(delayed(look_at)(index) for index in places)
    # All at once: whoever has forty damaged files should learn it in one run.
    check_readable([error for error in found if isinstance(error, UnreadableImageError)], n_images)
    looks = [look for look in found if isinstance(look, _Look)]
    if images.scale is None:
        images.scale = scale_of([(look.low, look.high) for look in looks if is_wide(look.dtype)])
    for index, look in enumerate(looks):
        with images.checking(index) as name:
            images.scale.check(look.dtype, look.low, look.high, name)
    return [looks[index] for index in sorted(compared)]


def _check_differ(
    looks: Iterable[_Look], scale: PixelScale, images: Images, value_range: tuple[float, float] | None
) -> None:
    """Refuse images that are all the same, nearly of one colour, or all black because they were cast to integers.

    The looks are taken one by one until it is clear that the images differ.
    """
    # Files may hold the integers 0 and 1: they are decoded here, so a cast by the caller is not the reason.
    integers = {format.numbers for format in images.pixel_formats} == {"integer"}
    first: _Look | None = None
    darkest, brightest, is_dark, is_equal, n_looks = 1.0, 0.0, integers, True, 0
    for look in looks:
        first = first or look
        n_looks += 1
        ends = scale.to_unit(np.array([look.low, look.high], dtype=look.dtype))
        low, high = ends / (255.0 if ends.dtype == np.uint8 else 1.0)
        darkest, brightest = min(darkest, float(low)), max(brightest, float(high))
        is_dark = is_dark and look.high <= 1 and look.dtype.kind in "ui"
        is_equal = is_equal and look.digest == first.digest
        if not (is_dark or (is_equal and n_looks > 1) or brightest - darkest <= _NEARLY or n_looks == 1):
            return
    assert first is not None, "there is at least one image"
    # First the more specific error. Sets that are all 0 come from a cast more often than from a bad file.
    if is_dark:
        raise ValueError(
            "X holds no integer above 1: expected integers in 0..255, where 0 and 1 are black. If these were floats in "
            "0..1, pass them as floats; for binary images, pass X.astype(bool)."
        )
    which = " that" if len(images) == n_looks else f", and the {n_looks} that were compared"
    count = f"X holds {len(images)} image{'(s)' if len(images) == 1 else 's'}{which} are"
    advice = "expected different images; check how they were read."
    is_constant = brightest - darkest <= _ROUNDING
    if is_constant or (is_equal and n_looks > 1):
        every = f" ({_described(first.low, value_range)})" if is_constant else ""
        raise ValueError(f"{count} all the same{every}: {advice}")
    if brightest - darkest <= _NEARLY:
        values = f"{number(round(darkest, 6))} to {number(round(brightest, 6))}"
        raise ValueError(f"{count} nearly of one colour (every pixel is {values} of 0..1): {advice}")


def _described(pixel: float, value_range: tuple[float, float] | None) -> str:
    """Name the value that all pixels have; rows of numbers were scaled from ``value_range`` to 0..1."""
    if value_range is None:
        return f"every pixel is {number(pixel)}"
    low, high = value_range
    return f"every value is {low + pixel * (high - low):g}"
