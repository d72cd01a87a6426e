"""Mask generators in a detector: what they are handed, one inside another included."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator

from skdfb.detector._masks import make_masks
from skdfb.images import as_images
from skdfb.masks import AffinityMaskGenerator, CAMMaskGenerator, DenseMaskGenerator, NormalizedCutMaskGenerator
from skdfb.scorers import Energy
from skdfb.training import Trainer
from tests.detector.conftest import CLASSES, SIDE, make_detector, make_images
from tests.masks.helpers import trained_network

STEPS = Trainer(max_steps=3, batch_size=16, learning_rate=0.1)
CAM = CAMMaskGenerator(scales=(1.0,), flip=False)
GENERATORS = {
    "cam": CAM,
    "affinity": AffinityMaskGenerator(CAM),
    "affinity of the default": AffinityMaskGenerator(n_iterations=1),
    "dense": DenseMaskGenerator(generator=CAM, dense_trainer=STEPS),
    "dense of the default": DenseMaskGenerator(dense_trainer=STEPS),
    "dense of affinity": DenseMaskGenerator(generator=AffinityMaskGenerator(CAM), dense_trainer=STEPS),
    "normalized cut": NormalizedCutMaskGenerator(),
    "affinity of normalized cut": AffinityMaskGenerator(NormalizedCutMaskGenerator()),
    "dense of normalized cut": DenseMaskGenerator(generator=NormalizedCutMaskGenerator(), dense_trainer=STEPS),
    "affinity of dense": AffinityMaskGenerator(DenseMaskGenerator(generator=CAM, dense_trainer=STEPS)),
}


@pytest.mark.parametrize("generator", GENERATORS.values(), ids=GENERATORS)
def test_masks_come_from_the_trained_classifier_at_the_networks_size(generator):
    X, y = make_images(12)
    classifier = trained_network(CLASSES, size=24)
    state = {name: value.clone() for name, value in classifier.state_dict().items()}
    packed = [make_masks(generator, classifier, as_images(X), y, random_state=3, n_jobs=None) for _ in range(2)]
    assert packed[0].nbytes < 12 * 24 * 24 / 7  # bits
    masks, again = (each[np.arange(12)] for each in packed)
    assert masks.shape == packed[0].shape == (12, 24, 24)
    np.testing.assert_array_equal(masks, again)
    for mask, label in zip(masks, y, strict=True):
        assert set(np.unique(mask)) <= {label, CLASSES}
    assert all(torch.equal(classifier.state_dict()[name], value) for name, value in state.items())
    assert not hasattr(generator, "classes_")


@pytest.mark.parametrize("name", ["affinity", "dense", "normalized cut", "affinity of dense"])
def test_a_detector_takes_them(X, y, name):
    detector = make_detector(
        mask_generator=GENERATORS[name], scorer=Energy(), classifier_trainer=STEPS, dense_trainer=STEPS
    ).fit(X, y)
    assert detector.predict(X[:5]).shape == (5,)
    assert detector.segment(X[:2]).shape[1:3] == (SIDE, SIDE)


def test_masks_are_those_of_the_generator_alone():
    X, y = make_images(12)
    classifier = trained_network(CLASSES, size=SIDE).eval()
    found = make_masks(GENERATORS["affinity"], classifier, as_images(X), y, random_state=3, n_jobs=None)
    alone = AffinityMaskGenerator(CAMMaskGenerator(classifier, scales=(1.0,), flip=False, device="cpu"), device="cpu")
    np.testing.assert_array_equal(found[np.arange(12)], alone.fit_transform(X, y))


@pytest.mark.parametrize(
    ("generator", "message"),
    [
        (AffinityMaskGenerator(n_iterations=-1), "mask_generator: The 'n_iterations' parameter"),
        (AffinityMaskGenerator(CAMMaskGenerator(sigma=-1.0)), "mask_generator: generator: The 'sigma' parameter"),
        (NormalizedCutMaskGenerator(tau=2.0), "mask_generator: The 'tau' parameter"),
        (DenseMaskGenerator(dense_trainer=Trainer(max_steps=0)), "mask_generator: dense_trainer: .*max_steps"),
    ],
)
def test_bad_parameters_are_named_before_any_training(X, y, generator, message):
    with pytest.raises(ValueError, match=message):
        make_detector(mask_generator=generator).fit(X, y)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (np.zeros((12, 4), int), r"dtype int64 and shape \(12, 4\)"),
        (np.zeros((11, 4, 4), int), r"shape \(11, 4, 4\): expected integers of shape \(12, H, W\)"),
        (np.zeros((12, 4, 4)), "dtype float64"),
        (np.full((12, 4, 4), CLASSES + 1), rf"values in {CLASSES + 1}\.\.{CLASSES + 1}"),
        (np.full((12, 4, 4), -1), r"values in -1\.\.-1"),
    ],
)
def test_masks_that_are_none_are_refused(masks, message):
    class Given:
        def fit_transform(self, X, y):
            return masks

    X, y = make_images(12)
    with pytest.raises(ValueError, match=f"^mask_generator.fit_transform returned masks with .*{message}"):
        make_masks(Given(), trained_network(CLASSES), as_images(X), y, random_state=0, n_jobs=None)


class Handed(BaseEstimator):
    """Masks that are all background; it notes what it was handed."""

    seen: ClassVar[list[dict[str, object]]] = []

    def __init__(self, backbone=None, mask_size=None, device="auto", random_state=None, n_jobs=None):
        self.backbone = backbone
        self.mask_size = mask_size
        self.device = device
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit_transform(self, X, y):
        self.seen.append(self.get_params())
        return np.full((len(X), 4, 4), CLASSES)


def test_what_is_handed_over():
    X, y = make_images(12)
    classifier = trained_network(CLASSES, size=24)
    make_masks(Handed(), classifier, as_images(X), y, random_state=3, n_jobs=2)
    expected = {"mask_size": 24, "device": torch.device("cpu"), "random_state": 3, "n_jobs": 2}
    assert Handed.seen.pop() == {"backbone": classifier} | expected
    make_masks(Handed(mask_size=7, n_jobs=1), classifier, as_images(X), y, random_state=3, n_jobs=2)
    assert Handed.seen.pop() == {"backbone": classifier} | expected | {"mask_size": 7, "n_jobs": 1}
