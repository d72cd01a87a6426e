"""Whatever can be refused is refused before the first training step; shipped scorers and fusions alike."""

import inspect

import numpy as np
import pytest

import skdfb.fusion
import skdfb.scorers
from skdfb import CAMMaskGenerator, Trainer
from skdfb.augmentation import BackMix
from skdfb.fusion import TailProbabilityFusion, TemperatureFusion
from skdfb.masks import AffinityMaskGenerator, DenseMaskGenerator
from skdfb.scorers import (
    ASH,
    DICE,
    KNN,
    MSP,
    NECO,
    ODIN,
    BackgroundLogit,
    ClassGaussianMixture,
    Energy,
    KernelPCA,
    MaSF,
    NNGuide,
    OpenMax,
    ReAct,
    Residual,
    ScorerEnsemble,
    TemperatureScaled,
    ViM,
)
from skdfb.scorers._base import BaseScorer
from tests.detector.conftest import make_detector, make_images

X, y = make_images()  # 60 images of 3 classes; the network has 8 features, 39 images train, 21 are held out


class CountingTrainer(Trainer):
    """Counts the trainings that began."""

    began = 0

    def train(self, *arguments, **options):
        type(self).began += 1
        raise AssertionError("training began")


def steps_before_the_error(**changes):
    """Fit with changed parameters, and return the error and how many trainings began before it."""
    CountingTrainer.began = 0
    trainers = dict.fromkeys(("classifier_trainer", "dense_trainer"), CountingTrainer())
    with pytest.raises((ValueError, TypeError)) as raised:
        make_detector(**trainers | changes).fit(X, y)
    return str(raised.value), CountingTrainer.began


# Parameters out of range, and sizes that a scorer cannot be fitted on.
SIZES = {
    "KNN": [KNN(n_neighbors=40), KNN(n_neighbors=2, bank_size=0.01)],
    "NNGuide": [NNGuide(n_neighbors=40)],
    "ViM": [ViM(n_components=8), ViM(n_components=39)],
    "Residual": [Residual(n_components=8)],
    "NECO": [NECO(n_components=8)],
    "KernelPCA": [KernelPCA(n_components=8), KernelPCA("cosine-gaussian", 39), KernelPCA("cosine-gaussian", gamma=0.0)],
    "ScorerEnsemble": [ScorerEnsemble([MSP(), KNN(n_neighbors=40)]), ScorerEnsemble([ODIN()]), ScorerEnsemble([])],
    "TemperatureScaled": [TemperatureScaled(KNN(n_neighbors=40)), TemperatureScaled(ODIN())],
    "ASH": [ASH(percentile=101)],
    "DICE": [DICE(sparsity=2.0)],
    "ClassGaussianMixture": [ClassGaussianMixture(n_components=0)],
    "MaSF": [MaSF(layers=[])],
    "ReAct": [ReAct(percentile=-1)],
    "OpenMax": [OpenMax(tail_size=0)],
}
SHIPPED = {
    name: scorer
    for name in skdfb.scorers.__all__
    if inspect.isclass(scorer := getattr(skdfb.scorers, name))
    and (issubclass(scorer, BaseScorer) or name in ("ScorerEnsemble", "TemperatureScaled"))
}


def bad_instances():
    for name, scorer in SHIPPED.items():
        yield from ((name, bad) for bad in SIZES.get(name, []))
        required = {"ScorerEnsemble": [[Energy()]], "TemperatureScaled": [Energy()]}.get(name, [])
        for parameter in inspect.signature(scorer).parameters:
            # No parameter of any scorer takes a text that is no option of its own.
            yield name, scorer(*required).set_params(**{parameter: "no such value"})


@pytest.mark.parametrize(("name", "scorer"), list(bad_instances()), ids=lambda value: str(value)[:60])
def test_a_bad_scorer_costs_no_step(name, scorer):
    message, began = steps_before_the_error(scorer=scorer, fusion=TailProbabilityFusion(), alpha=0.1)
    assert began == 0, message
    assert name in message or "part 'foreground'" in message


