"""numpydoc's own validation of every public class, function and method: no name is left out."""

import importlib
import inspect

import pytest
from numpydoc.validate import ERROR_MSGS, validate

from tests.test_public_names import PACKAGES, things_of

# GL01 is a matter of layout that ruff decides. RT02 forbids names for return values, which scikit-learn has, too. The
# others ask every method for an extended summary, See Also and examples; classes and functions must have an example,
# see test_public_names.py.
LEFT_TO_OTHERS = {"GL01", "RT02", "ES01", "SA01", "EX01"}
# Python gives each protocol an __init__(*args, **kwargs) that nobody calls.
PROTOCOLS = {"PR01"}
CHECKED = set(ERROR_MSGS) - LEFT_TO_OTHERS


def members_of(thing):
    """Names of the public methods and properties that a class of the library defines, inherited ones included."""
    for name in dir(thing):
        static = inspect.getattr_static(thing, name)
        function = getattr(static, "fget", None) or getattr(static, "__func__", static)
        if not name.startswith("_") and (getattr(function, "__module__", "") or "").startswith("skdfb"):
            yield name


def public_names():
    for package in PACKAGES:
        if package in ("skdfb", "skdfb.utils", "skdfb.images"):
            continue
        for name, thing in things_of(package):
            yield f"{package}.{name}"
            if inspect.isclass(thing):
                yield from (f"{package}.{name}.{member}" for member in members_of(thing))


def is_protocol(name):
    package, _, thing = name.rpartition(".")
    return package in PACKAGES and getattr(getattr(importlib.import_module(package), thing), "_is_protocol", False)


@pytest.mark.parametrize("name", sorted(set(public_names())))
def test_docstring(name):
    checked = CHECKED - PROTOCOLS if is_protocol(name) else CHECKED
    result = validate(name)
    errors = [f"{code}: {message}" for code, message in result["errors"] if code in checked]
    assert not errors, "\n".join(errors)
    # The tables of the reference end it at the first full stop before a space: "by Eq."
    assert ". " not in result["docstring"].strip().partition("\n\n")[0]
