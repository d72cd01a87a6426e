"""After any public call, also one that fails or is interrupted, the process is as it was before."""

import contextlib
import gc
import logging
import os
import random
import threading
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torch import nn

import skdfb
from skdfb import CAMMaskGenerator, Trainer
from skdfb.augmentation import BackMix
from skdfb.evaluation import compare_scorers, evaluate
from skdfb.exceptions import UnreadableImageError
from skdfb.masks import AffinityMaskGenerator, DenseMaskGenerator, NormalizedCutMaskGenerator
from skdfb.networks import DenseClassifier
from skdfb.scorers import MSP, ODIN, Energy, MaSF
from tests.detector.conftest import CLASSES, SIDE, make_detector, make_images, tiny_backbone


def state_of_the_process() -> dict[str, Any]:
    """All that a library could change for others."""
    return {
        "random": random.getstate(),
        "numpy": [part.tobytes() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],  # noqa: NPY002
        "torch": torch.get_rng_state().numpy().tobytes(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "threads of torch": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "autocast": (
            torch.is_autocast_enabled("cpu"),
            torch.is_autocast_enabled("cuda"),
            torch.is_autocast_cache_enabled(),
        ),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
        ),
        "precision": (
            torch.get_float32_matmul_precision(),
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cudnn.allow_tf32,
        ),
        "printing": np.get_printoptions(),
        "errors of NumPy": np.geterr(),
        "warnings": list(warnings.filters),
        "logging": (logging.root.level, list(logging.root.handlers), logging.root.manager.disable),
        "pillow": (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES),
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "threads": {thread.name for thread in threading.enumerate()},
        "files": open_files(),
    }


def open_files() -> list[str]:
    gc.collect()
    found = []
    for handle in Path("/proc/self/fd").iterdir() if Path("/proc/self/fd").is_dir() else ():
        with contextlib.suppress(OSError):
            found.append(str(handle.readlink()))
    return sorted(name for name in found if name.startswith("/") and not name.startswith("/dev"))


