"""A whole ``fit`` in processes that ``torchrun`` launched: the detector of one process, written and told once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from skdfb import FrozenDetector, Trainer
from tests.detector.conftest import make_detector, make_images
from tests.helpers import TinyBackbone
from tests.training.problems import PLAIN

SCRIPT = """
import json, os, sys, warnings
warnings.simplefilter("error")
import torch
from skdfb.training import _checkpoints, _run
from skdfb.scorers import Energy
from tests.training.test_launched import Counting, detector, frozen, make_images

rank, folder, fails_at = int(os.environ["RANK"]), sys.argv[1], int(sys.argv[2])
write, written = _checkpoints.write_file, []

def counting(path, *args):
    written.append(path.name)
    write(path, *args)

def failing(self, batch, step, _augmented=_run.TrainingRun._augmented):
    if step == fails_at and rank == 1:
        raise ArithmeticError("the disk of node 7 is full")
    return _augmented(self, batch, step)

_checkpoints.write_file, _run.TrainingRun._augmented = counting, failing
print(f"rank {rank} begins", file=sys.stderr)
fitted = detector(checkpoint_dir=folder + "/checkpoints", verbose=1).fit(*make_images())
torch.save(fitted.dense_network_.state_dict(), f"{folder}/{rank}.pt")
X_new, n_passed = make_images(24, seed=1)[0], Counting.n_passed
found = {"written": written, "history": fitted.training_history_, "scores": fitted.score_samples(X_new).tolist()}
# Without a random_state, without labels, and without any training.
quick = detector(n_steps=2, random_state=None, scorer=Energy())
other = frozen(seed=rank, random_state=None)
Counting.n_passed = 0
found["frozen"] = other.fit(make_images()[0]).score_samples(X_new).tolist()
found["n_passed"] = [n_passed, Counting.n_passed - len(X_new)]
found["labels"], found["held_out"] = other._labels_.tolist(), other._split_.held_out.tolist()
found["unseeded"] = quick.fit(*make_images()).score_samples(X_new).tolist()
found["refused"] = []
X, y = make_images()
for images, labels in ((X[rank:], y[rank:]), (X[::1 - 2 * rank], y), (X, (y + rank) % 3)):
    try:
        frozen(random_state=0).fit(images, labels)
    except ValueError as error:
        found["refused"].append(str(error))
with open(f"{folder}/{rank}.json", "w") as file:
    json.dump(found, file)
"""
N_STEPS = 50


class Counting(TinyBackbone):
    """Counts the images that pass in evaluation: for masks, features and scores."""

    n_passed = 0

    def forward(self, x):
        # The pass that tells the number of features is of zeros.
        type(self).n_passed += len(x) if x.any() and not self.training else 0
        return super().forward(x)


def backbone(seed=0):
    torch.manual_seed(seed)
    return Counting()


def detector(n_steps=N_STEPS, **changes):
    """Without what differs between processes: batch statistics, and the numbers that zoom and mirror an image."""
    trainer = Trainer(max_steps=n_steps, batch_size=16, learning_rate=0.05, checkpoint_every=20, **PLAIN)
    return make_detector(classifier_trainer=trainer, dense_trainer=trainer, **{"backbone": backbone()} | changes)


def frozen(seed=0, **changes):
    return FrozenDetector(backbone(seed), calibration_fraction=0.35, device="cpu", **changes)


def launch(folder, fails_at=-1):
    (script := folder / "script.py").write_text(SCRIPT)
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    options = ["--redirects=3", f"--log-dir={folder}/log"]  # a file for each process
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *launcher, *options, str(script), str(folder), str(fails_at)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    told = {path.parent.name: path.read_text() for path in sorted(folder.glob("log/*/*/*/stderr.log"))}
    return done, told


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("launched")
    done, told = launch(folder)
    assert done.returncode == 0, done.stderr + "".join(told.values())
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]
    weights = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    return found, weights, told


def test_two_processes_equal_one_with_the_same_batches(launched):
    (first, second), weights, _ = launched
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert first["scores"] == second["scores"]
    alone = detector().fit(*make_images())
    for name, weight in alone.dense_network_.state_dict().items():
        torch.testing.assert_close(weights[0][name], weight, atol=1e-5, rtol=0)
    for stage, history in alone.training_history_.items():
        np.testing.assert_allclose(first["history"][stage]["loss"], history["loss"], atol=1e-5)
    np.testing.assert_allclose(first["scores"], alone.score_samples(make_images(24, seed=1)[0]), atol=1e-4)


def test_checkpoints_are_written_once(launched):
    (first, second), *_ = launched
    assert [name for name in first["written"] if name.startswith("dense")]
    # Each process tries whether it could write.
    assert [name for name in second["written"] if not name.startswith(".trial-")] == []


def test_progress_is_told_once(launched):
    *_, told = launched
    assert "training the classifier" in told["0"]
    assert told["1"].splitlines()[0] == "rank 1 begins"
    assert "training" not in told["1"]


def test_a_process_that_dies_ends_the_others_with_its_reason(tmp_path):
    done, told = launch(tmp_path, fails_at=7)
    assert done.returncode != 0
    assert "ArithmeticError: the disk of node 7 is full" in told["1"]
    assert "rank 0 begins" in told["0"]
    assert not list(tmp_path.glob("?.pt"))  # which each process writes after its fit


def test_each_process_passes_its_share_of_the_images(launched):
    (first, second), *_ = launched
    Counting.n_passed = 0
    detector().fit(*make_images())
    with_networks, Counting.n_passed = Counting.n_passed, 0
    frozen(random_state=0).fit(make_images()[0])
    alone = [with_networks, Counting.n_passed]
    np.testing.assert_array_equal(np.add(first["n_passed"], second["n_passed"]), alone)
    # One image more where a number cannot be halved, for each of the passes.
    np.testing.assert_allclose(first["n_passed"], second["n_passed"], atol=8)


@pytest.mark.parametrize("found", ["unseeded", "frozen", "labels", "held_out"])
def test_processes_without_random_state_draw_the_same(launched, found):
    """Also if each has a backbone with other random weights."""
    (first, second), *_ = launched
    assert first[found] == second[found]


def test_other_images_in_each_process_are_refused(launched):
    for found in launched[0]:
        sizes, order, labels = found["refused"]
        assert sizes.startswith("y differs between the launched processes")
        assert order.startswith("X differs between the launched processes (60 images (")
        assert labels.startswith("y differs between the launched processes")
        assert "expected the same images and labels in the same order in all of them" in order
