"""What a mask generator inside something else is handed."""

import pytest
from sklearn.base import BaseEstimator

from skdfb.masks import AffinityMaskGenerator, CAMMaskGenerator, DenseMaskGenerator
from skdfb.masks._inner import hand_over
from skdfb.training import Trainer
from tests.masks.helpers import trained_network

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
    """Somebody's estimator, in which ``generator`` is one of random numbers."""

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