@pytest.mark.parametrize("name", [name for name, scorer in SHIPPED.items() if getattr(scorer, "_min_classes", 1) > 1])
def test_scorers_of_classes_refuse_the_background(name):
    message, began = steps_before_the_error(background_scorer=SHIPPED[name]())
    assert began == 0
    assert "1 class(es)" in message or "background view has none" in message


@pytest.mark.parametrize("scorer", [KNN(n_neighbors=40), ViM(n_components=8)], ids=str)
def test_a_bad_scorer_of_the_background_costs_no_step(scorer):
    message, began = steps_before_the_error(background_scorer=[BackgroundLogit(), scorer], fusion=None, alpha=0.1)
    assert began == 0
    assert "part 'background_" in message


FUSIONS = {name: getattr(skdfb.fusion, name) for name in skdfb.fusion.__all__ if name != "Fusion"}
BAD_FUSIONS = {
    "TemperatureFusion": [
        ({"fusion": TemperatureFusion(temperature=-1)}, "fusion: The 'temperature' parameter"),
        ({"fusion": TemperatureFusion(), "background_scorer": None}, "Eq. 7 joins one part"),
        ({"fusion": TemperatureFusion(), "background_scorer": []}, "Eq. 7 joins one part"),
        ({"fusion": TemperatureFusion(), "scorer": [("knn", "dense", KNN())]}, "Eq. 7 joins one part"),
    ],
    "TailProbabilityFusion": [
        ({"fusion": TailProbabilityFusion("mean")}, "fusion: The 'rule' parameter"),
        ({"fusion": TailProbabilityFusion()}, "21 of 60 images are held out"),
    ],
}


@pytest.mark.parametrize(
    ("changes", "expected"), [case for name in FUSIONS for case in BAD_FUSIONS[name]], ids=lambda value: str(value)[:60]
)
def test_a_bad_fusion_costs_no_step(changes, expected):
    message, began = steps_before_the_error(**changes)
    assert began == 0, message
    assert expected in message


@pytest.mark.parametrize("images", [np.full((60, 16, 16, 3), 90, np.uint8), np.repeat(X[:1], 60, axis=0)])
def test_equal_images_cost_no_step(images):
    CountingTrainer.began = 0
    with pytest.raises(ValueError, match="images that are all the same"):
        make_detector(classifier_trainer=CountingTrainer()).fit(images, y)
    assert CountingTrainer.began == 0


# Python counts True as 1: a training of one step, and scores that look like any others.
BOOLEANS = [
    *({"classifier_trainer": Trainer(**{name: True})} for name in ("max_steps", "max_epochs", "batch_size")),
    *({"dense_trainer": Trainer(**{name: True})} for name in ("max_steps", "learning_rate", "frozen_stages")),
    {"dense_trainer": Trainer(scale_range=(True, True))},
    {"dense_trainer": Trainer(augmentation=BackMix(probability=True))},
    *({name: True} for name in ("batch_size", "image_size", "n_jobs", "alpha", "random_state")),
    {"calibration_fraction": True},
    {"mask_generator": CAMMaskGenerator(random_state=True)},
    {"mask_generator": CAMMaskGenerator(batch_size=True)},
    {"mask_generator": CAMMaskGenerator(scales=(True,))},
    {"mask_generator": DenseMaskGenerator(n_rounds=True)},
    {"mask_generator": DenseMaskGenerator(dense_trainer=Trainer(max_steps=True))},
    {"mask_generator": AffinityMaskGenerator(CAMMaskGenerator(trainer=Trainer(max_steps=True)))},
    {"scorer": KNN(n_neighbors=True)},
    {"scorer": ScorerEnsemble([MSP(), KNN(n_neighbors=True)]), "fusion": TailProbabilityFusion(), "alpha": 0.1},
]


@pytest.mark.parametrize("changes", BOOLEANS, ids=lambda value: str(value)[:60])
def test_a_boolean_for_a_number_costs_no_step(changes):
    message, began = steps_before_the_error(**changes)
    assert began == 0, message
    assert "True" in message


def test_a_good_detector_begins():
    CountingTrainer.began = 0
    with pytest.raises(AssertionError, match="training began"):
        make_detector(classifier_trainer=CountingTrainer()).fit(X, y)
    assert CountingTrainer.began == 1
