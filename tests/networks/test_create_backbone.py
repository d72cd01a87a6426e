"""create_backbone: names, options, random weights, and files of weights, with the messages of its errors."""

import importlib.util
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from skdfb.networks import DenseClassifier, _records, _timm, create_backbone

Weights = dict[str, Tensor]


@pytest.fixture
def trained() -> nn.Module:
    torch.manual_seed(7)
    model: nn.Module = timm.create_model("test_resnet", num_classes=6)
    return model


def load(path: Path) -> Weights:
    return create_backbone("test_resnet", pretrained=False, checkpoint_path=path).state_dict()


class TestNames:
    def test_an_unknown_name_lists_near_names(self) -> None:
        with pytest.raises(ValueError, match=r"backbone='resnet51' is no timm model.*Near names:.*resnet5"):
            create_backbone("resnet51", pretrained=False)

    def test_a_name_without_near_names(self) -> None:
        with pytest.raises(ValueError, match=r"backbone='qqqqqqqq' is no timm model\. timm\.list_models"):
            create_backbone("qqqqqqqq", pretrained=False)

    @pytest.mark.parametrize("pretrained", [True, False])
    def test_an_unknown_tag_lists_the_tags(self, pretrained: bool) -> None:
        with pytest.raises(ValueError, match=r"no weights tagged 'a9_in1k' for resnet18.*a1_in1k"):
            create_backbone("resnet18.a9_in1k", pretrained=pretrained)

    def test_known_tag(self) -> None:
        model = create_backbone("resnet18.a1_in1k", pretrained=False)
        assert model.pretrained_cfg["tag"] == "a1_in1k"

    @pytest.mark.parametrize("name", [3, None, nn.Identity()])
    def test_not_a_name(self, name: Any) -> None:
        with pytest.raises(TypeError, match=f"expected the name of a timm model, got a {type(name).__name__}"):
            create_backbone(name)

    def test_no_classifier(self) -> None:
        assert isinstance(create_backbone("resnet18", pretrained=False).get_classifier(), nn.Identity)


