"""The content that a saved model may have, the devices it can be loaded on, and the state after a failed write."""

import errno
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from torch import nn

import skdfb
from skdfb import CAMMaskGenerator, DFBDetector, FeatureDetector, Trainer
from skdfb.exceptions import InvalidModelError
from skdfb.networks import DenseClassifier, create_backbone
from skdfb.persistence._decode import Decoder
from skdfb.persistence._encode import Encoder
from skdfb.scorers import KNN, MSP, ODIN, Energy, ViM
from skdfb.utils import _files
from tests.detector.conftest import make_detector, make_images
from tests.helpers import TinyBackbone

X, y = make_images()
TINY = [TinyBackbone]


class DistanceToMean(BaseEstimator):
    """A user-defined scorer."""

    def __init__(self, power=2):
        self.power = power

    def fit(self, representation, y=None):
        self.mean_ = np.asarray(representation.features).mean(0)
        return self

    def score_samples(self, representation):
        return -(np.abs(np.asarray(representation.features) - self.mean_) ** self.power).sum(1)


class PlainObject:
    """A user-defined fusion that is not an estimator."""

    def fit(self, parts):
        self.names_ = set(parts)
        return self

    def combine(self, parts):
        return np.sum(list(parts.values()), axis=0)


class ListFusion(PlainObject):
    def fit(self, parts):
        self.names_ = list(parts)
        return self


class WideBackbone(TinyBackbone):
    def __init__(self, width):
        super().__init__(width)


