"""Runs the tests of ``tests/devices`` in processes of their own: a device must be registered before all else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "devices"
LONGEST = [str(FOLDER / "test_detectors.py")]
OTHERS = sorted(str(path) for path in FOLDER.glob("test_*.py") if str(path) not in LONGEST)


@pytest.mark.parametrize("files", [LONGEST, OTHERS], ids=["detectors", "others"])
def test_on_a_pretended_device(files: list[str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    environment |= {"SKDFB_PRETENDED_DEVICE": "1"}
    done = subprocess.run(command, cwd=FOLDER.parents[1], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
