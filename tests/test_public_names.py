"""Every public name can be imported, stands in order, and has documentation with an example."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from types import FunctionType

import pytest

import skdfb

PACKAGES = ["skdfb"] + [
    name
    for _, name, _ in pkgutil.walk_packages(skdfb.__path__, prefix="skdfb.")
    if not any(part.startswith("_") for part in name.split("."))
]
INTERNAL = {"skdfb.images", "skdfb.utils"}  # for the other packages, not for users


def things_of(package):
    """Names and classes or functions of a package's ``__all__``."""
    module = importlib.import_module(package)
    found = ((name, getattr(module, name)) for name in module.__all__)
    return [(name, thing) for name, thing in found if inspect.isclass(thing) or inspect.isfunction(thing)]


def ruff_order(name):
    """Sort as ruff's RUF022 does: constants, classes, others; digits by their value."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def test_packages_are_found():
    assert {"skdfb.scorers", "skdfb.detector", "skdfb.exceptions"} <= set(PACKAGES)
    assert len(things_of("skdfb.scorers")) > 5


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_sorted_and_importable(package):
    module = importlib.import_module(package)
    names = module.__all__
    assert names == sorted(names, key=ruff_order)
    assert len(set(names)) == len(names)
    assert not [name for name in names if not hasattr(module, name)]
    assert (module.__doc__ or "").strip()


def documentation_of(thing):
    """A class must have a docstring of its own, not a base's."""
    return (vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__) or ""


def has_example(documentation):
    sections = re.findall(r"^(\w[\w ]*)\n-+$", inspect.cleandoc(documentation), flags=re.MULTILINE)
    return "Examples" in sections and ">>> " in documentation


@pytest.mark.parametrize("package", PACKAGES)
def test_documentation(package):
    things = dict(things_of(package))
    assert not [name for name, thing in things.items() if not documentation_of(thing)]
    exempt = {
        name
        for name, thing in things.items()
        if package in INTERNAL
        or getattr(thing, "_is_protocol", False)
        or (inspect.isclass(thing) and issubclass(thing, BaseException))
    }
    assert not [name for name in things if name not in exempt and not has_example(documentation_of(things[name]))]


@pytest.mark.parametrize("package", PACKAGES)
def test_public_methods_are_documented(package):
    bare = [
        f"{name}.{attribute}"
        for name, thing in things_of(package)
        if inspect.isclass(thing)
        for attribute, method in vars(thing).items()
        if not attribute.startswith("_")
        and isinstance(method, property | classmethod | staticmethod | FunctionType)
        and not inspect.getdoc(getattr(thing, attribute))
    ]
    assert not bare


def test_reference_page_lists_every_public_name():
    page = Path(__file__).parents[1].joinpath("docs", "api.rst").read_text(encoding="utf-8")
    sections = re.split(r"\.\. module:: ([\w.]+)\n", page)[1:]
    listed = {
        package: re.findall(r"^   (\w+)$", section, flags=re.MULTILINE)
        for package, section in zip(sections[::2], sections[1::2], strict=True)
    }
    assert listed == {
        package: importlib.import_module(package).__all__ for package in PACKAGES if package not in {"skdfb", *INTERNAL}
    }


def test_missing_documentation_is_found():
    assert has_example("Do.\n\n    Examples\n    --------\n    >>> 1\n    1\n    ")
    assert not has_example("Do.\n\n    Examples of this\n    >>> 1\n    1\n    ")
    assert not has_example("Examples\n--------\nNone.")
    assert documentation_of(type("Bare", (PACKAGES.__class__,), {})) == ""


def test_order_is_that_of_ruff():
    assert sorted(["b", "a10", "a2", "Ab", "MSP", "ODIN", "ViM"], key=ruff_order) == [
        "MSP", "ODIN", "Ab", "ViM", "a2", "a10", "b",
    ]  # fmt: skip


def test_top_level_names_resolve():
    assert dir(skdfb) == skdfb.__all__
    for name in skdfb.__all__:
        assert getattr(skdfb, name) is not None
    assert skdfb.DFBDetector is importlib.import_module("skdfb.detector").DFBDetector
    with pytest.raises(AttributeError, match="module 'skdfb' has no attribute 'no_such'"):
        _ = skdfb.no_such
    assert not hasattr(skdfb, "no_such")
