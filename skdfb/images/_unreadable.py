"""The errors of images that cannot be read: of one image, and of all of a set at once."""

import os
from collections.abc import Sequence

from skdfb.exceptions import UnreadableImageError

__all__ = ["all_unreadable", "unreadable"]

_MOST_SHOWN = 5  # images in a message


def unreadable(index: int, path: str | os.PathLike[str] | None, reason: object) -> UnreadableImageError:
    """Return the error of one image, which is named by its file if it has one."""
    text = str(reason).rstrip(".")
    return UnreadableImageError(f"{_name(index, path)} cannot be read: {text}.", index, path, text)


def all_unreadable(errors: Sequence[UnreadableImageError], n_images: int) -> UnreadableImageError:
    """Return one error for all images of a set that cannot be read.

    Index and path are those of the first one; the message has the names of a few, and how to mend it.
    """
    first = errors[0]
    files = all(error.path is not None for error in errors)
    if len(errors) == 1:
        remedy = " Move it away, or leave it out." if files else ""
        return UnreadableImageError(f"{first}{remedy}", first.index, first.path, first.reason)
    by_reason: dict[str, list[str]] = {}
    for error in errors[:_MOST_SHOWN]:
        by_reason.setdefault(error.reason, []).append(_name(error.index, error.path))
    named = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in by_reason.items())
    more = f"; and {len(errors) - _MOST_SHOWN} more" if len(errors) > _MOST_SHOWN else ""
    remedy = "Move these files away, or leave them out." if files else "Leave them out."
    message = f"{len(errors)} of {n_images} images cannot be read: {named}{more}. {remedy}"
    return UnreadableImageError(message, first.index, first.path, first.reason)


def _name(index: int, path: str | os.PathLike[str] | None) -> str:
    return f"image {index}" if path is None else repr(os.fsdecode(path))
