"""Mask generators inside other objects: the settings that they inherit, and their masks, packed."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator

from skdfb.images import as_images
from skdfb.masks import AffinityMaskGenerator, CAMMaskGenerator, DenseMaskGenerator, NormalizedCutMaskGenerator
from skdfb.masks._inner import fit_pack, hand_over
from skdfb.training import Trainer
from tests.masks.helpers import SIZE, K, N, trained_network

SETTINGS = {"mask_size": 24, "device": "cpu", "random_state": 7, "n_jobs": 2}


def depth(generator, levels):
    for _ in range(levels):
        generator = generator.generator
    return generator


@pytest.mark.parametrize(
    ("generator", "levels"),
    [
        (CAMMaskGenerator(), 0),
        (AffinityMaskGenerator(), 1),
        (AffinityMaskGenerator(CAMMaskGenerator("some_model")), 1),
        (DenseMaskGenerator(), 0),
        (DenseMaskGenerator(), 1),
        (AffinityMaskGenerator(DenseMaskGenerator()), 1),
        (AffinityMaskGenerator(DenseMaskGenerator()), 2),
        (DenseMaskGenerator(generator=AffinityMaskGenerator(AffinityMaskGenerator())), 3),
    ],
)
def test_generators_of_any_depth_get_what_they_leave_open(generator, levels):
    network = trained_network()
    found = depth(hand_over(generator, {"backbone": network} | SETTINGS), levels)
    assert found.backbone is network
    assert {name: getattr(found, name) for name in SETTINGS} == SETTINGS


def test_the_cut_has_no_random_state_and_keeps_its_layer():
    network = trained_network()
    found = hand_over(AffinityMaskGenerator(NormalizedCutMaskGenerator()), {"backbone": network} | SETTINGS).generator
    assert found.backbone is network
    assert (found.mask_size, found.device, found.n_jobs, found.layer) == (24, "cpu", 2, "auto")


def test_what_is_set_is_kept_but_for_the_backbone():
    network, kept = trained_network(), {"mask_size": 16, "device": "cuda:3", "random_state": 1, "n_jobs": 3}
    given = AffinityMaskGenerator(CAMMaskGenerator("some_model", **kept), device="cuda:2")
    found = hand_over(given, {"backbone": network} | SETTINGS)
    assert {name: getattr(found.generator, name) for name in kept} == kept
    assert (found.device, found.n_jobs) == ("cuda:2", 2)
    assert found.generator.backbone is network
    assert given.generator.backbone == "some_model"
    assert found.generator is not given.generator


def test_nothing_else_changes():
    given = DenseMaskGenerator(dense_trainer=Trainer(max_steps=3))
    found = hand_over(given, SETTINGS)
    before, after = given.get_params(deep=False), found.get_params(deep=False)
    changed = {name for name in before if name != "dense_trainer" and before[name] != after[name]}
    assert changed == {*SETTINGS, "generator"}
    assert found.dense_trainer.get_params() == given.dense_trainer.get_params()
    assert given.generator is None


class OwnMeaning(BaseEstimator):
    """A user-defined estimator, in which ``generator`` is one of random numbers."""

    def __init__(self, generator=None, n_jobs=None, pixels="auto"):
        self.generator = generator
        self.n_jobs = n_jobs
        self.pixels = pixels


def test_estimators_of_others():
    found = hand_over(OwnMeaning(), SETTINGS)
    assert found.get_params() == {"generator": None, "n_jobs": 2, "pixels": "auto"}


def test_objects_that_are_no_estimators_are_copied():
    class Plain:
        device = None

    given = Plain()
    found = hand_over(given, SETTINGS)
    assert found is not given
    assert type(found) is Plain
    assert found.device is None


# ---------------------------------------------------------------- packed masks


def cam(**parameters):
    return CAMMaskGenerator(trained_network(), **{"scales": (1.0,), "flip": False, "device": "cpu"} | parameters)


@pytest.mark.parametrize("true_class", [True, False])
def test_packed_masks_are_those_of_fit_transform(images, labels, true_class, monkeypatch):
    expected = cam(true_class=true_class).fit_transform(images, labels)
    monkeypatch.setattr(CAMMaskGenerator, "_masks", None)  # which would hold an array of all masks
    packed = fit_pack(cam(true_class=true_class, batch_size=3), as_images(images), labels, K, "generator")
    np.testing.assert_array_equal(packed, expected)
    assert packed.nbytes == N * (SIZE * SIZE // 8 + 1)


class LeftHalf:
    """A user-defined generator."""

    def __init__(self, value=None):
        self.value = value

    def fit_transform(self, X, y):
        masks = np.full((len(X), 8, 8), K)
        masks[:, :, :4] = y[:, None, None] if self.value is None else self.value
        return masks


class OwnTransform(CAMMaskGenerator):
    def fit_transform(self, X, y=None):
        return LeftHalf().fit_transform(X, y)


@pytest.mark.parametrize("generator", [LeftHalf(), OwnTransform(trained_network(), device="cpu")])
def test_a_fit_transform_of_its_own_is_called(images, labels, generator):
    packed = fit_pack(generator, as_images(images), labels, K, "generator")
    np.testing.assert_array_equal(packed, LeftHalf().fit_transform(images, labels))


def test_masks_with_other_values_are_refused(images, labels):
    with pytest.raises(ValueError, match=r"^mine.fit_transform returned masks with values in 3\.\.9"):
        fit_pack(LeftHalf(9), as_images(images), labels, K, "mine")
