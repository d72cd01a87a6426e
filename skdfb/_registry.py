"""The classes that saved models may hold.

Each package registers its own classes here. So persistence need not import the packages, and a file can only name
registered classes, besides those that the caller of ``load`` passes.
"""

import sys
from collections.abc import Callable
from typing import Any

__all__ = [
    "class_like",
    "register_class",
    "register_classes",
    "register_upgrade",
    "registered_class",
    "registered_name",
    "upgraded",
]

State = dict[str, Any]

_classes: dict[str, type] = {}
# By class name and the format that is upgraded. Each upgrade leads to the next format.
_upgrades: dict[tuple[str, int], Callable[[State], State]] = {}


def register_class(cls: type, name: str | None = None) -> None:
    """Register a class that saved models may hold, under its own name or another one.

    A file holds this name without the module. So old files can still be read after a class has moved to another module.
    """
    _classes[name or cls.__name__] = cls


def register_classes(package: str) -> None:
    """Register the public classes of a package. Each package calls this at the end of its ``__init__``."""
    module = sys.modules[package]
    # __all__ holds functions, too, which no file stores.
    for name in module.__all__:
        value = getattr(module, name)
        if isinstance(value, type):
            register_class(value)


def registered_class(name: str) -> type | None:
    """Return the class that is registered under a name; None if no imported package has registered one."""
    return _classes.get(name)


def class_like(name: str, package: str) -> type | None:
    """Return the class of a package that has this name, whatever its case and signs; None if there is none."""
    letters = "".join(filter(str.isalnum, name)).lower()
    of_package = (cls for cls in _classes.values() if cls.__module__.startswith(f"{package}."))
    return next((cls for cls in of_package if cls.__name__.lower() == letters), None)


def registered_name(cls: type) -> str | None:
    """Return the name of a class; None if it is not registered."""
    # By identity: a class of the same name elsewhere is another class.
    return next((name for name, known in _classes.items() if known is cls), None)


def register_upgrade(name: str, file_format: int, upgrade: Callable[[State], State]) -> None:
    """Register a function that changes the attributes of a class from ``file_format`` to the next format."""
    _upgrades[name, file_format] = upgrade


def upgraded(name: str, state: State, file_format: int, present_format: int) -> State:
    """Return the attributes of an object, changed from the format of its file to the present one."""
    # One format at a time: a new format needs one new upgrade, not one for each older format.
    for number in range(file_format, present_format):
        if (name, number) in _upgrades:
            state = _upgrades[name, number](state)
    return state
