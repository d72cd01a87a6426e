"""The detector on a GPU says what it says on a CPU, and takes what scorers are written in.

``SKDFB_GPU=cpu python -m pytest -m gpu tests/detector/test_gpu.py`` tries most of these tests without a GPU.
"""

import os
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import skdfb
from skdfb import CAMMaskGenerator, Trainer
from skdfb.augmentation import BackMix
from skdfb.exceptions import BatchSizeWarning
from skdfb.networks import DenseClassifier, create_backbone
from skdfb.scorers import MSP, ODIN, Energy, ViM
from skdfb.utils import resolve_device
from tests.detector.conftest import SIDE, make_detector, make_images, tiny_backbone
from tests.detector.test_early_checks import SHIPPED
from tests.devices.cases import (
    DETECTORS,
    GENERATORS,
    SCORING,
    DistanceToMean,
    generator_on,
    interrupted_in_the_dense_stage,
    on,
    shipped_scorer,
    trained,
)
from tests.helpers import TinyBackbone

skops = pytest.importorskip("skops.io")
GPU = os.environ.get("SKDFB_GPU", "cuda")
needs_cuda = pytest.mark.skipif(GPU == "cpu", reason="shows what only CUDA does")
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")]

READ = """
import sys
import numpy as np, torch
import skops.io as skops
from tests.detector.conftest import make_images
assert not torch.cuda.is_available()
detector, scores = skops.load(sys.argv[1], trusted=skops.get_untrusted_types(file=sys.argv[1]))
np.testing.assert_allclose(detector.score_samples(make_images()[0]), scores, rtol=1e-2, atol=1e-2)
"""


@pytest.fixture(scope="module")
def on_gpu():
    X, y = make_images()
    return make_detector(device=GPU, alpha=0.1).fit(X, y)


@pytest.fixture
def full_precision() -> Iterator[None]:
    """Convolutions without TF32, whose 10 bits would hide small mistakes."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False, deterministic=True):
        yield


def moved_to_cpu(detector):
    for network in (detector.classifier_, detector.dense_network_):
        network.to("cpu")
    return detector


@needs_cuda
def test_auto_is_the_gpu():
    assert resolve_device("auto").type == "cuda"


@pytest.mark.parametrize("scorer", [MSP(), ODIN(), Energy(), ViM(), DistanceToMean()], ids=lambda s: type(s).__name__)
def test_scores_are_those_of_the_cpu(scorer):
    X, y = make_images()
    X_new = make_images(24, seed=1)[0]
    detector = make_detector(device=GPU, scorer=scorer, batch_size=7).fit(X, y)
    assert detector.dense_network_.device.type == GPU
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
    images = torch.rand(8, 3, 16, 16, device=GPU)
    with torch.no_grad():
        feature_map = network.feature_map(images)
        expected = network.head(feature_map.mean((2, 3)))
        torch.testing.assert_close(network.map_head(feature_map).mean((2, 3)), expected, rtol=1e-5, atol=1e-5)


def test_masks_are_those_of_the_cpu(on_gpu):
    X, y = make_images()
    maps = [
        CAMMaskGenerator(on_gpu.classifier_, device=device).fit(X, y).attention_maps(X, y) for device in (GPU, "cpu")
    ]
    np.testing.assert_allclose(*maps, atol=2e-2)


def test_bf16_training_runs():
    X, y = make_images()
    trainer = make_detector().classifier_trainer.set_params(precision="bf16-mixed")
    detector = make_detector(device=GPU, classifier_trainer=trainer, dense_trainer=trainer).fit(X, y)
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
    first, second = (make_detector(device=GPU).fit(X, y) for _ in range(2))
    for weight, other in zip(first.dense_network_.parameters(), second.dense_network_.parameters(), strict=True):
        assert torch.equal(weight, other)
    np.testing.assert_array_equal(first.score_samples(X), second.score_samples(X))


@pytest.mark.usefixtures("deterministic_algorithms")
def test_back_mix():
    X, y = make_images()
    trainer = Trainer(max_steps=10, batch_size=16, learning_rate=0.1, augmentation=BackMix())
    changes = {"device": GPU, "scorer": Energy()}
    changes |= {"classifier_trainer": trainer, "dense_trainer": trainer}
    first, second = (make_detector(**changes).fit(X, y) for _ in range(2))
    for weight, other in zip(first.dense_network_.parameters(), second.dense_network_.parameters(), strict=True):
        assert torch.equal(weight, other)


def test_skops_files_are_read_without_a_gpu(tmp_path):
    X, y = make_images()
    few = Trainer(max_steps=2, batch_size=16)
    network = {"backbone": create_backbone("test_resnet", pretrained=False, random_state=0), "image_size": 128}
    detector = make_detector(device=GPU, classifier_trainer=few, dense_trainer=few, **network).fit(X, y)
    detector.backbone = "test_resnet"  # skops has no type for torch modules
    skops.dump((detector, detector.score_samples(X)), tmp_path / "model.skops")
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(paths),
    }
    subprocess.run([sys.executable, "-c", READ, str(tmp_path / "model.skops")], env=environment, check=True)


@contextmanager
def only(megabytes: int) -> Iterator[None]:
    """Leave so much of the GPU's memory to this process, beside what it has."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + megabytes * 2**20) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@needs_cuda
