"""What the file of a model says of it, read without building the model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from skdfb import FeatureDetector, Trainer, save
from skdfb.exceptions import InvalidModelError
from skdfb.persistence._describe import describe
from skdfb.utils import write_file

DATA = Path(__file__).parents[1] / "data"


def test_a_fitted_detector(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(80, 6)), np.arange(80) % 2
    detector = FeatureDetector(alpha=0.1, random_state=0).fit(X, y)
    detector.save(tmp_path / "m.safetensors")
    found = describe(tmp_path / "m.safetensors")
    assert found["class"] == "FeatureDetector"
    assert found["classes"] == [0, 1]
    assert found["parameters"]["alpha"] == 0.1
    assert found["offset"] == detector.offset_
    assert found["n_held_out"] == len(detector.calibrator_.scores_)
    assert found["image_size"] is None
    assert [name for name, _, _ in found["parts"]] == [name for name, _, _ in detector.joint_score_.parts_]
    json.dumps(found, allow_nan=False)


def test_detectors_of_other_formats() -> None:
    """Their own modules are not needed."""
    new, old = describe(DATA / "format_2.safetensors"), describe(DATA / "format_1.safetensors")
    assert new["parts"][0] == ("foreground_dense", "dense", "ScorerEnsemble")
    assert new["classes"] == old["classes"] == ["blue", "green", "red"]
    assert (new["format"], old["format"]) == (2, 1)
    assert old["offset"] == new["offset"]
    assert new["parameters"]["backbone"] == "tests.helpers.TinyBackbone"


def test_objects_that_are_no_detectors(tmp_path: Path) -> None:
    save(Trainer(max_epochs=3), tmp_path / "t.safetensors")
    found = describe(tmp_path / "t.safetensors")
    assert (found["class"], found["parameters"]["max_epochs"], found["parts"]) == ("Trainer", 3, [])
    assert found["classes"] is found["offset"] is found["n_images"] is None


@pytest.mark.parametrize(
    "model", [3, None, {"is": "tensor"}, {"is": "instance"}, {"is": "instance", "class": "A", "state": 5}]
)
def test_wrong_documents(tmp_path: Path, model: Any) -> None:
    text = json.dumps({"format": 2, "versions": {}, "model": model, "trial": None})
    write_file(tmp_path / "m.safetensors", text, {"a": torch.zeros(1)})
    with pytest.raises(InvalidModelError, match=r"m\.safetensors"):
        describe(tmp_path / "m.safetensors")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file"):
        describe(tmp_path / "m.safetensors")