def seeded(make, *arguments, **options):
    """Return ``make(...)`` with the same random weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(*arguments, **options)


def saved_and_loaded(model, tmp_path, **options):
    model.save(tmp_path / "model.safetensors") if hasattr(model, "save") else skdfb.save(
        model, tmp_path / "model.safetensors"
    )
    return skdfb.load(tmp_path / "model.safetensors", **{"device": "cpu"} | options)


@pytest.fixture(scope="module")
def fitted():
    return make_detector().fit(X, y)


def test_a_loaded_detector_gives_the_outputs_of_the_saved_one(fitted, tmp_path):
    other = saved_and_loaded(fitted, tmp_path, customs=TINY)
    for method in ("predict", "score_samples", "p_values", "classify", "predict_open_set", "segment", "transform"):
        assert_array_equal(getattr(other, method)(X), getattr(fitted, method)(X))
    assert other.training_history_ == fitted.training_history_
    assert_array_equal(other.refit_scorer(MSP(), X, y).score_samples(X), fitted.refit_scorer(MSP()).score_samples(X))
    assert_array_equal(other.fit(X, y).score_samples(X), fitted.score_samples(X))


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["cat", "dog", "a longer name"]),
        np.array([True, False, True]),
        np.array([-7, 3, 10**12]),
        np.array(["é", "日本", ""], dtype=object),
    ],
    ids=["strings", "booleans", "integers", "objects"],
)
def test_labels_of_any_type(labels, tmp_path):
    named = labels[y]
    detector = make_detector(classifier_trainer=None).set_params(classifier_trainer=make_detector().dense_trainer)
    detector = detector.fit(X, named)
    other = saved_and_loaded(detector, tmp_path, customs=TINY)
    assert other.classes_.dtype == detector.classes_.dtype
    assert_array_equal(other.classify(X), detector.classify(X))


@pytest.mark.parametrize(
    "backbone",
    [
        seeded(create_backbone, "test_resnet", pretrained=False),
        seeded(create_backbone, "test_resnet", pretrained=False, output_stride=8),
        seeded(create_backbone, "test_vit", pretrained=False, image_size=128),
    ],
    ids=["name", "options", "transformer"],
)
def test_timm_backbones_need_no_class(backbone, tmp_path):
    few = Trainer(max_steps=2, batch_size=8)
    detector = make_detector(
        backbone=backbone,
        image_size=128,
        scorer=MSP(),
        mask_generator=CAMMaskGenerator(scales=(1.0,), flip=False),
        classifier_trainer=few,
        dense_trainer=few,
    ).fit(X, y)
    assert_array_equal(saved_and_loaded(detector, tmp_path).score_samples(X), detector.score_samples(X))


def test_a_trained_classifier_as_backbone(fitted, tmp_path):
    detector = make_detector(backbone=fitted.classifier_).fit(X, y)
    other = saved_and_loaded(detector, tmp_path, customs=TINY)
    assert isinstance(other.backbone, DenseClassifier)
    assert_array_equal(other.score_samples(X), detector.score_samples(X))


def test_a_changed_timm_model_is_not_stored_by_name(tmp_path):
    """Its weights fit the named model, but it computes something else."""
    backbone = seeded(create_backbone, "test_resnet", pretrained=False, output_stride=8)
    backbone.maxpool = nn.Identity()
    few = Trainer(max_steps=2, batch_size=8)
    detector = make_detector(backbone=backbone, image_size=32, scorer=MSP(), classifier_trainer=few, dense_trainer=few)
    skdfb.save(detector.fit(X, y), tmp_path / "model")
    with pytest.raises(InvalidModelError, match=r"'timm\.models\.resnet\.ResNet', which is not part of skdfb"):
        skdfb.load(tmp_path / "model")

    def build():
        again = create_backbone("test_resnet", pretrained=False, output_stride=8)
        again.maxpool = nn.Identity()
        return again

    other = skdfb.load(tmp_path / "model", customs={"timm.models.resnet.ResNet": build}, device="cpu")
    assert_array_equal(other.score_samples(X), detector.score_samples(X))
    # A function that builds another network is refused, too: the weights fit, but the outputs differ.
    plain = {"timm.models.resnet.ResNet": lambda: create_backbone("test_resnet", pretrained=False, output_stride=8)}
    with pytest.raises(
        InvalidModelError, match="outputs of the loaded model for random noise differ from those of the saved model"
    ):
        skdfb.load(tmp_path / "model", customs=plain, device="cpu")


@pytest.mark.parametrize("make", [TinyBackbone, lambda: create_backbone("test_resnet", pretrained=False)])
def test_frozen_weights_stay_frozen(make, tmp_path):
    backbone = seeded(make)
    next(iter(backbone.parameters())).requires_grad_(False)
    network = DenseClassifier(backbone, 3, image_size=128)
    network.head.bias.requires_grad_(False)
    detector = make_detector(backbone=network, classifier_trainer=None)
    flags = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    assert list(flags.values()).count(False) == 2
    loaded = saved_and_loaded(detector, tmp_path, customs=TINY)
    assert {name: parameter.requires_grad for name, parameter in loaded.backbone.named_parameters()} == flags


def test_weights_of_another_precision(tmp_path):
    detector = make_detector(torch.float64).fit(X, y)
    other = saved_and_loaded(
        detector, tmp_path, customs={"tests.helpers.TinyBackbone": lambda: TinyBackbone(dtype=torch.float64)}
    )
    assert other.dense_network_.dtype == torch.float64
    assert_array_equal(other.score_samples(X), detector.score_samples(X))


# -------------------------------------------------------------- third-party classes


@pytest.mark.parametrize("changes", [{"scorer": DistanceToMean(power=1)}, {"fusion": ListFusion()}])
def test_classes_that_are_passed_as_customs(fitted, tmp_path, changes):
    detector = fitted.refit_scorer(**changes, alpha=0.2)
    (name,) = (type(value).__name__ for value in changes.values())
    with pytest.raises(InvalidModelError, match=rf"load\(path, customs=\[{name}\]\)"):
        saved_and_loaded(detector, tmp_path, customs=TINY)
    other = saved_and_loaded(detector, tmp_path, customs=[TinyBackbone, DistanceToMean, ListFusion])
    assert_array_equal(other.score_samples(X), detector.score_samples(X))


def test_modules_that_take_arguments(tmp_path):
    detector = make_detector(backbone=seeded(WideBackbone, 5), scorer=Energy()).fit(X, y)
    name = "tests.persistence.test_save.WideBackbone"
    with pytest.raises(InvalidModelError, match="missing 1 required positional argument"):
        saved_and_loaded(detector, tmp_path, customs=[WideBackbone])
    other = saved_and_loaded(detector, tmp_path, customs={name: lambda: WideBackbone(5)})
    assert_array_equal(other.score_samples(X), detector.score_samples(X))
    with pytest.raises(InvalidModelError, match="size mismatch"):
        saved_and_loaded(detector, tmp_path, customs={name: lambda: WideBackbone(6)})


def test_customs_that_are_not_classes_need_a_name(tmp_path):
    with pytest.raises(
        TypeError, match="is not a class: expected an iterable of classes, or a mapping from the qualified name"
    ):
        skdfb.load(tmp_path, customs=[lambda: None])


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (KNN(n_neighbors=lambda: 3), r"model.scorer.n_neighbors is <function .*, which cannot be saved"),
        (MSP, r"model.scorer is <class .*, which cannot be saved"),
    ],
)
def test_values_that_cannot_be_saved_are_named(scorer, message, tmp_path):
    with pytest.raises(TypeError, match=message):
        DFBDetector(scorer=scorer).save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_head_of_scikit_learn(tmp_path):
    rows = np.random.default_rng(0).normal(size=(200, 6))
    detector = FeatureDetector(ViM(n_components=2), head=LogisticRegression(C=0.5)).fit(rows, np.arange(200) % 3)
    other = saved_and_loaded(detector, tmp_path, customs=[LogisticRegression])
    assert other.head.C == 0.5
    assert_array_equal(other.score_samples(rows), detector.score_samples(rows))


# -------------------------------------------------------------------------- writing


def test_a_failed_write_leaves_the_older_file(fitted, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    fitted.save(path)
    before = path.read_bytes()

    def full(tensors, filename, metadata):
        filename.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_files, "save_file", full)
    with pytest.raises(OSError, match="No space left on device"):
        fitted.refit_scorer(MSP()).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_saved_file_has_the_permissions_of_any_new_file(tmp_path):
    skdfb.save(Trainer(), tmp_path / "saved")
    (tmp_path / "any").write_text("")
    assert (tmp_path / "saved").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_a_folder_that_does_not_exist(fitted, tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        fitted.save(tmp_path / "missing" / "model")


def test_saving_and_loading_draw_no_random_numbers(fitted, tmp_path):
    states = torch.get_rng_state(), np.random.mtrand._rand.get_state()[1].copy(), random.getstate()
    saved_and_loaded(fitted, tmp_path, customs=TINY)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert_array_equal(np.random.mtrand._rand.get_state()[1], states[1])
    assert random.getstate() == states[2]


def test_a_model_of_a_gpu_is_loaded_without_one(fitted, tmp_path):
    other = saved_and_loaded(
        fitted.refit_scorer(ODIN(), X, y).set_params(device="cuda"), tmp_path, customs=TINY, device="auto"
    )
    assert other.device == "cuda"
    assert other.score_samples(X).shape == (len(X),)


def test_equal_models_are_equal_files(fitted, tmp_path):
    for name in ("first", "second"):
        fitted.save(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    saved_and_loaded(fitted, tmp_path, customs=TINY).save(tmp_path / "third")
    assert (tmp_path / "third").read_bytes() == (tmp_path / "first").read_bytes()


class Values:
    """Any object with attributes."""


@pytest.mark.parametrize(
    "state",
    [
        {"values": {"a": {"b": np.zeros(20)}, "a.b": np.ones(20)}},
        {"values": {"a.b": np.ones(20), "a": {"b": np.zeros(20)}}},
        {"values": {5: np.zeros(20), "0": np.ones(20)}},
        {"values": {"key0": np.zeros(20), (1, 2): np.ones(20)}},
    ],
    ids=str,
)
def test_keys_that_look_like_paths(state):
    values = Values()
    values.__dict__.update(state)
    encoder = Encoder()
    node = encoder.encode(values, "model")
    other = Decoder(encoder.tensors, {f"{Values.__module__}.Values": Values}).decode(node, "model")
    assert str(vars(other)) == str(state)


def test_two_values_under_one_path_are_refused():
    encoder = Encoder()
    encoder.encode(np.zeros(20), "model.a")
    with pytest.raises(TypeError, match=r"two values have the path 'model\.a'"):
        encoder.encode(np.ones(20), "model.a")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(
        IsADirectoryError, match=r"is a folder: expected a file, such as '.*model\.safetensors'"
    ) as error:
        skdfb.save(MSP(), tmp_path)
    skdfb.save(MSP(), re.search(r"such as '(.*)'", str(error.value)).group(1))
    with pytest.raises(FileNotFoundError, match="there is no folder") as error:
        skdfb.save(MSP(), tmp_path / "new" / "folder" / "model.safetensors")
    eval(re.search(r"create it by (.*)\.$", str(error.value)).group(1), {"Path": Path})
    skdfb.save(MSP(), tmp_path / "new" / "folder" / "model.safetensors")