@pytest.mark.usefixtures("full_precision")  # the kernel depends on the batch, and each rounds to TF32 in its own way
def test_memory_that_is_too_short(on_gpu):
    """The batch is halved until it fits into what is left to this process."""
    X = np.tile(make_images(24)[0], (200, 1, 1, 1))  # 4,800 images: some megabytes a feature map
    expected = on_gpu.score_samples(X)
    on_gpu.set_params(batch_size=len(X))
    try:
        with only(24), pytest.warns(BatchSizeWarning, match=f"{len(X)} images do not fit"):
            scores = on_gpu.score_samples(X)
    finally:
        on_gpu.set_params(batch_size=128)
    assert on_gpu.batch_size_ < len(X)
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-3)


@needs_cuda
@pytest.mark.usefixtures("full_precision")
def test_memory_that_is_too_short_for_a_training_step():
    X, y = (np.concatenate([part] * 100) for part in make_images(24))  # 2,400 images
    trainer = Trainer(max_steps=3, batch_size=len(X), flip=False, scale_range=None, learning_rate=0.1)

    def losses() -> list[float]:
        torch.manual_seed(0)
        network = DenseClassifier(TinyBackbone(width=64), 3, image_size=SIDE)  # activations larger than the images
        return trainer.train(network, X, y, device=GPU, random_state=0)["loss"]

    expected = losses()
    with only(80), pytest.warns(BatchSizeWarning, match=f"{len(X)} images do not fit"):
        found = losses()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


# ------------------------------------------------------------- everything, against the CPU


def scores_of_both(detector: Any, path: Path, X: Any) -> list[Any]:
    """Return the scores on the GPU, and on the CPU after it was saved and loaded."""
    skdfb.save(detector, path)
    loaded = skdfb.load(path, device="cpu", customs=[TinyBackbone])
    assert (detector.dense_network_.device.type, loaded.dense_network_.device.type) == (GPU, "cpu")
    return [detector.score_samples(X), loaded.score_samples(X)]