@pytest.fixture(autouse=True)
def unusual(monkeypatch):
    """Settings that no library would leave so by chance."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    random.seed(3)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.benchmark = False


@contextlib.contextmanager
def nothing_changes():
    before = state_of_the_process()
    yield
    after = state_of_the_process()
    for name, value in before.items():
        assert after[name] == value, name


def test_a_change_is_seen():
    with pytest.raises(AssertionError, match="numpy"), nothing_changes():
        np.random.rand()  # noqa: NPY002
    with pytest.raises(AssertionError, match="files"), nothing_changes():
        kept = Path(__file__).open()  # noqa: SIM115
    kept.close()


class Interrupted(nn.Module):
    """A backbone that a user, or an error, interrupts in the n-th pass from now."""

    left = 10**9
    error: ClassVar[type[BaseException]] = KeyboardInterrupt

    def __init__(self) -> None:
        super().__init__()
        self.backbone = tiny_backbone()
        self.dropout = nn.Dropout(0.1)

    def forward(self, images):
        Interrupted.left -= 1
        if Interrupted.left < 0:
            raise Interrupted.error("interrupted")
        return self.dropout(self.backbone(images))


def detector(**changes):
    trainer = Trainer(max_steps=4, batch_size=16, learning_rate=0.1)
    return make_detector(
        **{
            "backbone": Interrupted(),
            "scorer": Energy(),
            "classifier_trainer": trainer,
            "dense_trainer": trainer,
            "n_jobs": 2,
        }
        | changes
    )


@pytest.fixture(scope="module")
def fitted():
    return detector().fit(*make_images())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / f"{index}.png" for index in range(24)]
    for path, image in zip(paths, make_images(24)[0], strict=True):
        Image.fromarray(image).save(path)
    return paths


X, y = make_images()
X_new = make_images(24, seed=1)[0]
FEW = Trainer(max_steps=4, batch_size=16)
OFTEN = Trainer(max_steps=4, batch_size=16, checkpoint_every=2)

# With a random_state each: without one, scikit-learn's convention is to draw from NumPy's global generator.
CALLS = {
    "fit": lambda fitted, tmp: detector().fit(X, y),
    "fit without labels": lambda fitted, tmp: detector().fit(X),
    "fit with checkpoints": lambda fitted, tmp: detector(checkpoint_dir=tmp / "kept", classifier_trainer=OFTEN).fit(
        X, y
    ),
    "fit with a bar": lambda fitted, tmp: detector(verbose=1).fit(X, y),
    "fit a scorer of layers": lambda fitted, tmp: detector(scorer=MaSF()).fit(X, y),
    "fit in bfloat16": lambda fitted, tmp: detector(
        dense_trainer=Trainer(max_steps=2, batch_size=16, precision="bf16-mixed")
    ).fit(X, y),
    "fit with BackMix": lambda fitted, tmp: detector(
        classifier_trainer=Trainer(max_steps=4, batch_size=16, augmentation=BackMix())
    ).fit(X, y),
    "predict": lambda fitted, tmp: fitted.predict(X_new),
    "predict_proba": lambda fitted, tmp: fitted.predict_proba(X_new),
    "predict_open_set": lambda fitted, tmp: fitted.predict_open_set(X_new),
    "p_values": lambda fitted, tmp: fitted.p_values(X_new),
    "segment": lambda fitted, tmp: fitted.segment(X_new),
    "transform": lambda fitted, tmp: fitted.transform(X_new),
    "refit_scorer": lambda fitted, tmp: fitted.refit_scorer(ODIN(), X, y).score_samples(X_new),
    "save and load": lambda fitted, tmp: [
        fitted.save(tmp / "model"),
        skdfb.load(tmp / "model", customs=[Interrupted]),
    ],
    "evaluate": lambda fitted, tmp: evaluate(fitted, X_new, {"ood": X_new[::-1]}, random_state=0),
    "compare_scorers": lambda fitted, tmp: compare_scorers(
        fitted, X_new, {"ood": X_new}, scorers=[MSP(), Energy()], X=X, y=y
    ),
    "CAM masks": lambda fitted, tmp: CAMMaskGenerator(Interrupted(), trainer=FEW, random_state=0).fit_transform(X, y),
    "affinity masks": lambda fitted, tmp: AffinityMaskGenerator(
        CAMMaskGenerator(Interrupted(), trainer=FEW, random_state=0)
    ).fit_transform(X, y),
    "dense masks": lambda fitted, tmp: DenseMaskGenerator(
        Interrupted(), trainer=FEW, dense_trainer=FEW, random_state=0
    ).fit_transform(X, y),
    "normalized cut masks": lambda fitted, tmp: NormalizedCutMaskGenerator(Interrupted(), batch_size=8).fit_transform(
        X, y
    ),
    "Trainer.train": lambda fitted, tmp: FEW.train(
        DenseClassifier(Interrupted(), CLASSES, image_size=SIDE), X, y, random_state=0
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_after_a_call(fitted, tmp_path, call, monkeypatch):
    monkeypatch.setattr(Interrupted, "left", 10**9)
    with nothing_changes():
        CALLS[call](fitted, tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("passes", [0, 3])
@pytest.mark.parametrize("call", [name for name in CALLS if name != "save and load"])
def test_after_a_call_that_is_cut_short(fitted, tmp_path, call, passes, error, monkeypatch):
    if call in ("predict", "predict_proba", "predict_open_set", "p_values", "segment", "transform", "evaluate"):
        passes = 0  # they take no more than two
    monkeypatch.setattr(Interrupted, "error", error)
    monkeypatch.setattr(Interrupted, "left", passes)
    flags = [module.training for module in fitted.dense_network_.modules()]
    # An error in the trial of an image size says that the backbone does not take it, or is a warning of that.
    with nothing_changes(), pytest.raises((error, ValueError, UserWarning)):
        CALLS[call](fitted, tmp_path)
    assert [module.training for module in fitted.dense_network_.modules()] == flags


@pytest.mark.parametrize("passes", [5, 9, 12])
def test_a_fit_that_is_cut_short_later(fitted, passes, monkeypatch):
    monkeypatch.setattr(Interrupted, "left", passes)
    unfitted = detector()
    attributes = set(vars(unfitted))
    with nothing_changes(), pytest.raises(KeyboardInterrupt):
        unfitted.fit(X, y)
    assert set(vars(unfitted)) == attributes


def test_after_an_unreadable_file(fitted, files, monkeypatch):
    monkeypatch.setattr(Interrupted, "left", 10**9)
    spoiled = [*files[:-1], files[-1].with_name("gone.png")]
    with nothing_changes(), pytest.raises(UnreadableImageError):
        fitted.predict(spoiled)


def test_settings_of_the_caller_hold_inside(monkeypatch):
    """A default dtype, gradients switched off: results are as without them, and they stay."""
    monkeypatch.setattr(Interrupted, "left", 10**9)
    expected = detector().fit(X, y).score_samples(X_new)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), nothing_changes():
            found = detector(backbone=Interrupted().float()).fit(X, y).score_samples(X_new)
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_the_callers_deterministic_algorithms_are_used(monkeypatch):
    """The switch is torch's: what the caller has set holds in every call, and stays."""
    monkeypatch.setattr(Interrupted, "left", 10**9)
    enabled = []

    class Witness(Interrupted):
        def forward(self, images):
            enabled.append(torch.are_deterministic_algorithms_enabled())
            return super().forward(images)

    torch.use_deterministic_algorithms(True)
    try:
        with nothing_changes():
            first, second = (detector(backbone=Witness()).fit(X, y) for _ in range(2))
            scores = first.score_samples(X_new)
            first.refit_scorer(ODIN(), X, y)
            compare_scorers(first, X_new, {"ood": X_new}, scorers=[ODIN()], X=X, y=y)
    finally:
        torch.use_deterministic_algorithms(False)
    np.testing.assert_array_equal(second.score_samples(X_new), scores)
    assert all(enabled[:-1])
