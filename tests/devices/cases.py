"""Detectors, mask generators and scorers that must give the same on each device."""

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone

from skdfb import DFBDetector, FrozenDetector, Trainer
from skdfb.augmentation import BackMix
from skdfb.fusion import TailProbabilityFusion
from skdfb.masks import AffinityMaskGenerator, CAMMaskGenerator, DenseMaskGenerator, NormalizedCutMaskGenerator
from skdfb.networks import create_backbone
from skdfb.scorers import KNN, MSP, ODIN, Energy, Representation, ViM
from skdfb.training import _checkpoints
from tests.detector.conftest import make_detector
from tests.detector.test_early_checks import SHIPPED
from tests.detector.test_pretrained import detector_of, pretrained_backbone

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


# What differs in what is computed for a score.
SCORING = {
    "paper": lambda: make_detector(),
    "pre-trained": lambda: detector_of(pretrained_backbone(), scorer=MSP()),
    "frozen": lambda: FrozenDetector(pretrained_backbone(), image_size=32, random_state=0),
    "ViM": lambda: make_detector(scorer=ViM()),
    "ODIN": lambda: make_detector(scorer=ODIN(), background_scorer=Energy()),
}


def on(device: str, detector: Any) -> Any:
    return clone(detector).set_params(device=device, random_state=0, calibration_fraction=0.35, alpha=0.1)


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


def generator_on(device: str, name: str, network: Any) -> Any:
    """Return a mask generator with a trained network; generators inside it have the device and the network, too."""
    generator = clone(GENERATORS[name])
    options = {"backbone": network, "device": device, "random_state": 0}
    for key in generator.get_params():
        if (last := key.rpartition("__")[2]) in options and "trainer" not in key:
            generator.set_params(**{key: options[last]})
    return generator


class DistanceToMean:
    """A scorer in NumPy, as a user would write it."""

    def fit(self, representation: Representation, y: Any) -> "DistanceToMean":
        self.mean_ = np.asarray(representation.features).mean(0)
        return self

    def score_samples(self, representation: Representation) -> Any:
        return -np.linalg.norm(np.asarray(representation.features) - self.mean_, axis=1)


def shipped_scorer(name: str) -> Any:
    """Return a scorer that can be fitted on few images."""
    required = {"ScorerEnsemble": [[Energy(), MSP()]], "TemperatureScaled": [Energy()]}.get(name, [])
    scorer = SHIPPED[name](*required)
    if "n_neighbors" in signature(type(scorer)).parameters:
        scorer.set_params(n_neighbors=3)
    return scorer


@contextmanager
def interrupted_in_the_dense_stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Interrupt a fit as it writes its sixth checkpoint."""
    write, written = _checkpoints.write_file, []

    def interrupted(*args: Any) -> None:
        written.append(args)
        if len(written) == 6:
            raise KeyboardInterrupt
        write(*args)

    with monkeypatch.context() as patched:
        patched.setattr(_checkpoints, "write_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            yield
