"""Models of format 1 whose classes have changed since: they load, and give the outputs of the code that wrote them.

The files in ``tests/data/format_1`` were written before the joint score was added, with outputs for new data beside
them. At that time ``pretrained`` and ``checkpoint_path`` were parameters of detectors and mask generators, the views
followed from ``foreground_network`` and ``foreground_pooling``, and fusions did not keep the temperatures of ``fit``.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from torch import nn

import skdfb
from skdfb import CAMMaskGenerator, DFBDetector, Trainer
from skdfb._registry import upgraded
from skdfb.fusion import TailProbabilityFusion, TemperatureFusion
from skdfb.masks import AffinityMaskGenerator, DenseMaskGenerator
from skdfb.networks import create_backbone
from skdfb.persistence._format import FORMAT
from skdfb.scorers import KNN, BackgroundLogit, Energy, ViM
from tests.detector.conftest import make_images
from tests.helpers import TinyBackbone

FOLDER = Path(__file__).parents[1] / "data" / "format_1"
OUTPUTS = json.loads((FOLDER / "outputs.json").read_text(encoding="utf-8"))
X, y = make_images(48)
LABELS = np.array(["red", "green", "blue"])[y]
X_NEW = make_images(6, seed=9)[0]


def loaded(name):
    return skdfb.load(FOLDER / f"{name}.safetensors", customs=[TinyBackbone], device="cpu")


def saved_again(model, tmp_path):
    skdfb.save(model, tmp_path / "again.safetensors")
    return skdfb.load(tmp_path / "again.safetensors", customs=[TinyBackbone], device="cpu")


def assert_parameters_of_this_version(model):
    assert set(model.get_params(deep=False)) == set(type(model)().get_params(deep=False))
    clone(model)


# ------------------------------------------------------------- mask generators

GENERATORS = {"cam": CAMMaskGenerator, "affinity": AffinityMaskGenerator, "dense": DenseMaskGenerator}


def assert_same_maps(generator, expected):
    maps = generator.attention_maps(X_NEW)
    assert_allclose(maps.mean((1, 2)), expected["mean"], atol=1e-5)
    assert_allclose(maps.std((1, 2)), expected["std"], atol=1e-5)
    assert_array_equal(generator.classify(X_NEW), expected["classes"])


@pytest.mark.parametrize("name", GENERATORS)
def test_fitted_mask_generators(name, tmp_path):
    generator = loaded(name)
    assert type(generator) is GENERATORS[name]
    assert_same_maps(generator, OUTPUTS[name])
    assert_parameters_of_this_version(generator)
    assert generator.image_shape_ is None
    assert_same_maps(saved_again(generator, tmp_path), OUTPUTS[name])


@pytest.mark.parametrize("name", GENERATORS)
def test_loaded_mask_generators_can_be_fitted_again(name):
    generator = loaded(name)
    again = clone(generator).fit(X, LABELS)
    assert set(vars(again)) == set(vars(generator))
    assert again.attention_maps(X_NEW).shape == (6, 16, 16)
    # The image shape of fit is kept apart from the parameter.
    generator.set_params(image_shape=(4, 4, 3))
    assert_same_maps(generator, OUTPUTS[name])


def test_a_mask_generator_without_pretrained_weights():
    """A name alone now stands for pre-trained weights, so the backbone becomes a module with random weights."""
    generator = loaded("unfitted_masks")
    assert isinstance(generator.backbone, nn.Module)
    assert generator.threshold == 0.4
    assert_parameters_of_this_version(generator)
    expected, weights = (
        create_backbone("test_resnet", pretrained=False, random_state=0),
        generator.backbone.state_dict(),
    )
    assert all(torch.equal(weights[name], value) for name, value in expected.state_dict().items())


@pytest.mark.parametrize("name", [generator.__name__ for generator in GENERATORS.values()])
@pytest.mark.parametrize("image_shape", [None, (4, 4, 3)])
def test_attributes_of_mask_generators(name, image_shape):
    unfitted = {"pretrained": True, "checkpoint_path": None, "backbone": "resnet18", "image_shape": image_shape}
    assert upgraded(name, dict(unfitted), 1, FORMAT) == {"backbone": "resnet18", "image_shape": image_shape}
    fitted = upgraded(name, unfitted | {"classes_": np.arange(3)}, 1, FORMAT)
    assert fitted["image_shape_"] == image_shape
    present = {"backbone": "resnet18", "image_shape": None}
    assert upgraded(name, present, FORMAT, FORMAT) is present


# ---------------------------------------------------------------------- fusions


@pytest.mark.parametrize("name", ["fusion_logit", "fusion_probability"])
def test_temperatures_of_a_fitted_fusion(name, tmp_path):
    fusion, parts = loaded(name), {"foreground": np.linspace(-3, 5, 40), "background": np.cos(np.arange(40.0))}
    assert (fusion.temperature_, fusion.probability_temperature_) == (4.0, 2.0)
    assert_allclose(fusion.combine(parts), OUTPUTS[name], rtol=1e-12)
    # As for a fusion of this version, a parameter that is set later changes no score.
    fusion.set_params(temperature=1.0, probability_temperature=1.0)
    assert_allclose(fusion.combine(parts), OUTPUTS[name], rtol=1e-12)
    assert_allclose(saved_again(fusion, tmp_path).combine(parts), OUTPUTS[name], rtol=1e-12)


def test_attributes_of_fusions():
    unfitted = {"temperature": 4.0, "probability_temperature": 2.0}
    assert upgraded("TemperatureFusion", dict(unfitted), 1, FORMAT) == unfitted
    fitted = upgraded("TemperatureFusion", unfitted | {"part_names_": ("foreground", "background")}, 1, FORMAT)
    assert fitted["temperature_"] == 4.0
    assert fitted["probability_temperature_"] == 2.0


# -------------------------------------------------------------------- detectors


def test_a_fitted_detector_of_features(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(120, 4)) + 3 * np.eye(4)[np.arange(120) % 3]
    expected = OUTPUTS["features"]
    detector = loaded("features")
    for model in (detector, saved_again(detector, tmp_path)):
        assert_allclose(model.score_samples(rows[:10]), expected["scores"], rtol=1e-12)
        assert_allclose(model.p_values(rows[:10]), expected["p_values"], rtol=1e-12)
        assert model.offset_ == pytest.approx(expected["offset"], rel=1e-12)
    assert isinstance(detector.scorer_, KNN)
    assert_parameters_of_this_version(detector)
    again = clone(detector).fit(rows, np.arange(120) % 3)
    assert set(vars(again)) == set(vars(detector))
    assert again.calibration_fraction_ == pytest.approx(detector.calibration_fraction_, abs=0.01)


def test_the_recipe_of_the_paper():
    detector = loaded("unfitted_paper")
    assert_parameters_of_this_version(detector)
    assert isinstance(detector.backbone, nn.Module)  # pretrained=False
    assert isinstance(detector.scorer, Energy)
    assert detector.alpha == 0.1
    assert isinstance(detector.background_scorer, BackgroundLogit)
    assert isinstance(detector.fusion, TemperatureFusion)
    assert detector.image_size == 128
    recipe = DFBDetector.paper()
    for name in ("classifier_trainer", "dense_trainer"):
        trainer = getattr(detector, name)
        assert trainer.checkpoint_every == 7
        assert trainer.get_params() == getattr(recipe, name).get_params() | {"checkpoint_every": 7}


def test_views_on_both_networks():
    detector = loaded("unfitted_both")
    assert_parameters_of_this_version(detector)
    assert detector.backbone == DFBDetector().backbone
    assert [(name, view) for name, view, _ in detector.scorer] == [
        ("foreground_dense", "foreground"),
        ("foreground_plain", "classifier"),
    ]
    assert all(isinstance(scorer, ViM) for _, _, scorer in detector.scorer)
    assert isinstance(detector.fusion, TailProbabilityFusion)
    assert detector.background_scorer is None
    # The values of the file, also where the defaults are others now.
    expected = Trainer(max_steps=9, checkpoint_every=7, learning_rate=0.003, schedule="step")
    assert detector.dense_trainer.get_params() == expected.get_params()


def test_a_view_on_the_classifier():
    # Its weights were to come from another file, which a file cannot ask for.
    with pytest.warns(UserWarning, match=r"weights in checkpoint_path='weights.*create_backbone\(.*, checkpoint_path"):
        detector = loaded("unfitted_plain")
    assert detector.backbone == DFBDetector().backbone
    assert_parameters_of_this_version(detector)
    ((name, view, scorer),) = detector.scorer
    assert (name, view) == ("foreground", "classifier")
    assert scorer.n_neighbors == 3
    assert detector.calibration_fraction == 0.1


def test_a_damaged_file_of_format_1_is_refused(tmp_path):
    path = tmp_path / "cam.safetensors"
    shutil.copy(FOLDER / "cam.safetensors", path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(skdfb.exceptions.InvalidModelError, match="changed or damaged"):
        skdfb.load(path, customs=[TinyBackbone])
