"""The classes that saved models may hold: each package registers its own, so that persistence need not know them."""

import sys
from collections.abc import Callable
from typing import Any

__all__ = ["register_class", "register_classes", "register_upgrade", "registered_class", "registered_name", "upgraded"]

State = dict[str, Any]

_classes: dict[str, type] = {}
_upgrades: dict[tuple[str, int], Callable[[State], State]] = {}


def register_class(cls: type, name: str | None = None) -> None:
    """Let saved models hold a class, under its own name or another one.

    A file holds the bare name, so that it can still be read after a class has moved to another module.
    """
    _classes[name or cls.__name__] = cls


def register_classes(package: str) -> None:
    """Register the public classes of a package; called at the end of its ``__init__``."""
    module = sys.modules[package]
    for name in module.__all__:
        value = getattr(module, name)
        if isinstance(value, type):
            register_class(value)


def registered_class(name: str) -> type | None:
    """Return the class of a name; None if no imported package has registered it."""
    return _classes.get(name)


def registered_name(cls: type) -> str | None:
    """Return the name of a class; None if it is not registered."""
    return next((name for name, known in _classes.items() if known is cls), None)


def register_upgrade(name: str, file_format: int, upgrade: Callable[[State], State]) -> None:
    """Register how the attributes of a class change from one file format to the next one."""
    _upgrades[name, file_format] = upgrade


def upgraded(name: str, state: State, file_format: int, present_format: int) -> State:
    """Return the attributes of an object from a file of an older format as they are in the present one."""
    for number in range(file_format, present_format):
        if (name, number) in _upgrades:
            state = _upgrades[name, number](state)
    return state
