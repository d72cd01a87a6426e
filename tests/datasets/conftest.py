import socket
from pathlib import Path
from typing import Any

import pytest

from skdfb.datasets import _remote
from tests.published_sets import LocalServer, write_sets


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test fail if it tries to reach a host."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        pytest.fail(f"the test tries to reach a host: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def registry(no_network: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, _remote.RemoteFile]:
    """The registry, which the test may change."""
    for name, file in _remote.FILES.items():
        monkeypatch.setitem(_remote.FILES, name, file)
    return _remote.FILES


@pytest.fixture
def published(registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalServer:
    """Small copies of all sets, at a downloader that takes the place of their publishers."""
    write_sets(tmp_path / "published")
    server = LocalServer(tmp_path / "published")
    monkeypatch.setattr(_remote, "_downloader", lambda: server)
    return server
