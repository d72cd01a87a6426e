"""The detector on a GPU says what it says on a CPU, and takes what scorers are written in."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from skdfb import CAMMaskGenerator, Trainer
from skdfb.augmentation import BackMix
from skdfb.exceptions import BatchSizeWarning
from skdfb.networks import create_backbone
from skdfb.scorers import MSP, ODIN, Energy, ViM
from skdfb.utils import resolve_device
from tests.detector.conftest import make_detector, make_images

skops = pytest.importorskip("skops.io")
pytestmark = pytest.mark.gpu

READ = """
import sys
import numpy as np, torch
import skops.io as skops
from tests.detector.conftest import make_images
assert not torch.cuda.is_available()
detector, scores = skops.load(sys.argv[1], trusted=skops.get_untrusted_types(file=sys.argv[1]))
np.testing.assert_allclose(detector.score_samples(make_images()[0]), scores, rtol=1e-2, atol=1e-2)
"""


class DistanceToMean:
    """A scorer in NumPy, as a user would write it."""

    def fit(self, representation, y):
        self.mean_ = np.asarray(representation.features).mean(0)
        return self

    def score_samples(self, representation):
        return -np.linalg.norm(np.asarray(representation.features) - self.mean_, axis=1)


@pytest.fixture(scope="module")
def on_gpu():
    X, y = make_images()
    return make_detector(device="cuda").fit(X, y)


def moved_to_cpu(detector):
    for network in (detector.classifier_, detector.dense_network_):
        network.to("cpu")
    return detector


def test_auto_is_the_gpu():
    assert resolve_device("auto").type == "cuda"


@pytest.mark.parametrize("scorer", [MSP(), ODIN(), Energy(), ViM(), DistanceToMean()], ids=lambda s: type(s).__name__)
def test_scores_are_those_of_the_cpu(scorer):
    X, y = make_images()
    X_new = make_images(24, seed=1)[0]
    detector = make_detector(device="cuda", scorer=scorer, batch_size=7).fit(X, y)
    assert detector.dense_network_.device.type == "cuda"
    scores, parts = detector.score_samples(X_new), detector.score_parts(X_new)
    detector.batch_size = 24
    np.testing.assert_allclose(detector.score_samples(X_new), scores, rtol=1e-3, atol=1e-3)
    moved_to_cpu(detector)
    # Convolutions of a GPU may be rounded to TF32, which has 10 bits.
    np.testing.assert_allclose(detector.score_samples(X_new), scores, rtol=1e-2, atol=1e-2)
    for name, values in detector.score_parts(X_new).items():
        np.testing.assert_allclose(values, parts[name], rtol=1e-2, atol=1e-2)


def test_every_method_runs(on_gpu):
    X_new = make_images(24, seed=1)[0]
    assert set(on_gpu.predict(X_new)) <= {-1, 1}
    assert on_gpu.classify(X_new).shape == on_gpu.p_values(X_new).shape == on_gpu.predict_open_set(X_new).shape == (24,)
    np.testing.assert_allclose(on_gpu.predict_proba(X_new).sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(on_gpu.segment(X_new).sum(-1), 1, rtol=1e-5)
    assert on_gpu.transform(X_new).shape == (24, on_gpu.dense_network_.num_features)
    assert on_gpu.refit_scorer(Energy()).score_samples(X_new).shape == (24,)


def test_conversion_is_exact(on_gpu):
    network = on_gpu.dense_network_
    images = torch.rand(8, 3, 16, 16, device="cuda")
    with torch.no_grad():
        feature_map = network.feature_map(images)
        expected = network.head(feature_map.mean((2, 3)))
        torch.testing.assert_close(network.map_head(feature_map).mean((2, 3)), expected, rtol=1e-5, atol=1e-5)


def test_masks_are_those_of_the_cpu(on_gpu):
    X, y = make_images()
    maps = [
        CAMMaskGenerator(on_gpu.classifier_, device=device).fit(X, y).attention_maps(X, y) for device in ("cuda", "cpu")
    ]
    np.testing.assert_allclose(*maps, atol=2e-2)


def test_bf16_training_runs():
    X, y = make_images()
    trainer = make_detector().classifier_trainer.set_params(precision="bf16-mixed")
    detector = make_detector(device="cuda", classifier_trainer=trainer, dense_trainer=trainer).fit(X, y)
    assert np.isfinite(detector.score_samples(X)).all()


@pytest.fixture
def deterministic_algorithms(monkeypatch):
    """torch's own switch, which a detector leaves alone."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic_algorithms")
def test_deterministic():
    """Twice the same bits."""
    X, y = make_images()
    first, second = (make_detector(device="cuda").fit(X, y) for _ in range(2))
    for weight, other in zip(first.dense_network_.parameters(), second.dense_network_.parameters(), strict=True):
        assert torch.equal(weight, other)
    np.testing.assert_array_equal(first.score_samples(X), second.score_samples(X))


@pytest.mark.usefixtures("deterministic_algorithms")
def test_back_mix():
    X, y = make_images()
    trainer = Trainer(max_steps=10, batch_size=16, learning_rate=0.1, augmentation=BackMix())
    changes = {"device": "cuda", "scorer": Energy()}
    changes |= {"classifier_trainer": trainer, "dense_trainer": trainer}
    first, second = (make_detector(**changes).fit(X, y) for _ in range(2))
    for weight, other in zip(first.dense_network_.parameters(), second.dense_network_.parameters(), strict=True):
        assert torch.equal(weight, other)


def test_skops_files_are_read_without_a_gpu(tmp_path):
    X, y = make_images()
    few = Trainer(max_steps=2, batch_size=16)
    network = {"backbone": create_backbone("test_resnet", pretrained=False, random_state=0), "image_size": 128}
    detector = make_detector(device="cuda", classifier_trainer=few, dense_trainer=few, **network).fit(X, y)
    skops.dump((detector, detector.score_samples(X)), tmp_path / "model.skops")
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", READ, str(tmp_path / "model.skops")], env=environment, check=True)


def test_memory_that_is_too_short(on_gpu):
    """The batch is halved until it fits into what is left to this process."""
    X = np.tile(make_images(24)[0], (200, 1, 1, 1))  # 4,800 images: some megabytes a feature map
    expected = on_gpu.score_samples(X)
    on_gpu.set_params(batch_size=len(X))
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 24 * 2**20) / total)
    try:
        with pytest.warns(BatchSizeWarning, match=f"{len(X)} images do not fit"):
            scores = on_gpu.score_samples(X)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        on_gpu.set_params(batch_size=128)
    assert on_gpu.batch_size_ < len(X)
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-3)
