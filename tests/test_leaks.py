"""A process that fits and scores for days stays as large as it was."""

import gc
import os
import threading
from pathlib import Path

import pytest
import torch

import skdfb
from skdfb import Trainer
from skdfb.scorers import MaSF
from tests.detector.conftest import make_detector, make_images
from tests.helpers import TinyBackbone

X, y = make_images()
MEGABYTE = 2**20


def tensors() -> int:
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def counts() -> dict[str, int]:
    """What a leak would show in."""
    return {
        "tensors": tensors(),
        "objects": len(gc.get_objects()),
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0,
    }


def resident() -> int:
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def detector():
    trainer = Trainer(max_steps=2, batch_size=16, learning_rate=0.1)
    return make_detector(scorer=MaSF(), classifier_trainer=trainer, dense_trainer=trainer, n_jobs=2)


def grows(work, n_times: int, n_before: int) -> tuple[dict[str, int], int]:
    """Return by how much the process grows in ``n_times`` runs, after some in which caches are filled."""
    for _ in range(n_before):
        work()
    before, size = counts(), resident()
    for _ in range(n_times):
        work()
    after = counts()
    return {name: after[name] - before[name] for name in before}, resident() - size


def check(growth: dict[str, int], size: int, n_times: int) -> None:
    assert growth["tensors"] == 0
    assert growth["threads"] <= 0
    assert growth["files"] <= 0
    assert growth["objects"] < n_times  # less than one each
    assert size < 24 * MEGABYTE


@pytest.mark.slow
def test_fits(tmp_path):
    def fit():
        model = detector().fit(X, y)
        model.save(tmp_path / "model")
        skdfb.load(tmp_path / "model", customs=[TinyBackbone])

    check(*grows(fit, 100, 10), 100)


@pytest.mark.slow
def test_scorings():
    fitted = detector().fit(X, y)
    check(*grows(lambda: fitted.predict_open_set(X), 1000, 50), 1000)


def test_some_fits_and_scorings():
    fitted = detector().fit(X, y)
    growth, _ = grows(lambda: detector().fit(X, y), 3, 2)
    assert growth["tensors"] == 0
    growth, _ = grows(lambda: fitted.predict(X), 10, 2)
    assert growth["tensors"] == 0


def test_a_leak_is_seen():
    kept = []
    growth, _ = grows(lambda: kept.append(torch.zeros(1)), 3, 2)
    assert growth["tensors"] == 3
