"""The code in the README and on every page of the documentation fits the package."""

import ast
import builtins
import inspect
import re
import textwrap
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import skdfb
from skdfb import DFBDetector
from skdfb.detector import Explanation
from skdfb.evaluation import Table
from skdfb.scoring import JointScore
from tests.helpers import TinyBackbone

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SMALL_DATA = DOCS / "how_to" / "small_data.rst"
BUILT = {"_build", "auto_examples", "generated"}
PAGES = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in DOCS.rglob("*.rst") if not BUILT & {*page.parts})]
# The classes of the objects that the blocks call methods of, and the names of the user's own data and classes.
OBJECTS = {"detector": DFBDetector, "stricter": DFBDetector, "careful": DFBDetector, "joint_score": JointScore}
OBJECTS |= {"why": Explanation, "table": Table}
USERS = {"X", "y", "X_new", "X_id", "y_id", "X_test", "y_test", "X_textures", "features", "my_timm_model", "paths"}
USERS |= {"MyScorer", "MyBackbone", "DistanceToMean", "videos", "X_later", "rest", "chosen"}


def blocks_of(path):
    """Return the Python code blocks of a page, in order, also those inside of tabs."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    starts = r"^( *)(?:\.\. code-block:: python|(?!\.\. )\S.*::)\n\n"
    blocks = re.findall(starts + r"((?:\1[ ]{3,}.*\n|\n)+)", text, flags=re.MULTILINE)
    return [textwrap.dedent(block).strip() + "\n" for _, block in blocks]


def code_lines(block):
    return [line for line in block.splitlines() if line]


def test_readme_and_home_page_start_with_the_same_example():
    script = (DOCS / "first_page.py").read_text(encoding="utf-8")
    assert code_lines(blocks_of(ROOT / "README.md")[0]) == code_lines(script)[1:]
    assert ".. literalinclude:: first_page.py" in (DOCS / "index.rst").read_text(encoding="utf-8")
    assert len(code_lines(script)) <= 13


def test_the_pages_with_code_are_found():
    assert sum(len(blocks_of(ROOT / page)) for page in PAGES) > 50
    assert len(blocks_of(DOCS / "tutorial.rst")) >= 8


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(ROOT / page)])
def test_code_fits_the_package(page):
    """All blocks can be parsed, their names are imported or made, and each call has parameters of the function."""
    names, n_checked = {"skdfb": skdfb}, 0
    known = USERS | set(OBJECTS) | set(dir(builtins))
    for block in blocks_of(ROOT / page):
        tree = ast.parse(block)
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                exec(compile(ast.Module([node], []), page, "exec"), names)
        used = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
        known |= {node.id for node in used if isinstance(node.ctx, ast.Store)} | set(names)
        known |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        known |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert {node.id for node in used} <= known
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            function = called(call.func, names)
            if function is not None:
                check_arguments(function, call, block)
                n_checked += 1
    assert n_checked


def called(node, names):
    """Return what a call calls, if it is imported or a method of a known object."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        if node.value.id in OBJECTS:
            method = getattr(OBJECTS[node.value.id], node.attr)
            return partial(method, None) if inspect.isfunction(method) else method
        if node.value.id in names and not inspect.ismodule(names[node.value.id]):
            return getattr(names[node.value.id], node.attr)
        if node.value.id == "skdfb":
            return getattr(skdfb, node.attr)
    return None


def check_arguments(function, call, block):
    keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg is not None}
    positional = [None for argument in call.args if not isinstance(argument, ast.Starred)]
    signature = inspect.signature(function)
    try:
        (signature.bind_partial if len(positional) < len(call.args) else signature.bind)(*positional, **keywords)
        if inspect.ismethod(function) and function.__name__.startswith("paper"):
            inspect.signature(function.__self__).bind_partial(**keywords)  # "changes" are parameters of the class
        if isinstance(function, partial) and function.func.__name__ == "set_params":
            assert all("__" in name for name in keywords)
    except TypeError as error:
        raise AssertionError(f"{error}, in\n{block}") from error


def test_the_error_for_few_images_is_the_one_on_its_page():
    X, y = np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3), dtype=np.uint8), np.arange(50) % 2
    with pytest.raises(ValueError, match="are held out") as caught:
        DFBDetector(TinyBackbone()).fit(X, y)
    assert str(caught.value) in " ".join(SMALL_DATA.read_text(encoding="utf-8").split())


@pytest.mark.parametrize(("alpha", "n_held_out", "n_images"), [(0.05, 29, 58), (0.1, 17, 34), (0.2, 7, 14)])
def test_the_numbers_of_held_out_images_on_its_page(alpha, n_held_out, n_images):
    detector = DFBDetector(alpha=alpha)
    assert detector._joint_score().n_held_out_needed == n_held_out
    row = rf"^{alpha} +{n_held_out} +{n_images}$"
    assert re.search(row, SMALL_DATA.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert n_images == 2 * n_held_out
