"""The errors of images that cannot be read: of one image, and of all of a set at once."""

import os
from collections.abc import Sequence

from skdfb.exceptions import UnreadableImageError

__all__ = ["check_readable", "unreadable", "unusable"]

_MOST_SHOWN = 20  # images in a message


def unreadable(index: int, path: str | os.PathLike[str] | None, reason: object) -> UnreadableImageError:
    """Return the error of one image, which names its file if it has one; the reason does not name it again."""
    text = str(reason).rstrip(".")
    file = "" if path is None else f": file {os.fsdecode(path)!r}"
    return UnreadableImageError(f"image {index} cannot be read{file}: {text}.", index, path, text)


def unusable(index: int, path: str | os.PathLike[str] | None, error: ValueError) -> UnreadableImageError:
    """Return the error of one image for one about its pixels, whose text begins with "image" and the index."""
    reason = f"it {str(error).removeprefix(f'image {index} ').rstrip('.')}"
    if path is None:
        return UnreadableImageError(str(error), index, None, reason)
    return unreadable(index, path, reason)


def check_readable(errors: Sequence[UnreadableImageError], n_images: int) -> None:
    """Raise one error for all images of a set that cannot be read; its index, path and reason are of the first."""
    if not errors:
        return
    first = errors[0]
    if len(errors) == 1:
        raise first
    if len(errors) == n_images:
        # A mistake in the call, as a rule: one of them tells it.
        message = f"none of {n_images} images can be read: {first}"
        raise UnreadableImageError(message, first.index, first.path, first.reason) from first
    names: dict[str, list[str]] = {}
    for error in errors[:_MOST_SHOWN]:
        names.setdefault(error.reason, []).append(f"image {error.index}" if error.path is None else repr(error.path))
    named = "; ".join(f"{', '.join(of_reason)}: {reason}" for reason, of_reason in names.items())
    more = f"; and {len(errors) - _MOST_SHOWN} more" if len(errors) > _MOST_SHOWN else ""
    remedy = "Leave them out." if first.path is None else "Move these files away, or leave them out."
    message = f"{len(errors)} of {n_images} images cannot be read: {named}{more}. {remedy}"
    raise UnreadableImageError(message, first.index, first.path, first.reason) from first
