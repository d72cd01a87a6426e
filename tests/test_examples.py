"""The gallery: each example compiles, uses names that exist, and has a place. Building the documentation runs them."""

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
sys.path.insert(0, str(ROOT / "docs"))

from gallery_order import EXAMPLES as ORDER  # noqa: E402
from gallery_order import FOLDERS, by_folder, by_name  # noqa: E402


def name_of(path):
    return f"{path.parent.name}/{path.stem}"


def imports_of(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]


def test_each_example_has_a_place():
    assert sorted(ORDER) == sorted(FOLDERS)
    assert sorted(f"{folder}/{name}" for folder in ORDER for name in ORDER[folder]) == sorted(map(name_of, EXAMPLES))
    assert len({path.stem for path in EXAMPLES}) == len(EXAMPLES)


def test_the_quickstart_is_the_first():
    first = min(EXAMPLES, key=lambda path: (by_folder(path.parent), by_name(path.name)))
    assert name_of(first) == "detector/quickstart"


@pytest.mark.parametrize("folder", ["", *FOLDERS])
def test_each_folder_has_a_header(folder):
    text = (ROOT / "examples" / folder / "README.rst").read_text(encoding="utf-8")
    assert re.match(r"[^\n]+\n[=-]+\n\n\w", text)


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_names_exist(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert re.match(r"\n.+\n=+\n\n\S", ast.get_docstring(tree, clean=False))
    for node in imports_of(tree):
        if node.module.split(".")[0] == "skdfb":
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
            assert not any(part.startswith("_") for part in node.module.split("."))


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_references_exist(path):
    """The roles in the text name public things."""
    for target in re.findall(r":(?:class|func|meth):`~?(skdfb[\w.]+)`", path.read_text(encoding="utf-8")):
        parts = target.split(".")
        found = importlib.import_module("skdfb")
        for part in parts[1:]:
            if not hasattr(found, part):
                found = importlib.import_module(f"{found.__name__}.{part}")
            else:
                found = getattr(found, part)


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_only_the_quickstart_writes_into_the_current_folder(path):
    saved = re.findall(r'savefig\("(.+?)"', path.read_text(encoding="utf-8"))
    assert saved == (["quickstart.png"] if path.stem == "quickstart" else [])
