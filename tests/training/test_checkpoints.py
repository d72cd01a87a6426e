"""A folder of checkpoints that several threads or processes use at once, and the fingerprint of a fit."""

import importlib.metadata
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from skdfb import Trainer
from skdfb.detector._checkpoints import detector_checkpoints
from skdfb.exceptions import CheckpointError
from skdfb.images import as_images
from skdfb.training import _checkpoints
from skdfb.training._checkpoints import Checkpoints
from tests.detector.conftest import make_detector, make_images
from tests.training.problems import N_CLASSES, easy_problem, equal, tiny_network, weights_of

N_THREADS = 8
FINGERPRINT = {"X": "60 images", "random_state": "0"}
WEIGHTS = {"weights": torch.arange(3.0)}


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "folder", FINGERPRINT)


# ------------------------------------------------------------- several threads


def failures_of_simultaneous_trials(checkpoints, monkeypatch):
    """Prepare a folder in several threads, none of which removes its trial file before all have written theirs."""
    all_written, unlink, failures = threading.Barrier(N_THREADS, timeout=60), Path.unlink, []

    def slow_unlink(self, missing_ok=False):
        if self.name.startswith(".trial-"):
            all_written.wait()
        unlink(self, missing_ok=missing_ok)

    def prepare():
        try:
            checkpoints.prepare()
        except CheckpointError as error:
            failures.append(error)

    monkeypatch.setattr(Path, "unlink", slow_unlink)
    threads = [threading.Thread(target=prepare) for _ in range(N_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def test_simultaneous_trials_do_not_remove_each_others_file(checkpoints, monkeypatch):
    assert failures_of_simultaneous_trials(checkpoints, monkeypatch) == []
    assert list(checkpoints.folder.iterdir()) == []


def test_a_shared_name_of_the_trial_file_would_fail(checkpoints, monkeypatch):
    """Shows that the test above can fail."""
    shared = SimpleNamespace(uuid4=lambda: SimpleNamespace(hex="shared"))
    monkeypatch.setattr(_checkpoints, "uuid", shared)
    failures = failures_of_simultaneous_trials(checkpoints, monkeypatch)
    assert len(failures) == N_THREADS - 1
    assert "No such file" in str(failures[0])


def test_simultaneous_writers_of_one_name_leave_a_complete_file(checkpoints):
    checkpoints.prepare()
    barrier = threading.Barrier(N_THREADS, timeout=60)

    def write(number):
        barrier.wait()
        for _ in range(5):
            assert checkpoints.put("seeds", {"number": number}, {"x": torch.full((1000,), number)})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(N_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    notes, tensors = checkpoints.get("seeds")
    assert torch.equal(tensors["x"], torch.full((1000,), notes["number"]))
    assert checkpoints.names() == ["seeds"]
    assert [path.name for path in checkpoints.folder.iterdir()] == ["seeds.safetensors"]


# ----------------------------------------------------------- several processes


def launched_as(monkeypatch, rank, world_size=2):
    """Set the environment that torchrun sets."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    monkeypatch.setenv("WORLD_SIZE", str(world_size))
    monkeypatch.setenv("RANK", str(rank))


def test_only_the_first_process_writes_and_removes(checkpoints, monkeypatch):
    checkpoints.prepare()
    launched_as(monkeypatch, rank=1)
    checkpoints.prepare()
    assert not checkpoints.put("seeds", {}, WEIGHTS)
    assert checkpoints.names() == []
    launched_as(monkeypatch, rank=0)
    assert checkpoints.put("seeds", {}, WEIGHTS)
    launched_as(monkeypatch, rank=1)
    checkpoints.remove("seeds")
    assert checkpoints.names() == ["seeds"]
    assert torch.equal(checkpoints.get("seeds")[1]["weights"], WEIGHTS["weights"])  # each process reads
    launched_as(monkeypatch, rank=0)
    checkpoints.remove("seeds", "absent")
    assert checkpoints.names() == []


def test_a_rank_without_a_launcher_does_not_matter(checkpoints, monkeypatch):
    monkeypatch.setenv("RANK", "1")  # as a cluster may set it for other reasons
    checkpoints.prepare()
    assert checkpoints.put("seeds", {}, WEIGHTS)


# ------------------------------------------------------------------- absent files


def removed_before_reading(monkeypatch, *names):
    """Let another process remove files between listing and reading."""
    read = _checkpoints.read_file

    def read_file(path):
        if path.name in names:
            path.unlink(missing_ok=True)
        return read(path)

    monkeypatch.setattr(_checkpoints, "read_file", read_file)


def test_a_file_that_disappears_between_listing_and_reading_is_absent(checkpoints, monkeypatch):
    checkpoints.prepare()
    for name in ("masks", "seeds"):
        checkpoints.put(name, {}, WEIGHTS)
    removed_before_reading(monkeypatch, "masks.safetensors")
    checkpoints.prepare()
    assert checkpoints.get("masks") is None
    assert checkpoints.get("never written") is None
    assert checkpoints.names() == ["seeds"]


def test_a_training_goes_on_from_the_state_before_one_that_disappears(checkpoints, monkeypatch):
    images, labels, _ = easy_problem()
    checkpoints.prepare()
    stage = checkpoints.stage("classifier")
    trainer = Trainer(max_steps=12, batch_size=16, checkpoint_every=5)
    expected = tiny_network()
    history = trainer.train(expected, images, labels, device="cpu", random_state=0)

    # Interrupt the training when the network would be kept, after the states of steps 5 and 10.
    with monkeypatch.context() as patched:
        patched.setattr(_checkpoints.StageCheckpoints, "finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(tiny_network(), images, labels, device="cpu", random_state=0, checkpoints=stage)
    assert checkpoints.names() == ["classifier-000000005", "classifier-000000010"]
    removed_before_reading(monkeypatch, "classifier-000000010.safetensors")
    network = tiny_network(N_CLASSES)
    again = trainer.train(network, images, labels, device="cpu", random_state=0, checkpoints=stage)
    assert again == history
    assert equal(weights_of(network), weights_of(expected))


def interrupt(*arguments):
    raise KeyboardInterrupt


# --------------------------------------------------------------------- fingerprint

X, y = make_images()


def fingerprint_in(folder, **changes):
    detector = make_detector(checkpoint_dir=folder, **changes)
    return dict(detector_checkpoints(detector, as_images(X), y).fingerprint)


def test_the_fingerprint_has_the_versions_of_skdfb_and_torch(tmp_path, monkeypatch):
    fingerprint = fingerprint_in(tmp_path)
    for package in ("skdfb", "torch"):
        assert fingerprint[package] == importlib.metadata.version(package)
    checkpoints = detector_checkpoints(make_detector(checkpoint_dir=tmp_path), as_images(X), y)
    checkpoints.put("seeds", {"seeds": [1]}, {})
    version = importlib.metadata.version
    for package in ("skdfb", "torch"):
        monkeypatch.setattr(
            importlib.metadata, "version", lambda name, p=package: "0.0" if name == p else version(name)
        )
        with pytest.raises(ValueError, match=rf"another fit: {package} was {version(package)} and is 0\.0\. Call fit"):
            fingerprint_in(tmp_path)


def test_checkpoint_every_does_not_change_the_fingerprint(tmp_path):
    trainer = Trainer(max_steps=7, learning_rate=0.2)
    other = Trainer(max_steps=7, learning_rate=0.2, checkpoint_every=3)
    expected = fingerprint_in(tmp_path, classifier_trainer=trainer, dense_trainer=trainer)
    assert fingerprint_in(tmp_path, classifier_trainer=other, dense_trainer=other) == expected
    assert other.checkpoint_every == 3
    # The default trainer is described like an explicit one.
    assert fingerprint_in(tmp_path, dense_trainer=Trainer(checkpoint_every=3)) == fingerprint_in(
        tmp_path, dense_trainer=None
    )
    changed = fingerprint_in(tmp_path, classifier_trainer=Trainer(max_steps=8), dense_trainer=other)
    assert {name for name in expected if changed[name] != expected[name]} == {"classifier_trainer"}


def test_images_and_labels_change_the_fingerprint(tmp_path):
    first = fingerprint_in(tmp_path)
    changed = np.where(np.arange(len(X))[:, None, None, None] == 17, 0, X).astype(np.uint8)
    detector = make_detector(checkpoint_dir=tmp_path)
    other = dict(detector_checkpoints(detector, as_images(changed), (y + 1) % 3).fingerprint)
    assert {name for name in first if other[name] != first[name]} == {"X", "y"}
