"""Wrapped models, torchvision's classifiers, and files of training scripts."""

import argparse
import ast
import json
import re

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

import skdfb
from skdfb import DFBDetector
from skdfb.masks import CAMMaskGenerator
from skdfb.networks import DenseClassifier, _published, create_backbone
from skdfb.scorers import MSP
from skdfb.training import Trainer
from skdfb.utils import isolated_rng


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        with isolated_rng(0):  # the same weights in each run
            self.net = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, 2, 1), nn.ReLU())

    def forward(self, x):
        return self.net(x)


class LightningModule(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.loss = model, nn.CrossEntropyLoss()


WRAPPERS = [lambda model: torch.compile(model, backend="eager"), nn.DataParallel, LightningModule]


def detector(backbone):
    trainer = Trainer(max_steps=2, batch_size=16)
    return DFBDetector(
        backbone, image_size=32, random_state=0, device="cpu", classifier_trainer=trainer, dense_trainer=trainer,
        alpha=None, scorer=MSP(),
    )  # fmt: skip


def data(n=60):
    y = np.arange(n) % 3
    X = np.random.RandomState(0).randint(0, 60, (n, 32, 32, 3)).astype(np.uint8)
    for image, label in zip(X, y, strict=True):
        image[8:24, 8:24, label] += 150
    return X, y


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_wrapped_models_are_used_and_saved_under_their_own_name(wrap, tmp_path):
    X, y = data()
    fitted = detector(wrap(Tiny())).fit(X, y)
    fitted.save(tmp_path / "model.safetensors")
    loaded = skdfb.load(tmp_path / "model.safetensors", customs=[Tiny])
    np.testing.assert_array_equal(loaded.score_samples(X), fitted.score_samples(X))
    model = timm.create_model("test_resnet", num_classes=3)
    assert type(DenseClassifier.from_classifier(wrap(model), image_size=128).feature_map.backbone) is type(model)


def test_resnet_of_torchvision_is_taken_over_with_its_logits():
    model = torchvision.models.resnet18(num_classes=3).eval()
    network = DenseClassifier.from_classifier(model, image_size=128)
    images = torch.rand(2, 3, 128, 128)
    torch.testing.assert_close(network(images), model(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "convnext_tiny"])
def test_torchvision_models_without_a_linear_head_are_backbones(name):
    model = torchvision.models.get_model(name, num_classes=3).eval()
    with pytest.raises(ValueError, match=r"use DenseClassifier\(model, num_classes\)"):
        DenseClassifier.from_classifier(model, image_size=128)
    assert DenseClassifier(model, 3, image_size=128).map_size == (4, 4)


def same_weights(path, model):
    loaded = create_backbone("test_resnet", checkpoint_path=path).state_dict()
    return all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.items())


@pytest.mark.parametrize("prefix", ["", "model.", "module._orig_mod.", "student.encoder."])
def test_files_of_training_scripts_are_read(prefix, tmp_path):
    model = timm.create_model("test_resnet", num_classes=3)
    weights = {prefix + key: value for key, value in model.state_dict().items() if "num_batches" not in key}
    content = {"state_dict": weights, "args": argparse.Namespace(lr=0.1), "epoch": 3, "hyper_parameters": {"a": 1}}
    torch.save(content, tmp_path / "last.ckpt")
    assert same_weights(tmp_path / "last.ckpt", model)


def test_a_file_with_two_models_is_refused(tmp_path):
    weights = timm.create_model("test_resnet").state_dict()
    both = {f"{name}.{key}": value for name in ("teacher", "student") for key, value in weights.items()}
    torch.save({"state_dict": both}, tmp_path / "both.ckpt")
    with pytest.raises(ValueError, match=r"'teacher\.', 'student\.'"):
        create_backbone("test_resnet", checkpoint_path=tmp_path / "both.ckpt")


class Runs:
    def __reduce__(self):
        return (exec, ("raise SystemExit",))


def test_a_file_that_would_run_code_is_refused(tmp_path):
    torch.save({"state_dict": {}, "args": argparse.Namespace(x=Runs())}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="could run code"):
        create_backbone("test_resnet", checkpoint_path=tmp_path / "bad.pth")