@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize("name", DETECTORS)
def test_fit_and_score(name: str, tmp_path: Path) -> None:
    X, y = make_images()
    first, second = (on(device, DETECTORS[name]).fit(X, y) for device in ("cpu", GPU))
    for stage, history in first.training_history_.items():
        np.testing.assert_allclose(second.training_history_[stage]["loss"], history["loss"], rtol=1e-2, atol=1e-3)
    scores = scores_of_both(second, tmp_path / "model.safetensors", make_images(24, seed=1)[0])
    np.testing.assert_allclose(*scores, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize("name", SHIPPED)
def test_every_scorer(on_gpu: Any, name: str, tmp_path: Path) -> None:
    X, y = make_images()
    detector = on_gpu.refit_scorer(shipped_scorer(name), X=X, y=y)
    scores = scores_of_both(detector, tmp_path / "model.safetensors", make_images(24, seed=1)[0])
    np.testing.assert_allclose(*scores, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize("enlarged", [1, 20])  # large images are read by a thread of its own
def test_grey_images(enlarged: int, tmp_path: Path) -> None:
    """Their three channels share memory, which cannot be pinned."""
    (X, y), X_new = make_images(), make_images(24, seed=1)[0]
    X, X_new = (images[..., 0].repeat(enlarged, 1).repeat(enlarged, 2) for images in (X, X_new))
    few = Trainer(max_steps=2, batch_size=16)
    changes = {"device": GPU, "image_size": SIDE, "classifier_trainer": few, "dense_trainer": few}
    detector = make_detector(**changes, mask_generator=CAMMaskGenerator(mask_size=SIDE)).fit(X, y)
    scores = scores_of_both(detector, tmp_path / "model.safetensors", X_new)
    np.testing.assert_allclose(*scores, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize("name", GENERATORS)
def test_masks_alone(on_gpu: Any, name: str) -> None:
    X, y = make_images()
    generators = (generator_on(device, name, on_gpu.classifier_) for device in ("cpu", GPU))
    masks = [np.asarray(generator.fit(X, y).transform(X, y)) for generator in generators]
    assert np.mean(masks[0] == masks[1]) > 0.99  # a pixel at the threshold may fall on either side


@pytest.mark.parametrize(("begun_on", "ended_on"), [("cpu", GPU), (GPU, "cpu"), (GPU, GPU)])
@pytest.mark.usefixtures("full_precision")
def test_a_training_goes_on(begun_on: str, ended_on: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = make_images()
    options = trained(optimizer="adamw", augmentation=BackMix(), checkpoint_every=2)
    whole = on("cpu", make_detector(**options)).fit(X, y)
    with interrupted_in_the_dense_stage(monkeypatch):
        on(begun_on, make_detector(**options, checkpoint_dir=tmp_path)).fit(X, y)
    after = on(ended_on, make_detector(**options, checkpoint_dir=tmp_path)).fit(X, y)
    X_new = make_images(24, seed=1)[0]
    np.testing.assert_allclose(after.score_samples(X_new), whole.score_samples(X_new), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_scores_of_views_are_those_of_the_cpu(on_gpu, precision):
    """To the precision of float32, whatever the caller lets torch do with its factors."""
    views = on_gpu.represent(make_images(24, seed=1)[0], ["dense", "background"])
    for name, scorer_class in SHIPPED.items():
        scorer = ODIN(input_perturbation=0) if name == "ODIN" else shipped_scorer(name)
        if not hasattr(scorer_class, "score_on_device") or getattr(scorer, "needs_activations", ()):
            continue
        scorer.fit(views["dense"], np.arange(24) % 3)
        expected = scorer.score_samples(views["dense"])
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            found = scorer.score_on_device(views["dense"].to(GPU))
        finally:
            torch.set_float32_matmul_precision(before)
        assert found.device.type == GPU
        np.testing.assert_allclose(found.numpy(force=True), expected, rtol=1e-4, atol=1e-4, err_msg=name)


# ------------------------------------------------------------- waits for the GPU


def waits(work: Callable[[], Any]) -> Counter[str]:
    """Return where the CPU waits for the GPU, and how often."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return Counter(f"{w.filename}:{w.lineno}" for w in found if "synchronizing CUDA" in str(w.message))


@needs_cuda
@pytest.mark.parametrize("dense", [False, True], ids=["classifier", "dense"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mixup": 0.1, "scale_range": (0.2, 1.0)},
        {"augmentation": BackMix()},
        {"clip_grad_norm": 0.1, "optimizer": "adamw"},
        {"precision": "bf16-mixed"},
    ],
    ids=str,
)
def test_a_training_step_waits_for_nothing(changes: dict[str, Any], dense: bool) -> None:
    X, y = make_images()
    masks = np.random.default_rng(0).integers(0, 4, (60, 16, 16)).astype(np.uint8) if dense else None

    def train(n_steps: int) -> Counter[str]:
        network = DenseClassifier(tiny_backbone(), 3 + dense, image_size=SIDE)
        trainer = Trainer(max_steps=n_steps, batch_size=16, **changes)
        return waits(lambda: trainer.train(network, X, y, masks, device=GPU, random_state=0))

    train(5)
    few, many = train(10), train(40)
    assert many - few == Counter(), many - few


@needs_cuda
@pytest.mark.parametrize("name", ["paper", "pre-trained", "frozen", "ViM"])
def test_a_batch_of_scores_waits_only_for_its_copy(name: str) -> None:
    detector = SCORING[name]().set_params(device=GPU, alpha=0.1, batch_size=8).fit(*make_images(120))
    detector.score_samples(make_images(8, seed=1)[0])
    few, many = (waits(lambda n=n: detector.score_samples(make_images(8 * n, seed=1)[0])) for n in (2, 12))
    # It waits for its copy by an event, which torch does not count: for nothing else.
    assert many - few == Counter(), many - few


@needs_cuda
def test_a_batch_of_masks_waits_only_for_its_copy() -> None:
    network = DenseClassifier(tiny_backbone(), 3, image_size=SIDE).to(GPU).eval()
    found = []
    for n_batches in (1, 2, 12):
        images, labels = make_images(8 * n_batches)
        generator = CAMMaskGenerator(network, device=GPU, batch_size=8).fit(images, labels)
        found.append(waits(lambda g=generator, X=images, y=labels: g.transform(X, y)))
    assert found[2] - found[1] == Counter(), found[2] - found[1]
