"""No module of these packages imports another that imports it, directly or not."""

import ast
from pathlib import Path

import pytest

import skdfb

ROOT = Path(skdfb.__file__).parent


def imported_modules(path):
    """Names of the modules that a file imports anywhere in it, functions and ``TYPE_CHECKING`` included."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    return {name for node in nodes for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))}


@pytest.mark.parametrize("package", ["networks", "masks", "augmentation"])
def test_there_is_no_circle(package):
    imports = {f"skdfb.{package}.{path.stem}": imported_modules(path) for path in (ROOT / package).glob("_[a-z]*.py")}
    assert len(imports) > 3
    while leaves := {name for name, others in imports.items() if not others & set(imports)}:
        imports = {name: others for name, others in imports.items() if name not in leaves}
    assert not imports
