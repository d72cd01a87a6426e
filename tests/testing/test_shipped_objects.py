"""The library's own objects pass the checks for third-party objects. They are found in ``__all__``."""

import importlib
import inspect

import pytest

from skdfb.augmentation import BackMix
from skdfb.fusion import TailProbabilityFusion
from skdfb.masks import CAMMaskGenerator
from skdfb.scorers import MSP, ODIN, Energy, ScorerEnsemble, TemperatureScaled, ViM
from skdfb.testing import check_augmentation, check_foreground_scorer, check_fusion, check_mask_generator
from skdfb.training import Trainer
from tests.helpers import TinyBackbone
from tests.scorers.helpers import VARIANTS, default_instance


def shipped(package, method):
    """The public classes of a package that have a method, without protocols."""
    module = importlib.import_module(package)
    things = [getattr(module, name) for name in module.__all__]
    return [
        thing
        for thing in things
        if inspect.isclass(thing) and hasattr(thing, method) and not getattr(thing, "_is_protocol", False)
    ]


def class_names(instances):
    return [type(instance).__name__ for instance in instances]


# Those that contain others cannot be made without arguments.
COMPOSITES = [
    ScorerEnsemble([MSP(), ViM()]),
    ScorerEnsemble([("a", Energy()), ("b", Energy(temperature=2))], random_state=3),
    TemperatureScaled(MSP()),
]
SCORERS = [
    *(default_instance(cls) for cls in shipped("skdfb.scorers", "score_samples") if cls not in map(type, COMPOSITES)),
    ODIN(),  # with its perturbation
    *VARIANTS,
    *COMPOSITES,
]
FUSIONS = [cls() for cls in shipped("skdfb.fusion", "combine")] + [TailProbabilityFusion("fisher")]


def quick_generator(cls):
    """A generator with a tiny backbone and two training steps."""
    generator = cls()
    known = {"backbone": TinyBackbone(), "device": "cpu"}
    known |= dict.fromkeys(("trainer", "dense_trainer"), Trainer(max_steps=2, batch_size=8))
    if "generator" in generator.get_params():
        known["generator"] = quick_generator(CAMMaskGenerator)
    return generator.set_params(**{name: known[name] for name in known if name in generator.get_params()})


MASK_GENERATORS = [quick_generator(cls) for cls in shipped("skdfb.masks", "fit_transform")]
AUGMENTATIONS = [cls() for cls in shipped("skdfb.augmentation", "augment")] + [BackMix(donors="training set")]


def assert_passes(check, instance):
    before = dict(vars(instance))
    results = check(instance)
    assert {result["status"] for result in results} == {"passed"}
    assert [result["exception"] for result in results] == [None] * len(results)
    assert vars(instance) == before


@pytest.mark.parametrize("scorer", SCORERS, ids=class_names(SCORERS))
def test_scorer(scorer):
    assert_passes(check_foreground_scorer, scorer)


@pytest.mark.parametrize("fusion", FUSIONS, ids=class_names(FUSIONS))
def test_fusion(fusion):
    assert_passes(check_fusion, fusion)


@pytest.mark.parametrize("generator", MASK_GENERATORS, ids=class_names(MASK_GENERATORS))
def test_mask_generator(generator):
    assert_passes(check_mask_generator, generator)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=class_names(AUGMENTATIONS))
def test_augmentation(augmentation):
    assert_passes(check_augmentation, augmentation)


def test_objects_are_found():
    assert len(SCORERS) > 30
    assert len(FUSIONS) > 2
    assert len(MASK_GENERATORS) > 2
    assert len(AUGMENTATIONS) > 0
