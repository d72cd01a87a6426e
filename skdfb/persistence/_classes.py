"""Which classes a file may name, and by which name."""

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["customs_by_name", "find_class", "library_name", "qualified_name"]

# A file names a class of the library by its bare name, so that it outlives moves between modules.
_PUBLIC = ("augmentation", "calibration", "detector", "fusion", "masks", "networks", "scorers", "training", "utils")
_PRIVATE = {
    "Part": ("skdfb.detector._parts", "Part"),
    "PartScorers": ("skdfb.detector._parts", "PartScorers"),
    "Split": ("skdfb.detector._dfb", "_Split"),
}


def library_name(cls: type) -> str | None:
    """Return the name by which a file means one of the library's classes; None for any other class."""
    if cls.__module__.partition(".")[0] != "skdfb":
        return None
    names = [
        name for name, (module, attribute) in _PRIVATE.items() if (cls.__module__, cls.__name__) == (module, attribute)
    ]
    name = names[0] if names else cls.__name__
    return name if find_class(name) is cls else None


def find_class(name: str) -> type | None:
    """Return the class of the library that a file means; None where the name is none of those allowed."""
    if name in _PRIVATE:
        module, attribute = _PRIVATE[name]
        return getattr(import_module(module), attribute)  # type: ignore[no-any-return]
    for package in _PUBLIC:
        try:
            public = import_module(f"skdfb.{package}")
        except ModuleNotFoundError:
            continue
        if name in public.__all__ and isinstance(getattr(public, name), type):
            return getattr(public, name)  # type: ignore[no-any-return]
    return None


def qualified_name(cls: type) -> str:
    """Return the name by which a file means a class that is not the library's."""
    return f"{cls.__module__}.{cls.__qualname__}"


def customs_by_name(customs: Iterable[Any] | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a caller hands in by qualified name: classes have their own, of anything else the mapping tells."""
    if isinstance(customs, Mapping):
        return customs
    customs = list(customs)
    others = [custom for custom in customs if not isinstance(custom, type)]
    if others:
        raise TypeError(
            f"customs holds {others[0]!r}, which is no class; pass a mapping from the qualified name that the file has "
            "to a class, or to a function that makes the object."
        )
    return {qualified_name(cls): cls for cls in customs}
