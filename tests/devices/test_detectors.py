"""Detectors, masks and files on the pretended device give what they give on the CPU, to the last bit."""

import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import skdfb
from skdfb import DFBDetector, FrozenDetector
from skdfb.augmentation import BackMix
from skdfb.scorers import KNN, Representation, TemperatureScaled
from skdfb.scoring import _part_scores
from tests.detector.conftest import make_detector, make_images
from tests.detector.test_early_checks import SHIPPED
from tests.detector.test_pretrained import pretrained_backbone
from tests.devices.cases import (
    DETECTORS,
    GENERATORS,
    DistanceToMean,
    backbone,
    generator_on,
    interrupted_in_the_dense_stage,
    on,
    shipped_scorer,
    trained,
)
from tests.devices.pretend import pretended_device
from tests.helpers import TinyBackbone

pytestmark = pytest.mark.usefixtures("crossings")
DEVICE = "pretend"
X, Y = make_images()
X_NEW = make_images(24, seed=1)[0]


@pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")
@pytest.mark.parametrize("name", [*DETECTORS, "stochastic depth"])
def test_fit_and_score(name: str) -> None:
    # A GPU draws other numbers than a CPU, but the pretended device draws the same.
    stochastic = backbone("test_resnet", output_stride=8, drop_path_rate=0.5)
    detectors = DETECTORS | {"stochastic depth": make_detector(backbone=stochastic, image_size=32, **trained())}
    first, second = (on(device, detectors[name]).fit(X, Y) for device in ("cpu", DEVICE))
    assert second.dense_network_.device.type == DEVICE
    # PyTorch has a kernel of its own for attention on the CPU, which rounds in another way.
    tolerance = 1e-4 if name == "ViT" else 0
    for stage, history in first.training_history_.items():
        assert_allclose(second.training_history_[stage]["loss"], history["loss"], rtol=tolerance)
    assert_allclose(second.score_samples(X_NEW), first.score_samples(X_NEW), rtol=tolerance)


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[DFBDetector, DFBDetector]]:
    """A detector on the CPU, and one on the device."""
    with pretended_device():
        yield on("cpu", make_detector()).fit(X, Y), on(DEVICE, make_detector()).fit(X, Y)


@pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")
@pytest.mark.parametrize("name", SHIPPED)
def test_every_scorer(pair: tuple[DFBDetector, DFBDetector], name: str) -> None:
    scorer = shipped_scorer(name)
    assert_array_equal(*(detector.refit_scorer(scorer, X=X, y=Y).score_samples(X_NEW) for detector in pair))


@pytest.mark.parametrize(
    "scorer",
    [DistanceToMean(), KNN(n_neighbors=3), TemperatureScaled(DistanceToMean()), TemperatureScaled(KNN(n_neighbors=3))],
    ids=["NumPy", "large", "NumPy inside", "large inside"],
)
def test_a_scorer_that_stays_on_the_cpu(
    pair: tuple[DFBDetector, DFBDetector], scorer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Because it is written in NumPy, or keeps so much that it would take the memory of the batches."""
    monkeypatch.setattr(_part_scores, "LARGEST_KEPT", 1000)
    devices = set()

    def noted(representation: Representation) -> Any:
        devices.add(representation.device.type)
        return score_samples(representation)

    refitted = [detector.refit_scorer(scorer, X=X, y=Y) for detector in pair]
    part = refitted[1].part_scorers_["foreground"]
    score_samples, part.score_samples = part.score_samples, noted
    assert_array_equal(*(detector.score_samples(X_NEW) for detector in refitted))
    assert devices == {"cpu"}


def test_every_method(pair: tuple[DFBDetector, DFBDetector]) -> None:
    for name in (
        "predict",
        "classify",
        "decision_function",
        "p_values",
        "predict_open_set",
        "predict_proba",
        "score_foreground",
        "score_background",
        "segment",
        "transform",
    ):
        first, second = (getattr(detector, name)(X_NEW) for detector in pair)
        assert_array_equal(first, second, err_msg=name)
    first, second = (detector.explain(X_NEW).to_frame() for detector in pair)
    assert first.equals(second)
    assert_array_equal(*([row.score for row in detector.iter_scores(iter(X_NEW))] for detector in pair))


def test_frozen() -> None:
    detectors = [
        on(device, FrozenDetector(pretrained_backbone(), image_size=32)).fit(X, Y) for device in ("cpu", DEVICE)
    ]
    assert_array_equal(*(detector.score_samples(X_NEW) for detector in detectors))


@pytest.mark.parametrize("name", GENERATORS)
def test_masks_alone(pair: tuple[DFBDetector, DFBDetector], name: str) -> None:
    for y in (Y, None):
        generators = (generator_on(device, name, pair[0].classifier_).fit(X, Y) for device in ("cpu", DEVICE))
        assert_array_equal(*(generator.transform(X, y) for generator in generators))


@pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")
def test_in_a_pipeline() -> None:
    pipelines = [
        make_pipeline(FunctionTransformer(), on(device, make_detector(**trained()))).fit(X, Y)
        for device in ("cpu", DEVICE)
    ]
    assert_array_equal(*(pipeline.score_samples(X_NEW) for pipeline in pipelines))


@pytest.mark.parametrize(("began", "going_on"), [(DEVICE, DEVICE), (DEVICE, "cpu"), ("cpu", DEVICE)])
def test_a_training_goes_on(began: str, going_on: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on another device than it began on."""
    options = trained(optimizer="adamw", augmentation=BackMix(), checkpoint_every=2)
    whole = on("cpu", make_detector(**options)).fit(X, Y)
    begun = on(began, make_detector(**options, checkpoint_dir=tmp_path))
    with interrupted_in_the_dense_stage(monkeypatch):
        begun.fit(X, Y)
    after = on(going_on, make_detector(**options, checkpoint_dir=tmp_path)).fit(X, Y)
    assert_array_equal(whole.score_samples(X_NEW), after.score_samples(X_NEW))


def test_files(pair: tuple[DFBDetector, DFBDetector], tmp_path: Any) -> None:
    expected = pair[0].score_samples(X_NEW)
    for number, (detector, device) in enumerate(zip(pair, (DEVICE, "cpu"), strict=True)):
        path = tmp_path / f"{number}.safetensors"
        skdfb.save(detector, path)
        loaded = skdfb.load(path, device=device, customs=[TinyBackbone])
        assert loaded.dense_network_.device.type == device
        assert_array_equal(loaded.score_samples(X_NEW), expected)


def test_pickle(pair: tuple[DFBDetector, DFBDetector]) -> None:
    """A pickle of the device can be read where there is none."""
    data = pickle.dumps(pair[1])
    copied = pickle.loads(data)
    assert copied.dense_network_.device.type == DEVICE
    assert_array_equal(copied.score_samples(X_NEW), pair[0].score_samples(X_NEW))
