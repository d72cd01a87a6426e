"""Detectors, masks and files on the pretended device give what they give on the CPU, to the last bit."""

import pickle
from collections.abc import Iterator
from inspect import signature
from typing import Any

import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import skdfb
from skdfb import DFBDetector, FrozenDetector, Trainer
from skdfb.augmentation import BackMix
from skdfb.fusion import TailProbabilityFusion
from skdfb.masks import AffinityMaskGenerator, CAMMaskGenerator, DenseMaskGenerator, NormalizedCutMaskGenerator
from skdfb.networks import create_backbone
from skdfb.scorers import KNN, MSP, Energy
from skdfb.training import _checkpoints
from tests.detector.conftest import make_detector, make_images
from tests.detector.test_early_checks import SHIPPED
from tests.detector.test_pretrained import detector_of, pretrained_backbone
from tests.devices.pretend import pretended_device
from tests.helpers import TinyBackbone

pytestmark = pytest.mark.usefixtures("crossings")
DEVICE = "pretend"
X, Y = make_images()
X_NEW = make_images(24, seed=1)[0]
SHORT = {"max_steps": 4, "batch_size": 16}


def trained(**changes: Any) -> dict[str, Trainer]:
    """Return the same trainer for both stages."""
    trainer = Trainer(**SHORT | changes)
    return {"classifier_trainer": trainer, "dense_trainer": trainer}


def backbone(name: str, **options: Any) -> Any:
    return create_backbone(name, pretrained=False, random_state=0, **options)


DETECTORS: dict[str, DFBDetector] = {
    "defaults": DFBDetector(backbone("test_resnet", output_stride=8), scorer=MSP(), image_size=32, **trained()),
    "paper's parts": make_detector(),
    "pre-trained": detector_of(pretrained_backbone(), scorer=MSP()),
    "ViT": DFBDetector(backbone("test_vit", img_size=64), scorer=MSP(), image_size=64, **trained()),
    "BackMix": make_detector(**trained(augmentation=BackMix())),
    "BackMix, donors": make_detector(**trained(augmentation=BackMix(donors="training set"))),
    "AdamW, clipped": make_detector(**trained(optimizer="adamw", clip_grad_norm=0.1)),
    "zoom of large images": make_detector(**trained(scale_range=(0.2, 2.0))),
    "the recipe": make_detector(
        classifier_trainer=Trainer.paper_classifier(**SHORT), dense_trainer=Trainer.paper_dense(**SHORT)
    ),
    "start": make_detector(**trained(dense_start="pretrained")),
    "affinity": make_detector(mask_generator=AffinityMaskGenerator(), **trained()),
    "normalised cut": make_detector(mask_generator=NormalizedCutMaskGenerator(), **trained()),
    "both networks": make_detector(
        scorer=[("foreground", "dense", Energy()), ("foreground_classifier", "classifier", KNN(n_neighbors=2))],
        fusion=TailProbabilityFusion(),
        **trained(),
    ),
    "float64": make_detector(torch.float64, **trained()),
}


def on(device: str, detector: Any) -> Any:
    return clone(detector).set_params(device=device, random_state=0, calibration_fraction=0.35, alpha=0.1)


@pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")
@pytest.mark.parametrize("name", DETECTORS)
def test_fit_and_score(name: str) -> None:
    first, second = (on(device, DETECTORS[name]).fit(X, Y) for device in ("cpu", DEVICE))
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
    required = {"ScorerEnsemble": [[Energy(), MSP()]], "TemperatureScaled": [Energy()]}.get(name, [])
    scorer = SHIPPED[name](*required)
    if "n_neighbors" in signature(type(scorer)).parameters:
        scorer.set_params(n_neighbors=3)
    assert_array_equal(*(detector.refit_scorer(scorer, X=X, y=Y).score_samples(X_NEW) for detector in pair))


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


def test_frozen() -> None:
    detectors = [
        on(device, FrozenDetector(pretrained_backbone(), image_size=32)).fit(X, Y) for device in ("cpu", DEVICE)
    ]
    assert_array_equal(*(detector.score_samples(X_NEW) for detector in detectors))


GENERATORS = {
    "CAM": CAMMaskGenerator(),
    "affinity": AffinityMaskGenerator(generator=CAMMaskGenerator(scales=(1.0,))),
    "normalised cut": NormalizedCutMaskGenerator(),
    "dense": DenseMaskGenerator(
        generator=CAMMaskGenerator(scales=(1.0,)),
        scales=(1.0,),
        **{name.replace("classifier_", ""): trainer for name, trainer in trained().items()},
    ),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_masks_alone(pair: tuple[DFBDetector, DFBDetector], name: str) -> None:
    for y in (Y, None):
        masks = []
        for device in ("cpu", DEVICE):
            generator = clone(GENERATORS[name])
            options = {"backbone": pair[0].classifier_, "device": device, "random_state": 0}
            for key in generator.get_params():
                if (last := key.rpartition("__")[2]) in options and "trainer" not in key:
                    generator.set_params(**{key: options[last]})
            masks.append(generator.fit(X, Y).transform(X, y))
        assert_array_equal(*masks)


@pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")
def test_in_a_pipeline() -> None:
    pipelines = [
        make_pipeline(FunctionTransformer(), on(device, make_detector(**trained()))).fit(X, Y)
        for device in ("cpu", DEVICE)
    ]
    assert_array_equal(*(pipeline.score_samples(X_NEW) for pipeline in pipelines))


@pytest.mark.parametrize("going_on", ["cpu", DEVICE])
def test_a_training_goes_on(going_on: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on another device than it began on."""
    options = trained(optimizer="adamw", augmentation=BackMix(), checkpoint_every=2)
    whole = on("cpu", make_detector(**options)).fit(X, Y)
    write, written = _checkpoints.write_file, []

    def interrupted(*args: Any) -> None:
        written.append(args)
        if len(written) == 6:  # in the dense stage
            raise KeyboardInterrupt
        write(*args)

    begun = on(DEVICE, make_detector(**options, checkpoint_dir=tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr(_checkpoints, "write_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
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