class TestOptions:
    @pytest.mark.parametrize("pretrained", [True, False])
    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("vit_tiny_patch16_224", {"output_stride": 8}),
            ("swin_tiny_patch4_window7_224", {"output_stride": 8}),
            ("test_resnet", {"colour": "blue"}),
        ],
    )
    def test_an_option_that_the_family_does_not_take(
        self, name: str, options: dict[str, Any], pretrained: bool
    ) -> None:
        with pytest.raises(ValueError, match=rf"backbone='{name}' does not take the options .*{next(iter(options))}"):
            create_backbone(name, pretrained=pretrained, **options)

    @pytest.mark.parametrize("pretrained", [True, False])
    def test_bad_value(self, pretrained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(ValueError, match=r"backbone='test_resnet' cannot be built .*'output_stride': 5.*Assertion"):
            create_backbone("test_resnet", pretrained=pretrained, output_stride=5)

    def test_size_of_a_transformer(self) -> None:
        model = create_backbone("test_vit", pretrained=False, image_size=96)
        assert model.forward_features(torch.zeros(1, 3, 96, 96)).shape[1] == 1 + 6 * 6

    def test_size_has_no_effect_on_convolutions(self) -> None:
        model = create_backbone("test_resnet", pretrained=False, image_size=96)
        assert model.forward_features(torch.zeros(1, 3, 64, 64)).shape[2:] == (2, 2)


class TestRandomState:
    @staticmethod
    def weights(random_state: Any, name: str = "test_resnet") -> Tensor:
        model = create_backbone(name, pretrained=False, random_state=random_state)
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    @pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
    def test_an_int_fixes_the_weights(self, name: str) -> None:
        first = self.weights(3, name)
        torch.manual_seed(1)
        assert torch.equal(self.weights(3, name), first)
        assert torch.equal(self.weights(np.int64(3), name), first)
        assert not torch.equal(self.weights(4, name), first)

    def test_an_int_leaves_the_callers_generator_alone(self) -> None:
        before = torch.get_rng_state()
        self.weights(3)
        assert torch.equal(torch.get_rng_state(), before)
        with pytest.raises(ValueError, match="does not take the options"):
            create_backbone("test_resnet", pretrained=False, random_state=3, colour="blue")
        assert torch.equal(torch.get_rng_state(), before)

    def test_none_draws_from_the_callers_generator(self) -> None:
        torch.manual_seed(1)
        first, second = self.weights(None), self.weights(None)
        assert not torch.equal(first, second)
        torch.manual_seed(1)
        assert torch.equal(self.weights(None), first)
        assert torch.equal(self.weights(1), first)  # the int is the generator's seed

    @pytest.mark.parametrize("random_state", ["3", 3.0, torch.Generator()])
    def test_anything_else_is_refused(self, random_state: Any) -> None:
        with pytest.raises(TypeError, match=r"random_state=.*: expected an int or None"):
            self.weights(random_state)

    def test_it_is_no_part_of_the_record(self) -> None:
        model = create_backbone("test_resnet", pretrained=False, output_stride=8, random_state=3)
        expected = {"name": "test_resnet", "image_size": None, "options": {"output_stride": 8}}
        assert _timm.creation_arguments(model) == expected
        assert _records.backbone_record(model) == expected


def wrapped(key: str) -> Callable[[Weights], dict[str, Any]]:
    return lambda weights: {key: weights, "epoch": 3}


def prefixed(prefix: str) -> Callable[[Weights], dict[str, Any]]:
    return lambda weights: {prefix + name: value for name, value in weights.items()}


class TestCheckpoints:
    @pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
    @pytest.mark.parametrize(
        "form",
        [
            dict,
            wrapped("state_dict"),
            wrapped("model"),
            prefixed("module."),
            prefixed("_orig_mod."),
            lambda weights: wrapped("state_dict")(prefixed("module.")(weights)),
        ],
        ids=["plain", "state_dict", "model", "module", "compiled", "state_dict_module"],
    )
    def test_torch_round_trip(
        self, trained: nn.Module, tmp_path: Path, form: Callable[[Weights], Any], suffix: str
    ) -> None:
        path = tmp_path / f"weights{suffix}"
        torch.save(form(trained.state_dict()), path)
        self.check(load(path), trained)

    @pytest.mark.parametrize("form", [dict, prefixed("module.")], ids=["plain", "module"])
    def test_safetensors_round_trip(self, trained: nn.Module, tmp_path: Path, form: Callable[[Weights], Any]) -> None:
        path = tmp_path / "weights.safetensors"
        save_file(form(trained.state_dict()), path)
        self.check(load(path), trained)

    @staticmethod
    def check(loaded: Weights, trained: nn.Module) -> None:
        expected = {name: value for name, value in trained.state_dict().items() if not name.startswith("fc.")}
        assert loaded.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(loaded[name], value), name

    def test_path_as_string(self, trained: nn.Module, tmp_path: Path) -> None:
        path = tmp_path / "weights.pth"
        torch.save(trained.state_dict(), path)
        network = DenseClassifier("test_resnet", 2, checkpoint_path=str(path))  # pretrained=True has no effect here
        self.check(network.feature_map.backbone.state_dict(), trained)

    def test_position_embeddings_are_resized(self, tmp_path: Path) -> None:
        """timm does the same with weights that it downloads."""
        path = tmp_path / "weights.pth"
        model = timm.create_model("test_vit", num_classes=6)
        torch.save(model.state_dict(), path)
        loaded = create_backbone("test_vit", checkpoint_path=path, image_size=96)
        assert loaded.pos_embed.shape != model.pos_embed.shape
        expected = timm.layers.resample_abs_pos_embed(model.pos_embed, (6, 6), num_prefix_tokens=1)
        torch.testing.assert_close(loaded.pos_embed, expected)
        assert torch.equal(loaded.blocks[0].attn.qkv.weight, model.blocks[0].attn.qkv.weight)

    def test_missing_weights_are_named(self, trained: nn.Module, tmp_path: Path) -> None:
        path = tmp_path / "weights.pth"
        weights = trained.state_dict()
        del weights["layer1.0.bn1.weight"]
        torch.save(weights, path)
        with pytest.raises(ValueError, match=r"does not fit backbone='test_resnet': 1 of \d+.*bn1.weight' is missing"):
            load(path)

    def test_misshapen_weights_are_named(self, trained: nn.Module, tmp_path: Path) -> None:
        path = tmp_path / "weights.pth"
        weights = trained.state_dict()
        weights["layer1.0.bn1.weight"] = torch.zeros(3)
        torch.save(weights, path)
        with pytest.raises(ValueError, match=r"bn1.weight' has shape \(3,\), expected \(\d+,\)"):
            load(path)

    @pytest.mark.parametrize("name", ["resnet18", "test_vit", "swin_tiny_patch4_window7_224"])
    def test_another_models_weights(self, trained: nn.Module, tmp_path: Path, name: str) -> None:
        path = tmp_path / "weights.pth"
        torch.save(trained.state_dict(), path)
        with pytest.raises(ValueError, match=rf"weights.pth' does not fit backbone='{name}'"):
            create_backbone(name, checkpoint_path=path)

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"checkpoint_path: there is no file '.*nothing.pth'"):
            load(tmp_path / "nothing.pth")
        with pytest.raises(ValueError, match="checkpoint_path: there is no file"):
            load(tmp_path)

    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    @pytest.mark.parametrize(
        "content", [b"", b"not weights at all", b"\x80\x04K\x01."], ids=["empty", "text", "pickle"]
    )
    def test_unreadable_file(self, tmp_path: Path, suffix: str, content: bytes) -> None:
        path = tmp_path / f"weights{suffix}"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"checkpoint_path: '.*weights{suffix}'"):
            load(path)

    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    def test_cut_file(self, trained: nn.Module, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"weights{suffix}"
        if suffix == ".pth":
            torch.save(trained.state_dict(), path)
        else:
            save_file(trained.state_dict(), path)
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(ValueError, match=rf"checkpoint_path: '.*weights{suffix}'"):
            load(path)

    @pytest.mark.parametrize("content", [[torch.zeros(2)], {"epoch": 3}, torch.zeros(2)])
    def test_no_state_dict(self, tmp_path: Path, content: object) -> None:
        path = tmp_path / "weights.pth"
        torch.save(content, path)
        with pytest.raises(ValueError, match="holds no state dict"):
            load(path)


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("how", ["torch", "torch_legacy", "pickle"])
@pytest.mark.parametrize("beside_weights", [True, False])
def test_nothing_in_a_file_is_run(trained: nn.Module, tmp_path: Path, how: str, beside_weights: bool) -> None:
    target, path = tmp_path / "it_ran", tmp_path / "weights.pth"
    content: Any = Payload(target)
    if beside_weights:
        content = {**trained.state_dict(), "extra": content}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(ValueError, match=r"checkpoint_path: .*could run code.*safetensors") as caught:
        load(path)
    assert "weights_only" not in str(caught.value)  # torch's own message tells how to run the code after all
    assert not target.exists()
    if how == "pickle":
        pickle.loads(path.read_bytes())
        assert target.exists()  # the payload works


def test_remedies_without_a_connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message names two calls. Both are run here."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    name = "test_resnet.r160_in1k"
    with pytest.raises(ValueError, match=f"the pre-trained weights of backbone='{name}' cannot be loaded") as raised:
        create_backbone(name)
    calls = re.findall(r"create_backbone\([^)]*\)", str(raised.value))
    assert calls == [f"create_backbone({name!r}, checkpoint_path=...)", f"create_backbone({name!r}, pretrained=False)"]
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    for call in calls:
        expression = call.replace("...", repr(str(path)))
        assert eval(expression, {"create_backbone": create_backbone}).num_features == 96


class _Mismatch:
    """An import of timm that fails as it does on mismatching torch and torchvision."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def find_spec(self, name: str, *_: object) -> None:
        if name == "timm":
            raise self.error


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (RuntimeError("operator torchvision::nms does not exist"), ImportError, "force-reinstall torch torchvision"),
        (AttributeError("partially initialized module 'torchvision' has no attribute 'x'"), ImportError, "same index"),
        (ImportError("No module named 'timm'"), ImportError, "No module named 'timm'"),
        (RuntimeError("another trouble"), RuntimeError, "another trouble"),
    ],
)
def test_torchvision_that_does_not_fit(
    error: Exception, expected: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Mismatch(error), *sys.meta_path])
    spec = importlib.util.spec_from_file_location("timm_door_copy", _timm.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(expected, match=message) as caught:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert str(error) in str(caught.value) or caught.value.__cause__ is error
