"""Wrapped models, torchvision's classifiers, and files of training scripts."""

import argparse
import ast
import re

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

import skdfb
from skdfb import DFBDetector
from skdfb.masks import CAMMaskGenerator
from skdfb.networks import DenseClassifier, create_backbone
from skdfb.scorers import MSP
from skdfb.training import Trainer
from skdfb.utils import isolated_rng


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        with isolated_rng(0, torch.device("cpu")):  # the same weights in each run
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
    estimators(DenseClassifier(Colours(), 3, image_size=32))[1].fit(X, y)


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "a", "b"], "abc"])
def test_wrong_classes_are_refused(classes):
    with pytest.raises(ValueError, match="classes="):
        DenseClassifier(Colours(), 3, image_size=32, classes=classes)
