"""Classes that are not the library's: how a file names them, and how a caller passes them."""

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["customs_by_name", "qualified_name"]


def qualified_name(cls: type) -> str:
    """Return the name under which a file holds a class that is not the library's."""
    return f"{cls.__module__}.{cls.__qualname__}"


def customs_by_name(customs: Iterable[Any] | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the classes and functions of a caller by qualified name: the class's own, or the key of the mapping."""
    if isinstance(customs, Mapping):
        return customs
    customs = list(customs)
    others = [custom for custom in customs if not isinstance(custom, type)]
    if others:
        raise TypeError(
            f"customs holds {others[0]!r}, which is no class: expected classes, or a mapping from the qualified name "
            "in the file to a class, or to a function that makes the object."
        )
    return {qualified_name(cls): cls for cls in customs}
