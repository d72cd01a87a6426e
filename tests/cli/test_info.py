"""``skdfb info``: what a model is, without running it."""

import json
from pathlib import Path
from typing import Any

import pytest

import skdfb
from skdfb.networks import DenseClassifier
from tests.cli.conftest import Run


@pytest.fixture(autouse=True)
def _nothing_runs(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    """The model is fitted before."""

    def built(*args: Any, **more: Any) -> None:
        raise AssertionError("a network was built")

    monkeypatch.setattr(DenseClassifier, "__init__", built)


def test_a_table(run: Run, model: Path) -> None:
    result = run("info", model)
    assert result.code == 0
    for text in (
        str(model),
        "FrozenDetector",
        "tf_efficientnet_lite0",
        "128 x 128 pixels",
        "6: digit-0, digit-1",
        "200 in fit, of which",
        "classifier (RelativeMahalanobis on classifier)",
        "0.05",
        f"skdfb {skdfb.__version__}, torch",
    ):
        assert text in result.out


def test_json(run: Run, model: Path) -> None:
    found = json.loads(run("info", model, "--json").out)
    assert (found["class"], found["bytes"]) == ("FrozenDetector", model.stat().st_size)
    assert found["classes"] == [f"digit-{label}" for label in range(6)]


def test_models_of_other_kinds(run: Run, tmp_path: Path) -> None:
    skdfb.save(skdfb.Trainer(), tmp_path / "trainer.safetensors")
    result = run("info", tmp_path / "trainer.safetensors")
    assert result.code == 0
    assert "Trainer" in result.out
    assert "classes" not in result.out


def test_wrong_files(run: Run, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.safetensors"
    assert run("info", wrong).error == f"there is no file {str(wrong)!r}."
    wrong.write_text("no model")
    result = run("info", wrong)
    assert result.code == 1
    assert "cannot be loaded" in result.error


def test_a_detector_that_is_not_fitted(run: Run, tmp_path: Path) -> None:
    skdfb.FrozenDetector().save(tmp_path / "m.safetensors")
    assert "not fitted" in run("info", tmp_path / "m.safetensors").out