class Colours(nn.Module):
    """A map of 8 x 8 places whose channels are the colours."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return nn.functional.avg_pool2d(x, 4) * self.weight


def colour_classifier(order, classes=None):
    network = DenseClassifier(Colours(), len(order), image_size=32, classes=classes)
    with torch.no_grad():
        network.head.weight.copy_(torch.eye(3)[order])
    return network.eval()


def estimators(network):
    trainer = Trainer(max_steps=1, batch_size=16)
    return [
        DFBDetector(network, device="cpu", random_state=0, scorer=MSP(), dense_trainer=trainer, alpha=None),
        CAMMaskGenerator(network, device="cpu", scales=(1.0,)),
    ]


@pytest.mark.parametrize("which", [0, 1])
def test_outputs_in_another_order_are_refused_and_the_remedy_works(which):
    X, y = data()
    names = np.array(["ant", "bee", "cat"])
    with pytest.raises(ValueError, match="another order") as caught:
        estimators(colour_classifier([2, 0, 1]))[which].fit(X, names[y])
    classes = ast.literal_eval(re.search(r"classes=(\[.*?\])", str(caught.value))[1])
    assert classes == ["cat", "ant", "bee"]
    fitted = estimators(colour_classifier([2, 0, 1], classes))[which].fit(X, names[y])
    network = fitted.classifier_ if which == 0 else fitted.network_
    torch.testing.assert_close(network.head.weight, torch.eye(3))


def test_outputs_of_classes_that_y_lacks_are_dropped_and_missing_ones_named():
    X, y = data()
    kept = y < 2
    network = colour_classifier([2, 0, 1], ["c", "a", "b"])
    fitted = estimators(network)[1].fit(X[kept], np.array(["a", "b"])[y[kept]])
    torch.testing.assert_close(fitted.network_.head.weight, torch.eye(3)[:2])
    with pytest.raises(ValueError, match=r"\['z'\].*\['c'\] are not in y"):
        estimators(network)[1].fit(X, np.array(["a", "b", "z"])[y])


def test_a_weak_classifier_is_not_refused():
    X, y = data()
    fitted = estimators(DenseClassifier(Colours(), 3, image_size=32))[1].fit(X, y)
    assert not fitted.network_.head.weight.any()  # the head of zeros that was given, with its outputs as they were


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "a", "b"], "abc"])
def test_wrong_classes_are_refused(classes):
    with pytest.raises(ValueError, match="classes="):
        DenseClassifier(Colours(), 3, image_size=32, classes=classes)


def torchvision_model(name, num_classes=3):
    with isolated_rng(0):
        return getattr(torchvision.models, name)(num_classes=num_classes)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_a_detector_on_a_model_of_torchvision(name, tmp_path):
    X, y = data()
    model = torchvision_model(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    one_scale = CAMMaskGenerator(scales=(1.0,), flip=False)
    fitted = detector(model).set_params(image_size=128, mask_generator=one_scale).fit(X, y)
    scores = fitted.score_samples(X[:8])
    # The model of the user stays as it is, and the copy was trained.
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    trained = fitted.classifier_.feature_map.backbone.state_dict()
    assert any(not torch.equal(value, before[key]) for key, value in trained.items())
    fitted.save(tmp_path / "model.safetensors")
    loaded = skdfb.load(tmp_path / "model.safetensors", customs={type_name(model): lambda: torchvision_model(name)})
    np.testing.assert_allclose(loaded.score_samples(X[:8]), scores, rtol=1e-5, atol=1e-5)


def type_name(model):
    return f"{type(model).__module__}.{type(model).__qualname__}"


@pytest.mark.parametrize(
    ("name", "n_channels", "side"),
    [
        ("resnet18", 512, 7),
        ("vit_b_32", 768, 7),
        ("densenet121", 1024, 7),
        ("squeezenet1_1", 512, 13),
        ("mobilenet_v2", 1280, 7),
        ("swin_t", 768, 7),
        ("vgg11", 512, 7),
        ("mnasnet0_5", 1280, 7),
    ],
)
def test_the_map_of_a_model_of_torchvision(name, n_channels, side):
    network = DenseClassifier(torchvision_model(name), 3)
    assert (network.num_features, network.map_size) == (n_channels, (side, side))
    images = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert network(images).shape == (1, 3)


def test_the_tokens_of_a_transformer_are_those_of_its_own_forward_pass():
    """Its class token is the last feature of the whole model."""
    model = torchvision_model("vit_b_32").eval()
    images = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    found = {}
    model.encoder.register_forward_hook(lambda module, arguments, output: found.update(tokens=output))
    with torch.no_grad():
        model(images)
        expected = found["tokens"][:, 1:].transpose(1, 2).reshape(1, 768, 7, 7)
        network = DenseClassifier(model, 3).eval()
        torch.testing.assert_close(network.feature_map(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_b0", "swin_t", "googlenet"])
def test_logits_of_other_models_of_torchvision(name):
    options = {"init_weights": False} if name == "googlenet" else {}
    with isolated_rng(0):
        model = getattr(torchvision.models, name)(num_classes=3, **options).eval()
    network = DenseClassifier.from_classifier(model)
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(images), model(images), rtol=1e-3, atol=1e-4)


def test_a_compiled_model_of_timm_in_a_detector(tmp_path):
    X, y = data()
    model = torch.compile(
        create_backbone("test_resnet", pretrained=False, output_stride=8, random_state=0), backend="eager"
    )
    fitted = detector(model).fit(X, y)
    fitted.save(tmp_path / "model.safetensors")
    loaded = skdfb.load(tmp_path / "model.safetensors")  # by its name in timm
    np.testing.assert_array_equal(loaded.score_samples(X), fitted.score_samples(X))


def test_classes_of_a_network_are_kept(tmp_path):
    network = DenseClassifier(Tiny(), 3, image_size=32, classes=["b", "c", "a"])
    assert network.with_background().classes is None
    trainer = Trainer(max_steps=1, batch_size=8)
    unfitted = DFBDetector(network, classifier_trainer=trainer, dense_trainer=trainer)
    skdfb.save(unfitted, tmp_path / "model.safetensors")
    assert skdfb.load(tmp_path / "model.safetensors", customs=[Tiny]).backbone.classes == ["b", "c", "a"]


# ------------------------------------------------------- published models


@pytest.fixture
def published(tmp_path):
    """A folder as timm publishes it."""
    model = timm.create_model("test_resnet", pretrained=False, num_classes=3, in_chans=4)
    configuration = {
        "architecture": "test_resnet",
        "num_classes": 3,
        "model_args": {"in_chans": 4},
        "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 96, 96]},
    }
    (tmp_path / "config.json").write_text(json.dumps(configuration))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    return tmp_path, model


def test_a_folder_with_a_published_model(published):
    folder, model = published
    backbone = create_backbone(f"local-dir:{folder}", output_stride=8)
    torch.testing.assert_close(backbone.state_dict()["conv1.0.weight"], model.state_dict()["conv1.0.weight"])
    network = DenseClassifier(backbone, 3)
    assert network.preprocessor.mean == (0.1, 0.2, 0.3, 0.1)
    assert (network.preprocessor.image_size, network.map_size) == (96, (12, 12))
    # A saved detector names the architecture, not the folder.
    assert backbone.skdfb_arguments["name"] == "test_resnet"
    random = create_backbone(f"local-dir:{folder}", pretrained=False, random_state=0)
    assert not torch.equal(random.state_dict()["conv1.0.weight"], model.state_dict()["conv1.0.weight"])


def test_weights_of_a_folder_cannot_run_code(published):
    folder, _ = published
    (folder / "model.safetensors").unlink()
    torch.save({"state_dict": Runs()}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="could run code"):
        create_backbone(f"local-dir:{folder}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "names no architecture"),
        ("[]", "names no architecture"),
        ('{"architecture": "nothing"}', "is no timm model"),
    ],
)
def test_wrong_configurations(content, message, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        create_backbone(f"local-dir:{tmp_path}", pretrained=False)


def test_missing_files(tmp_path):
    with pytest.raises(ValueError, match=r"there is no config\.json in the folder"):
        create_backbone(f"local-dir:{tmp_path}")


@pytest.mark.parametrize("scheme", ["hf-hub:", "hf_hub:"])
def test_the_hub_without_a_connection(scheme, monkeypatch):
    def no_connection(*args, **kwargs):
        raise OSError("no connection")

    monkeypatch.setattr(_published, "why_unreachable", lambda address: None)  # the connection breaks afterwards
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", no_connection)
    with pytest.raises(
        ValueError, match=r"cannot be read from the Hugging Face hub \(OSError: no connection\).*local-dir"
    ):
        create_backbone(f"{scheme}timm/test_resnet.r160_in1k")


def test_the_hub(published, monkeypatch):
    folder, model = published
    monkeypatch.setattr(_published, "why_unreachable", lambda address: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repository, file, revision: str(folder / file))
    backbone = create_backbone("hf-hub:someone/something@main")
    torch.testing.assert_close(backbone.state_dict()["conv1.0.weight"], model.state_dict()["conv1.0.weight"])


def test_a_name_of_the_hub_without_its_scheme():
    with pytest.raises(ValueError, match="pass 'hf-hub:timm/resnet10t'"):
        create_backbone("timm/resnet10t")
