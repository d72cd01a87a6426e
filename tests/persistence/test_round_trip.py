"""Every public estimator can be saved and loaded, fitted and unfitted. The estimators are collected automatically."""

import importlib
import pickle
import pkgutil
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, clone

import skdfb
from skdfb import Trainer
from skdfb.augmentation import BackMix
from skdfb.networks import create_backbone
from skdfb.scorers import MSP, BackgroundLogit, Energy, Mahalanobis, RelativeMahalanobis
from skdfb.testing._scorers._data import new_images, training_data
from tests.detector.conftest import SIDE, make_detector, make_images
from tests.helpers import TinyBackbone
from tests.scorers.helpers import VARIANTS

QUICK = {"device": "cpu", "image_size": SIDE * 2, "random_state": 0, "trainer": Trainer(max_steps=2, batch_size=8)}
VIEWS = {"dense": 4, "background": 1}.items()
CUSTOMS = {"tests.helpers.TinyBackbone": TinyBackbone}
pytestmark = pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")


def estimators() -> dict[str, type]:
    """All public estimators of the package, by name."""
    found = {}
    for package in pkgutil.iter_modules(skdfb.__path__, "skdfb."):
        if package.ispkg and package.name not in ("skdfb.displays", "skdfb.utils"):
            module = importlib.import_module(package.name)
            for name in module.__all__:
                if isinstance(value := getattr(module, name), type) and issubclass(value, BaseEstimator):
                    found[name] = value
    return found


ESTIMATORS = estimators()


