"""The scripts of the benchmarks, and small copies of the paper's image sets."""

import importlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from skdfb.datasets import _remote
from tests.published_sets import LocalServer, write_sets

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def modules() -> Iterator[tuple[ModuleType, ModuleType]]:
    """The scripts ``paper_data`` and ``reproduce_paper``."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("paper_data"), importlib.import_module("reproduce_paper")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def paper_data(modules: Any, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The data module, with a registry of the package that tests may change."""
    for name, file in _remote.FILES.items():
        monkeypatch.setitem(_remote.FILES, name, file)
    return modules[0]


@pytest.fixture
def reproduce_paper(modules: Any, paper_data: ModuleType) -> ModuleType:
    return modules[1]


@pytest.fixture
def paper_differences(reproduce_paper: ModuleType) -> ModuleType:
    return reproduce_paper.paper_differences


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test fail if it tries to reach a host."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        pytest.fail(f"the test tries to reach a host: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def published(paper_data: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalServer:
    """All sets, at a downloader that takes the place of their publishers."""
    write_sets(tmp_path / "published")
    server = LocalServer(tmp_path / "published")
    monkeypatch.setattr(_remote, "_downloader", lambda: server)
    return server
