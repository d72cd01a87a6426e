"""Third-party classes: their names in a file, and the ``customs`` that a caller passes to load them."""

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["customs_by_name", "qualified_name"]


def qualified_name(cls: type) -> str:
    """Return the name of a third-party class in a file: its module and its qualified name."""
    return f"{cls.__module__}.{cls.__qualname__}"


def customs_by_name(customs: Iterable[Any] | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the caller's classes and functions by qualified name.

    A mapping already has these names as its keys. For an iterable, each class gives its own name.

    Raises
    ------
    TypeError
        If an iterable holds something that is not a class.
    """
    if isinstance(customs, Mapping):
        return customs
    customs = list(customs)
    # Only a class has a name that a file can hold: for a function, the caller must give the name of the class.
    others = [custom for custom in customs if not isinstance(custom, type)]
    if others:
        raise TypeError(
            f"customs holds {others[0]!r}, which is not a class: expected an iterable of classes, or a mapping from "
            "the qualified name in the file to a class or to a function that makes the object."
        )
    return {qualified_name(cls): cls for cls in customs}