def unfitted(name: str, network: dict[str, Any] | None = None) -> Any:
    """An unfitted instance with its required parameters, some that make it quick, and those of its network."""
    cls = ESTIMATORS[name]
    if name == "DFBDetector":
        trainers = dict.fromkeys(("classifier_trainer", "dense_trainer"), QUICK["trainer"]) if network else {}
        return make_detector(**trainers | (network or {}))
    if name == "FrozenDetector":
        backbone = create_backbone("test_resnet", pretrained=False, output_stride=8, random_state=0)
        return cls(**{"backbone": backbone, "image_size": 32, "device": "cpu", "random_state": 0} | (network or {}))
    if name.endswith("MaskGenerator"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            backbone = create_backbone("test_resnet", pretrained=False, output_stride=8)
        if name == "AffinityMaskGenerator":
            return cls(unfitted("CAMMaskGenerator", network), device="cpu")
        if name == "NormalizedCutMaskGenerator":  # trains nothing
            known = {"backbone": backbone, "device": "cpu"} | (network or {})
            return cls(**{key: value for key, value in known.items() if key in cls._get_param_names()})
        extra = {"dense_trainer": QUICK["trainer"]} if name == "DenseMaskGenerator" else {}
        return cls(**{"backbone": backbone} | QUICK | extra | (network or {}))
    if name == "JointScore":
        return cls(
            [("foreground", "dense", Energy()), ("background_logit", "background", BackgroundLogit())], alpha=0.1
        )
    if name == "ScorerEnsemble":
        return cls([Energy(), ("far", Mahalanobis())], random_state=np.random.RandomState(3))
    return cls(MSP()) if name == "TemperatureScaled" else cls()


def fitted(name: str, network: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """A fitted instance, and a function that returns its output."""
    estimator = unfitted(name, network)
    X, y = make_images()
    rng = np.random.default_rng(0)
    if name in ("DFBDetector", "FrozenDetector"):
        return estimator.fit(X, y), lambda model: model.score_samples(X)
    if name == "FeatureDetector":
        rows = rng.normal(size=(200, 6))
        return estimator.fit(rows, np.arange(200) % 3), lambda model: model.score_samples(rows)
    if name == "JointScore":
        known, new = (
            {view: training_data(Energy(), seed=seed, K=K).representation for view, K in VIEWS} for seed in (0, 1)
        )
        y = np.arange(200) % 4
        return estimator.fit(known, y, held_out=(new, y)), lambda model: model.score_samples(new)
    if name.endswith("MaskGenerator"):
        return estimator.fit(X[:24], y[:24]), lambda model: model.attention_maps(X[:5])
    if name == "TailProbabilityFusion":
        parts = {"foreground": rng.normal(size=50), "background": rng.normal(size=50)}
        return estimator.fit(parts), lambda model: model.combine(parts)
    if name == "TemperatureFusion":
        parts = {"foreground": rng.normal(size=50), "background": rng.normal(size=50)}
        return estimator.fit(parts), lambda model: model.combine(parts)
    if name == "ConformalCalibrator":
        return estimator.fit(rng.normal(size=50)), lambda model: model.p_values([0.0, 1.0])
    if not hasattr(estimator, "fit"):
        return estimator, lambda model: str(model.get_params())
    train = training_data(estimator, K=1 if name == "BackgroundLogit" else 4)
    new = new_images(estimator, K=1 if name == "BackgroundLogit" else 4)
    return estimator.fit(train.representation, train.y), lambda model: model.score_samples(new)


def saved_and_loaded(model: Any, tmp_path: Any) -> Any:
    skdfb.save(model, tmp_path / "model.safetensors")
    return skdfb.load(tmp_path / "model.safetensors", customs=CUSTOMS, device="cpu")


def test_all_kinds_are_found():
    assert {"DFBDetector", "FeatureDetector", "Trainer", "CAMMaskGenerator", "ViM", "TailProbabilityFusion"} <= set(
        ESTIMATORS
    )
    assert len(ESTIMATORS) > 40


@pytest.mark.parametrize("name", ESTIMATORS)
def test_unfitted(name, tmp_path):
    model = unfitted(name)
    for other in (saved_and_loaded(model, tmp_path), pickle.loads(pickle.dumps(model)), clone(model)):
        assert type(other) is type(model)
        assert set(vars(other)) == set(vars(model))
        assert str(other.get_params()) == str(model.get_params()) or "RandomState" in str(model.get_params())


def test_a_trainer_with_an_augmentation(tmp_path):
    trainer = Trainer(augmentation=BackMix(patch_size=0.5, map_size=4))
    loaded = saved_and_loaded(trainer, tmp_path)
    assert isinstance(loaded.augmentation, BackMix)
    assert str(loaded.get_params()) == str(trainer.get_params())


@pytest.mark.parametrize("name", ESTIMATORS)
def test_fitted(name, tmp_path):
    model, output = fitted(name)
    for other in (saved_and_loaded(model, tmp_path), pickle.loads(pickle.dumps(model))):
        assert_array_equal(output(other), output(model))
        assert set(vars(other)) == set(vars(model))


@pytest.mark.parametrize("scorer", VARIANTS, ids=repr)
def test_options_of_scorers(scorer, tmp_path):
    train, new = training_data(scorer), new_images(scorer)
    model = clone(scorer).fit(train.representation, train.y)
    loaded = saved_and_loaded(model, tmp_path)
    assert_array_equal(loaded.score_samples(new), model.score_samples(new))
    assert loaded.get_params() == model.get_params()
    assert set(vars(loaded)) == set(vars(model))


@pytest.mark.parametrize("scorer", [Mahalanobis("auto"), RelativeMahalanobis(0.1)], ids=repr)
def test_scorers_that_were_saved_before_parameters_were_added(scorer, tmp_path):
    train, new = training_data(scorer), new_images(scorer)
    scorer.fit(train.representation, train.y)
    expected = scorer.score_samples(new)
    added = {"normalize", "normalize_", "use_classes", *(["shrinkage_"] if scorer.shrinkage != "auto" else [])}
    for name in added & set(vars(scorer)):
        delattr(scorer, name)
    loaded = saved_and_loaded(scorer, tmp_path)
    assert_array_equal(loaded.score_samples(new), expected)
    assert loaded.get_params() == type(scorer)(scorer.shrinkage).get_params()
    assert_array_equal(clone(loaded).fit(*train).score_samples(new), expected)
    # The parameters of fit count: those that are set on a loaded scorer change no score.
    assert_array_equal(loaded.set_params(normalize=True).score_samples(new), expected)
