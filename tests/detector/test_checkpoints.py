"""An interrupted fit continues to the same weights. Damaged files are not used, and each fit has files of its own."""

import errno
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score

from skdfb import CAMMaskGenerator, Trainer
from skdfb.augmentation import BackMix
from skdfb.exceptions import CheckpointError, CheckpointWarning
from skdfb.fusion import TemperatureFusion
from skdfb.scorers import MSP, Energy
from skdfb.training import _checkpoints, _run
from skdfb.training._in_use import in_use
from skdfb.utils import read_file
from tests.detector.conftest import make_detector, make_images

X, y = make_images()
# AdamW has more state than SGD, and BackMix has attention maps and draws further images.
TRAINER = Trainer(max_steps=12, batch_size=16, learning_rate=0.05, checkpoint_every=5)
WITH_MORE_STATE = clone(TRAINER).set_params(optimizer="adamw", augmentation=BackMix(donors="training set"))


def plain_detector(**changes):
    return make_detector(**{"scorer": MSP()} | changes)


def detector_in(folder, **changes):
    trainers = {"classifier_trainer": TRAINER, "dense_trainer": TRAINER}
    return plain_detector(**trainers | {"checkpoint_dir": folder} | changes)


def names_in(folder):
    """Names of all files, in the folder of the fit and in that of its training."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def weights_of(detector):
    return {
        f"{name}.{key}": value
        for name in ("classifier_", "dense_network_")
        for key, value in getattr(detector, name).state_dict().items()
    }


def assert_same(first, second):
    weights, others = weights_of(first), weights_of(second)
    assert set(weights) == set(others)
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert first.training_history_ == second.training_history_
    assert_array_equal(first.score_samples(X), second.score_samples(X))


@pytest.fixture(scope="module", params=[TRAINER, WITH_MORE_STATE], ids=["SGD", "AdamW and BackMix"])
def trainer(request):
    return request.param


@pytest.fixture(scope="module")
def uninterrupted(trainer):
    return plain_detector(classifier_trainer=trainer, dense_trainer=trainer).fit(X, y)


def interrupt(monkeypatch, at):
    """Interrupt the writing of the checkpoint of this number, as a crash does."""
    written = []
    write = _checkpoints.write_file

    def counting(path, text, tensors):
        if len(written) == at:
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, text, tensors)

    monkeypatch.setattr(_checkpoints, "write_file", counting)
    return written


# A trial, the seeds and the split; 5, 10 and all steps; masks; 5, 10 and all steps again.
@pytest.mark.parametrize("at", range(1, 10))
def test_continues_to_the_same_weights_after_any_interruption(uninterrupted, trainer, tmp_path, monkeypatch, at):
    trainers = {"classifier_trainer": trainer, "dense_trainer": trainer}
    with monkeypatch.context() as patched:
        written = interrupt(patched, at)
        with pytest.raises(KeyboardInterrupt):
            detector_in(tmp_path, **trainers).fit(X, y)
    assert len(written) == at
    assert_same(detector_in(tmp_path, **trainers).fit(X, y), uninterrupted)


def test_the_scale_of_16_bit_gradients_is_kept(tmp_path, monkeypatch):
    """It begins so low that gradients vanish, and doubles every second step: without it the weights would differ."""

    def engine(*_):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**-14, growth_interval=2)
        return Fabric(accelerator="cpu", plugins=[MixedPrecision("16-mixed", "cpu", scaler)])

    monkeypatch.setattr(_run, "make_engine", engine)
    whole = plain_detector(classifier_trainer=TRAINER, dense_trainer=TRAINER).fit(X, y)
    with monkeypatch.context() as patched:
        interrupt(patched, 5)
        with pytest.raises(KeyboardInterrupt):
            detector_in(tmp_path).fit(X, y)
    (newest,) = tmp_path.rglob("classifier-000000010.safetensors")
    notes = json.loads(read_file(newest)[0])["notes"]
    assert notes["precision"]["scale"] == 2.0**-9
    assert_same(detector_in(tmp_path).fit(X, y), whole)


def test_a_finished_fit_trains_nothing_again(tmp_path, monkeypatch):
    first = detector_in(tmp_path).fit(X, y)
    assert names_in(tmp_path) == [
        "classifier.safetensors",
        "dense.safetensors",
        "seeds.safetensors",
        "split.safetensors",
    ]

    def refuse(*arguments, **options):
        raise AssertionError("something was trained or computed again")

    monkeypatch.setattr(CAMMaskGenerator, "fit", refuse)
    monkeypatch.setattr("skdfb.training._run.TrainingRun._run_steps", refuse)
    again = detector_in(tmp_path, scorer=Energy()).fit(X, y)
    assert_array_equal(again.score_samples(X), first.refit_scorer(Energy()).score_samples(X))


def test_a_damaged_checkpoint_is_not_used(uninterrupted, trainer, tmp_path, monkeypatch):
    trainers = {"classifier_trainer": trainer, "dense_trainer": trainer}
    with monkeypatch.context() as patched:
        interrupt(patched, 5)
        with pytest.raises(KeyboardInterrupt):
            detector_in(tmp_path, **trainers).fit(X, y)
    older, newest = sorted(tmp_path.rglob("classifier-*"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    assert_same(detector_in(tmp_path, **trainers).fit(X, y), uninterrupted)
    older.write_bytes(b"")  # the stage is finished, so this file is not needed
    assert_same(detector_in(tmp_path, **trainers).fit(X, y), uninterrupted)


def test_without_a_random_state_the_seeds_are_kept(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        interrupt(patched, 4)
        with pytest.raises(KeyboardInterrupt):
            detector_in(tmp_path, random_state=None).fit(X, y)
    first = detector_in(tmp_path, random_state=None).fit(X, y)
    assert_same(detector_in(tmp_path, random_state=None).fit(X, y), first)


class Brightness:
    """An augmentation that no file can hold."""

    def __init__(self, factor):
        self.change = lambda images: images * factor

    def augment(self, batch, generator):
        return replace(batch, images=self.change(batch.images))


def abandon(monkeypatch, folder, X=X, y=y, **changes):
    """Interrupt a fit after its first states."""
    with monkeypatch.context() as patched:
        interrupt(patched, 5)
        with pytest.raises(KeyboardInterrupt):
            detector_in(folder, **changes).fit(X, y)


def test_other_parameters_are_compared_if_one_cannot_be(tmp_path, monkeypatch):
    trainer = clone(TRAINER).set_params(augmentation=Brightness(1.0))
    abandon(monkeypatch, tmp_path, classifier_trainer=trainer)
    other = clone(trainer).set_params(learning_rate=0.01)
    with pytest.warns(CheckpointWarning, match=r"classifier_trainer was Trainer \(\w+\) and is Trainer \(\w+\)"):
        detector_in(tmp_path, classifier_trainer=other).fit(X, y)
    detector_in(tmp_path, classifier_trainer=clone(trainer)).fit(X, y)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dense_trainer": Trainer(max_steps=3)}, r"dense_trainer was .*max_steps=12.* and is Trainer\(max_steps=3\)"),
        ({"random_state": 1}, "random_state was 0 and is 1"),
        ({"image_size": 32}, "image_size was None and is 32"),
        ({"mask_generator": CAMMaskGenerator(threshold=0.4)}, "mask_generator was .*threshold=0.4"),
        ({"X": np.where(np.arange(60)[:, None, None, None] == 17, 0, X)}, r"X was 60 images \(.*\) and is 60 images"),
        ({"y": (y + 1) % 3}, "y was "),
        ({"X": X[:-3], "y": y[:-3]}, r"X was 60 images \(.*\) and is 57 images .*; y was "),
        ({"calibration_fraction": 0.4}, r"training images was 39 of X \(.*\) and is 36 of X"),
    ],
)
def test_a_fit_that_does_not_continue_an_unfinished_one_says_what_differs(tmp_path, monkeypatch, changes, message):
    images, labels = changes.pop("X", X), changes.pop("y", y)
    abandon(monkeypatch, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.warns(
        CheckpointWarning, match=f"(?s)an unfinished fit, which .*{message}.* call fit as before"
    ) as told:
        detector_in(tmp_path, **changes).fit(images.astype(np.uint8), labels)
    assert len(told) == 1
    assert all(path.read_bytes() == content for path, content in before.items())
    # Once it has a folder of its own, it is an ordinary fit.
    detector_in(tmp_path, **changes).fit(images.astype(np.uint8), labels)
    # Both remedies: to continue the other one, and to delete it.
    abandoned = re.search(r"delete '(.*)'", str(told[0].message))[1]
    assert any(str(path).startswith(abandoned) for path in before)
    shutil.rmtree(abandoned)
    detector_in(tmp_path, random_state=7).fit(X, y)


def test_the_fit_that_was_changed_by_accident_is_continued(uninterrupted, trainer, tmp_path, monkeypatch):
    trainers = {"classifier_trainer": trainer, "dense_trainer": trainer}
    abandon(monkeypatch, tmp_path, **trainers)
    with pytest.warns(CheckpointWarning, match="random_state was 0 and is 5"):
        detector_in(tmp_path, **trainers, random_state=5).fit(X, y)
    assert_same(detector_in(tmp_path, **trainers).fit(X, y), uninterrupted)


def test_the_nearest_unfinished_fit_is_named(tmp_path, monkeypatch):
    abandon(monkeypatch, tmp_path, X=X[:57], y=y[:57])
    with pytest.warns(CheckpointWarning, match="X was 57"):
        abandon(monkeypatch, tmp_path, random_state=3)
    with pytest.warns(CheckpointWarning, match=r"this one does not continue: random_state was 3 and is 4; seeds was"):
        detector_in(tmp_path, random_state=4).fit(X, y)


def test_finished_and_running_fits_are_no_reason_to_warn(tmp_path, monkeypatch):
    detector_in(tmp_path).fit(X, y)
    detector_in(tmp_path, random_state=1).fit(X, y)
    abandon(monkeypatch, tmp_path / "other")
    (state,) = (tmp_path / "other").rglob("classifier-000000005.safetensors")
    with in_use(state.parent):
        detector_in(tmp_path / "other", random_state=1).fit(X, y)
    # A fit that ended before its first state has lost nothing.
    with monkeypatch.context() as patched:
        interrupt(patched, 3)
        with pytest.raises(KeyboardInterrupt):
            detector_in(tmp_path / "third").fit(X, y)
    detector_in(tmp_path / "third", random_state=1).fit(X, y)


# ----------------------------------------------------------------- many fits


def test_cross_validation_in_one_folder(tmp_path, monkeypatch):
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    options = {"cv": folds, "error_score": "raise"}
    small = {"fusion": TemperatureFusion(), "alpha": 0.1}
    expected = cross_val_score(detector_in(None, **small), X, y, **options)
    assert_array_equal(cross_val_score(detector_in(tmp_path, **small), X, y, **options), expected)
    assert names_in(tmp_path).count("dense.safetensors") == 3
    monkeypatch.setattr("skdfb.training._run.TrainingRun._run_steps", None)
    assert_array_equal(cross_val_score(detector_in(tmp_path, **small), X, y, **options), expected)


def test_a_grid_search_in_one_folder(tmp_path):
    """Scorers share the networks; another number of held-out images is another training of the same fit."""
    grid = {"scorer": [MSP(), Energy()], "alpha": [0.1, 0.2], "calibration_fraction": ["auto"]}
    search = GridSearchCV(detector_in(tmp_path), grid, cv=StratifiedKFold(2), refit=False, error_score="raise")
    search.fit(X, y)
    names = names_in(tmp_path)
    assert names.count("seeds.safetensors") == 2
    assert names.count("dense.safetensors") == 4


def test_fits_side_by_side_do_not_disturb_each_other(tmp_path):
    """Three at a time, two of which are the same."""
    script = textwrap.dedent(
        f"""
        import sys, warnings
        warnings.simplefilter("error")
        from tests.detector.test_checkpoints import X, detector_in, y
        detector = detector_in({str(tmp_path)!r}, random_state=int(sys.argv[1])).fit(X, y)
        print(detector.score_samples(X[:5]).tolist())
        """
    )
    command = [sys.executable, "-c", script]
    runs = [
        subprocess.Popen([*command, seed], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for seed in ("0", "1")
    ]
    # The third begins with the others, which first import the library.
    while not any(tmp_path.rglob("*.safetensors")) and any(run.poll() is None for run in runs):
        time.sleep(0.01)
    here = detector_in(tmp_path, random_state=0).fit(X, y)
    ended = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], ended
    for seed, (found, _) in enumerate(ended):
        alone = detector_in(None, random_state=seed).fit(X, y)
        assert_array_equal(json.loads(found), alone.score_samples(X[:5]))
        if seed == 0:
            assert_same(here, alone)
    assert names_in(tmp_path).count("dense.safetensors") == 2


def test_seeds_that_were_drawn_side_by_side_are_not_mixed(tmp_path, monkeypatch):
    """Without a random_state, the states of one fit must not be continued with the seeds of another one."""
    first = detector_in(tmp_path, random_state=None).fit(X, y)
    (seeds,) = tmp_path.rglob("seeds.safetensors")
    content = seeds.read_bytes()
    seeds.unlink()
    second = detector_in(tmp_path, random_state=None).fit(X, y)
    assert (first.score_samples(X) != second.score_samples(X)).any()
    seeds.write_bytes(content)
    assert_same(detector_in(tmp_path, random_state=None).fit(X, y), first)


OFTEN = clone(TRAINER).set_params(checkpoint_every=2)


@pytest.mark.parametrize(
    "changes",
    [{"scorer": Energy()}, {"alpha": 0.2}, {"n_jobs": 2}, {"batch_size": 7}, {"dense_trainer": OFTEN}],
    ids=str,
)
def test_parameters_that_no_network_depends_on_may_change(tmp_path, changes):
    first = detector_in(tmp_path).fit(X, y)
    second = detector_in(tmp_path, **changes).fit(X, y)
    assert all(torch.equal(a, b) for a, b in zip(weights_of(first).values(), weights_of(second).values(), strict=True))


def test_other_held_out_images_are_another_training(tmp_path):
    """They depend on what the threshold needs, if the fraction is left to that."""
    detector_in(tmp_path, calibration_fraction="auto").fit(X, y)
    detector = detector_in(tmp_path, calibration_fraction="auto", alpha=0.04).fit(X, y)
    alone = plain_detector(
        classifier_trainer=TRAINER, dense_trainer=TRAINER, calibration_fraction="auto", alpha=0.04
    ).fit(X, y)
    assert_same(detector, alone)
    assert names_in(tmp_path).count("seeds.safetensors") == 1


@pytest.mark.parametrize("package", ["skdfb", "torch"])
def test_a_fit_of_another_version_starts_anew(tmp_path, monkeypatch, package):
    abandon(monkeypatch, tmp_path)
    version = importlib.metadata.version
    other = {package: "0.0.1"}
    monkeypatch.setattr("importlib.metadata.version", lambda name: other.get(name) or version(name))
    with pytest.warns(CheckpointWarning, match=f"{package} was .* and is '?0.0.1"):
        detector_in(tmp_path).fit(X, y)


# --------------------------------------------------------------------- full disks


def full_disk(monkeypatch, after):
    write = _checkpoints.write_file
    written = []

    def failing(path, text, tensors):
        if len(written) >= after:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path.name)
        write(path, text, tensors)

    monkeypatch.setattr(_checkpoints, "write_file", failing)


def test_a_folder_that_cannot_be_written_to_fails_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr("skdfb.training._run.TrainingRun._run_steps", None)
    full_disk(monkeypatch, after=0)
    with pytest.raises(CheckpointError, match=r"cannot be written to .*No space left on device.*pass another folder"):
        detector_in(tmp_path / "new").fit(X, y)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file"):
        detector_in(tmp_path / "file").fit(X, y)


def test_a_full_disk_does_not_end_a_training(tmp_path, monkeypatch):
    uninterrupted = plain_detector(classifier_trainer=TRAINER, dense_trainer=TRAINER).fit(X, y)
    with monkeypatch.context() as patched:
        full_disk(patched, after=4)
        with pytest.warns(CheckpointWarning, match=r"cannot be written to .*No space left.* continues without it"):
            detector = detector_in(tmp_path).fit(X, y)
    assert_same(detector, uninterrupted)
    # The files that were written before are complete, and are used.
    assert names_in(tmp_path) == [
        "classifier-000000005.safetensors",
        "seeds.safetensors",
        "split.safetensors",
    ]
    assert_same(detector_in(tmp_path).fit(X, y), uninterrupted)


# ------------------------------------------------------------------ a killed process


def test_a_process_that_is_killed(tmp_path):
    """SIGKILL in the dense stage, directly after its first checkpoint."""
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        from skdfb.training import _checkpoints
        from tests.detector.test_checkpoints import X, detector_in, y
        keep = _checkpoints.StageCheckpoints.keep

        def keep_and_die(self, step, *rest):
            keep(self, step, *rest)
            if self.name == "dense":
                os.kill(os.getpid(), signal.SIGKILL)

        _checkpoints.StageCheckpoints.keep = keep_and_die
        detector_in({str(tmp_path)!r}).fit(X, y)
        """
    )
    ended = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert ended.returncode == -9, ended.stderr
    assert set(names_in(tmp_path)) >= {"classifier.safetensors", "masks.safetensors"}
    detector = detector_in(tmp_path).fit(X, y)
    assert_same(detector, plain_detector(classifier_trainer=TRAINER, dense_trainer=TRAINER).fit(X, y))
