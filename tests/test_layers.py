"""Imports only go down the layers and never in a circle; some packages have one door; files and functions are short."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import skdfb

ROOT = Path(skdfb.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

LAYERS = {
    "exceptions": -1, "_registry": -1, "_constraints": -1, "_progress": -1, "_transfers": -1,
    "images": 0, "utils": 0,
    "networks": 1, "scorers": 1, "fusion": 1, "calibration": 1, "metrics": 1, "datasets": 1, "augmentation": 1,
    "training": 2, "scoring": 2, "displays": 2,
    "masks": 3, "persistence": 3,
    "detector": 4,
    "evaluation": 5, "reports": 5.5,  # pages show the tables
    "cli": 6, "integrations": 6,
    "__init__": 7,
}  # fmt: skip

# Stands beside the layers: it may import what lies below the detector, and no file of the package may import it.
TOOLS = {"testing": 4}

DOORS = {
    "timm": {"networks/_timm.py"},
    "matplotlib": {"displays"},
    "safetensors": {"networks/_timm.py", "utils/_files.py"},
    "lightning_fabric": {"training"},
    "tqdm": {"_progress.py"},
    "pytest": {"testing"},
    "pooch": {"datasets/_remote.py"},
}


def package_of(path):
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports_of(path, tree):
    """All modules that a file imports, wherever in it; relative names are resolved.

    ``import_module`` of a text is one of them; of anything else it is yielded as "computed", since no test can tell
    which module that is.
    """
    here = ("skdfb", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            for alias in node.names:
                name = f"{module}.{alias.name}"
                # What is imported from a package can be a module or a name.
                yield name if module == "skdfb" or file_of(name) is not None else module
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if called in ("import_module", "__import__"):
                first = node.args[0] if node.args else None
                yield first.value if isinstance(first, ast.Constant) else "computed"


def file_of(module):
    """The file of a module of the package, or None."""
    top, _, rest = module.partition(".")
    if top != "skdfb":
        return None
    path = ROOT.joinpath(*rest.split(".")) if rest else ROOT
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


def offences_of(path, tree):
    """What a file imports against the rules, in words."""
    own = package_of(path)
    place = path.relative_to(ROOT).as_posix()
    level = (LAYERS | TOOLS)[own]
    for name in imports_of(path, tree):
        top, _, rest = name.partition(".")
        if name == "computed":
            # The public face, which is lazy, imports by the texts of its own table.
            if own != "__init__":
                yield f"{place} imports a module whose name is computed"
        elif top == "skdfb":
            other = rest.split(".")[0]
            if other == own or (own == "__init__" and other and other not in TOOLS):
                continue
            if other in TOOLS:
                yield f"{place} imports {name}, which is for those who use the package"
            elif other not in LAYERS or LAYERS[other] >= level:
                yield f"{place} (layer {level}) imports {name} (layer {LAYERS.get(other, 'above all')})"
        elif top in DOORS and not any(place == door or place.startswith(f"{door}/") for door in DOORS[top]):
            yield f"{place} imports {name}, whose only door is {', '.join(sorted(DOORS[top]))}"


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_down(path):
    assert package_of(path) in LAYERS | TOOLS, "give the new package a layer"
    assert list(offences_of(path, parsed(path))) == []


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("utils/_x.py", "from skdfb.scorers import ViM"),
        ("utils/_x.py", "from skdfb.images import Images"),
        ("images/_x.py", "from skdfb.utils import isolated_rng"),
        ("scorers/_x.py", "from skdfb.fusion import TemperatureFusion"),
        ("scorers/_x.py", "def f():\n    import skdfb.networks"),
        (
            "scorers/_x.py",
            "if TYPE_CHECKING:\n    from skdfb.scoring import JointScore",
        ),
        ("scorers/_x.py", "from ..metrics import auroc_score"),
        ("masks/_x.py", "from skdfb import DFBDetector"),
        ("training/_x.py", "import skdfb"),
        ("training/_x.py", "import skdfb.unheard_of"),
        ("training/_x.py", "from importlib import import_module\nimport_module('skdfb.detector')"),
        ("persistence/_x.py", "from importlib import import_module\nimport_module(f'skdfb.{name}')"),
        ("persistence/_x.py", "import importlib\nimportlib.import_module(name)"),
        ("persistence/_x.py", "__import__(name)"),
        ("scoring/_x.py", "from skdfb.training import Trainer"),
        ("networks/_x.py", "import timm.data"),
        ("detector/_x.py", "from matplotlib import pyplot"),
        ("networks/_x.py", "from safetensors.torch import load_file"),
        ("scorers/_x.py", "def f():\n    import pytest"),
        ("detector/_x.py", "import skdfb.testing"),
        ("evaluation/_x.py", "from skdfb.testing import check_foreground_scorer"),
        ("__init__.py", "from skdfb.testing import check_foreground_scorer"),
        ("testing/_x.py", "from skdfb.detector import DFBDetector"),
    ],
)
def test_an_offence_is_found(place, line):
    assert len(list(offences_of(ROOT / place, ast.parse(line)))) == 1


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (
            "scorers/_x.py",
            "from skdfb.utils import numbered\nfrom skdfb.scorers._base import BaseScorer\nfrom . import _y",
        ),
        ("networks/_timm.py", "import timm"),
        ("displays/_x.py", "from matplotlib import pyplot"),
        ("__init__.py", "from skdfb.detector import DFBDetector\nimport_module(name)"),
        ("testing/_x.py", "from skdfb.scorers import ViM\nfrom skdfb.masks import CAMMaskGenerator\nimport pytest"),
        ("detector/_x.py", "from skdfb.images import Images, check_images"),
    ],
)
def test_no_offence_is_found(place, line):
    assert list(offences_of(ROOT / place, ast.parse(line))) == []


# --------------------------------------------------------------------- circles


def import_graph():
    """Which files each file imports; imports in functions and for type checkers included."""
    graph = {}
    for path in MODULES:
        found = {file_of(name) for name in imports_of(path, parsed(path))} - {None, path}
        # A package's own __init__ gathers what its files define: a file that imports it back would be a circle.
        graph[path] = found
    return graph


def circles(graph):
    """The groups of files that import each other, directly or through others (Tarjan)."""
    index, low, stack, on_stack, found = {}, {}, [], set(), []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        on_stack.add(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in on_stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = []
            while not group or group[-1] != node:
                group.append(stack.pop())
                on_stack.discard(group[-1])
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def test_no_import_circles():
    shown = [[path.relative_to(ROOT).as_posix() for path in group] for group in circles(import_graph())]
    assert shown == []


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


# ------------------------------------------------------------------------ sizes

LONGEST_FUNCTION, LONGEST_FILE = 40, 400  # lines, docstrings aside


def docstring_lines(tree):
    found = set()
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            found |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    documented = docstring_lines(tree)
    assert len(text.splitlines()) - len(documented) <= LONGEST_FILE
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            size = node.end_lineno - body[0].lineno + 1 if body else 0
            assert size <= LONGEST_FUNCTION, f"{node.name} has {size} lines"


def test_public_names_are_loaded_on_first_use():
    """``import skdfb`` loads nothing heavy; the first public name does."""
    heavy = "torch", "timm", "torchvision", "lightning_fabric", "sklearn", "scipy", "numpy", "PIL", "matplotlib"
    code = (
        "import sys, skdfb\n"
        f"print([name for name in {heavy!r} if name in sys.modules])\n"
        "skdfb.DFBDetector\n"
        "print('torch' in sys.modules, 'matplotlib' in sys.modules)\n"
        "print('skdfb.utils' in sys.modules, 'skdfb.testing' in sys.modules)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    assert shown[:3] == ["[]", "True False", "True False"]
