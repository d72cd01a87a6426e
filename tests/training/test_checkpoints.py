"""Checkpoints of several processes, the start of the dense network, and independent streams of random numbers."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from skdfb import Trainer
from skdfb.exceptions import CheckpointError
from skdfb.networks import DenseClassifier
from skdfb.scorers import Energy
from skdfb.training import _checkpoints
from skdfb.training._checkpoints import Checkpoints
from skdfb.training._stages import check_dense_start, start_dense_network
from tests.detector.conftest import make_detector, make_images, tiny_backbone
from tests.helpers import TinyBackbone
from tests.training.problems import PLAIN, easy_problem, equal, tiny_network, weights_of


def test_several_processes_try_the_folder_at_once(tmp_path, monkeypatch):
    """Each process writes its own file: on a slow disk, one process could remove the file of another one."""
    unlink = Path.unlink

    def slow(path, missing_ok=False):
        time.sleep(0.01)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", slow)
    checkpoints = Checkpoints(tmp_path, {"y": "1"})
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: checkpoints.prepare(), range(40)))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written to"):
        Checkpoints(tmp_path / "file", {}).prepare()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_the_first_process_writes_and_removes(tmp_path, monkeypatch, rank):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    checkpoints = Checkpoints(tmp_path, {"y": "1"})
    assert checkpoints.put("seeds", {"seeds": [1]}, {}) == (rank == "0")
    assert checkpoints.names() == (["seeds"] if rank == "0" else [])
    (tmp_path / "masks.safetensors").write_bytes(b"")
    checkpoints.remove("masks")
    assert (tmp_path / "masks.safetensors").exists() == (rank == "1")


def test_a_file_that_is_removed_between_listing_and_reading_is_missing(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, {"y": "1"})
    checkpoints.put("classifier-000000001", {}, {"a": torch.zeros(1)})
    read = _checkpoints.read_file

    def late(path, **options):
        path.unlink()
        return read(path, **options)

    monkeypatch.setattr(_checkpoints, "read_file", late)
    checkpoints.prepare()
    assert checkpoints.get("classifier-000000001") is None


def test_a_training_goes_on_from_the_state_before_one_that_was_removed(tmp_path, monkeypatch):
    images, labels, _ = easy_problem()
    stage = Checkpoints(tmp_path, {}).stage("classifier")
    trainer = Trainer(max_steps=12, batch_size=16, checkpoint_every=5)
    uninterrupted = tiny_network()
    history = trainer.train(uninterrupted, images, labels, device="cpu", random_state=0)

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(_checkpoints.StageCheckpoints, "finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(tiny_network(), images, labels, device="cpu", random_state=0, checkpoints=stage)
    assert stage.all.names() == ["classifier-000000005", "classifier-000000010"]
    read, steps = _checkpoints.read_file, []

    def late(path, **options):
        if path.name == "classifier-000000010.safetensors":
            path.unlink(missing_ok=True)
        content = read(path, **options)
        steps.append(path.name)
        return content

    monkeypatch.setattr(_checkpoints, "read_file", late)
    network = tiny_network()
    assert trainer.train(network, images, labels, device="cpu", random_state=0, checkpoints=stage) == history
    assert steps == ["classifier-000000005.safetensors"]
    assert equal(weights_of(network), weights_of(uninterrupted))


# ------------------------------------------------------------- where to start


def network():
    return DenseClassifier(TinyBackbone(), 3, image_size=16)


def test_the_dense_network_starts_from_the_classifier_or_from_before_it():
    trained, untrained = network(), network()
    for start, expected in (("classifier", trained), ("pretrained", untrained)):
        dense = start_dense_network(trained, Trainer(dense_start=start), lambda: untrained)
        assert dense.num_classes == 4
        for name, value in expected.feature_map.state_dict().items():
            assert torch.equal(dense.feature_map.state_dict()[name], value)


@pytest.mark.parametrize("start", ["classifier", "pretrained"])
def test_the_start_in_a_detector(start):
    """A learning rate this small changes no weight, so the dense network keeps the weights that it started from."""
    backbone, (X, y) = tiny_backbone(), make_images()
    trainer = Trainer(max_steps=1, batch_size=16, learning_rate=1e-30, dense_start=start)
    detector = make_detector(backbone=backbone, scorer=Energy(), dense_trainer=trainer).fit(X, y)
    classifier, dense = (
        weights_of(network.feature_map.backbone) for network in (detector.classifier_, detector.dense_network_)
    )
    assert equal(dense, classifier) == (start == "classifier")
    assert equal(dense, weights_of(backbone)) == (start == "pretrained")


def test_a_classifier_given_as_trained_has_no_start_before_it():
    check_dense_start(network(), None)
    check_dense_start(network(), Trainer())
    check_dense_start(TinyBackbone(), Trainer(dense_start="pretrained"))
    with pytest.raises(ValueError, match="dense_start='pretrained', but backbone is a DenseClassifier"):
        check_dense_start(network(), Trainer(dense_start="pretrained"))


# -------------------------------------------------------------- random numbers


class Dropping(TinyBackbone):
    """A backbone that keeps the numbers that dropout would draw."""

    def __init__(self):
        super().__init__()
        self.drawn = []
        self.dropout = nn.Dropout(0.5)

    def forward(self, images):
        if self.training:
            self.drawn.append(float(torch.rand(1)))
        return self.dropout(super().forward(images))


class Drawing:
    """An augmentation that draws numbers and changes nothing."""

    def __init__(self, n_numbers):
        self.n_numbers = n_numbers
        self.drawn = []

    def augment(self, batch, generator):
        self.drawn += torch.rand(self.n_numbers, generator=generator).tolist()
        return batch


def test_dropout_does_not_depend_on_the_numbers_of_the_augmentation():
    images, labels = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(0)), [0, 1, 2] * 8
    drawn = []
    for n_numbers in (1, 5):
        augmentation = Drawing(n_numbers)
        backbone = Dropping()
        trained = DenseClassifier(backbone, 3, image_size=16)
        trainer = Trainer(max_steps=3, batch_size=8, augmentation=augmentation, **PLAIN)
        trainer.train(trained, images.permute(0, 2, 3, 1).numpy(), labels, device="cpu", random_state=0)
        drawn.append(backbone.drawn)
        assert not set(backbone.drawn) & set(augmentation.drawn), "two streams"
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 3
