"""Imports only go down the layers, and some packages have one door."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import skdfb

ROOT = Path(skdfb.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

LAYERS = {
    "exceptions": -1,
    "utils": 0,
    "networks": 1, "scorers": 1, "fusion": 1, "calibration": 1, "metrics": 1, "datasets": 1,
    "augmentation": 1,
    "training": 2, "displays": 2,
    "masks": 3, "persistence": 3,
    "detector": 4,
    "cli": 5, "evaluation": 5, "integrations": 5,
    "__init__": 6,
    # Checks of scorers that their authors call. It lies in utils because that is where scikit-learn has its own, but it
    # must import scorers; since nothing imports it, utils stays the lowest layer all the same.
    "utils/estimator_checks": 2,
}  # fmt: skip

# For those who use the package; no file of it may import them.
TOOLS = {"utils/estimator_checks"}

DOORS = {
    "timm": {"networks/_timm.py"},
    "matplotlib": {"displays"},
    "safetensors": {"networks/_timm.py", "utils/_files.py"},
    "lightning_fabric": {"training"},
    "pytest": {"utils/estimator_checks"},
}


def entry_of(parts):
    """The entry of LAYERS, if there is one, that a path or a dotted name below skdfb belongs to."""
    nested = "/".join(parts[:2])
    return nested if nested in LAYERS else "".join(parts[:1])


def package_of(path):
    """The entry of LAYERS that a file belongs to."""
    return entry_of(path.relative_to(ROOT).with_suffix("").parts)


def imports_of(path, tree):
    """All modules that a file imports, wherever in it, ``import_module("...")`` included; relative names resolved."""
    here = ("skdfb", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            for name in (f"{module}.{alias.name}" for alias in node.names):
                # from skdfb import training, from skdfb.utils import estimator_checks
                yield name if module == "skdfb" or entry_of(name.split(".")[1:]) in TOOLS else module
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module":
            yield from (argument.value for argument in node.args if isinstance(argument, ast.Constant))


def offences_of(path, tree):
    """What a file imports against the rules, in words."""
    own = package_of(path)
    place = path.relative_to(ROOT).as_posix()
    for name in imports_of(path, tree):
        top, _, rest = name.partition(".")
        if top == "skdfb":
            other = entry_of(rest.split("."))
            if other == own or (own == "__init__" and other and other not in TOOLS):
                continue
            if other in TOOLS:
                yield f"{place} imports {name}, which is for those who use the package"
            elif other not in LAYERS or LAYERS[other] >= LAYERS[own]:
                yield f"{place} (layer {LAYERS[own]}) imports {name} (layer {LAYERS.get(other, 'above all')})"
        elif top in DOORS and not any(place == door or place.startswith(f"{door}/") for door in DOORS[top]):
            yield f"{place} imports {name}, whose only door is {', '.join(sorted(DOORS[top]))}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_down(path):
    assert package_of(path) in LAYERS, "give the new package a layer"
    assert list(offences_of(path, ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("utils/_x.py", "from skdfb.scorers import ViM"),
        ("scorers/_x.py", "from skdfb.fusion import TemperatureFusion"),
        ("scorers/_x.py", "def f():\n    import skdfb.networks"),
        ("scorers/_x.py", "from ..metrics import auroc_score"),
        ("masks/_x.py", "from skdfb import DFBDetector"),
        ("training/_x.py", "import skdfb"),
        ("training/_x.py", "import skdfb.unheard_of"),
        ("training/_x.py", "from importlib import import_module\nimport_module('skdfb.detector')"),
        ("networks/_x.py", "import timm.data"),
        ("detector/_x.py", "from matplotlib import pyplot"),
        ("networks/_x.py", "from safetensors.torch import load_file"),
        ("scorers/_x.py", "def f():\n    import pytest"),
        ("detector/_x.py", "import skdfb.testing"),
        ("evaluation/_x.py", "from skdfb.testing import check_foreground_scorer"),
        ("scorers/_x.py", "from skdfb.testing._scorers._data import Data"),
        ("utils/__init__.py", "from skdfb.utils import estimator_checks"),
        ("utils/_x.py", "from . import estimator_checks"),
        ("utils/_x.py", "from .estimator_checks import check_foreground_scorer"),
        ("__init__.py", "from skdfb.testing import check_foreground_scorer"),
        ("utils/estimator_checks/_x.py", "from skdfb.detector import DFBDetector"),
        ("utils/estimator_checks/_x.py", "from skdfb.displays import MaskDisplay"),
    ],
)
def test_an_offence_is_found(place, line):
    assert len(list(offences_of(ROOT / place, ast.parse(line)))) == 1


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (
            "scorers/_x.py",
            "from skdfb.utils import Images\nfrom skdfb.scorers._base import BaseScorer\nfrom . import _y",
        ),
        ("networks/_timm.py", "import timm"),
        ("displays/_x.py", "from matplotlib import pyplot"),
        ("__init__.py", "from skdfb.detector import DFBDetector"),
        (
            "utils/estimator_checks/_x.py",
            "from skdfb.scorers import ViM\nfrom skdfb.utils import Images\nimport pytest\n"
            "from skdfb.testing._scorers._data import Data\nfrom . import _y",
        ),
        ("detector/_x.py", "from skdfb.utils import Images, check_images"),
    ],
)
def test_no_offence_is_found(place, line):
    assert list(offences_of(ROOT / place, ast.parse(line))) == []


def test_tools_are_there():
    assert all((ROOT / tool).is_dir() for tool in TOOLS)
    assert {package_of(path) for path in MODULES} >= TOOLS


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
