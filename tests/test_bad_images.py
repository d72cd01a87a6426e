"""Every function and method that takes images refuses bad ones before any training, with a helpful message."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from skdfb import CAMMaskGenerator
from skdfb.images import as_images
from skdfb.networks import DenseClassifier
from skdfb.training import Trainer
from tests.bad_images import BAD_IMAGES
from tests.detector.conftest import SIDE, make_detector, make_images, tiny_backbone

CLASSES = 3


class NoTraining(Trainer):
    """Fails the test if a training begins."""

    def train(self, *args: Any, **kwargs: Any) -> Any:
        pytest.fail("training began")


@pytest.fixture(scope="module")
def doors() -> dict[str, Callable[[Any], Any]]:
    X, y = make_images()
    network = DenseClassifier(tiny_backbone(), CLASSES, image_size=SIDE)
    detector, masks = make_detector().fit(X, y), CAMMaskGenerator(network).fit(X, y)
    untrained = make_detector(classifier_trainer=NoTraining(), dense_trainer=NoTraining())
    labels = np.arange(5) % CLASSES
    return {
        "as_images": as_images,
        "DFBDetector.fit": lambda bad: untrained.fit(bad, labels),
        "DFBDetector.fit, unlabelled": untrained.fit,
        "DFBDetector.score_samples": detector.score_samples,
        "DFBDetector.segment": detector.segment,
        "DFBDetector.score": lambda bad: detector.score(bad, labels),
        "DFBDetector.refit_scorer": lambda bad: detector.refit_scorer(X=bad),
        "CAMMaskGenerator.fit": lambda bad: CAMMaskGenerator(tiny_backbone(), trainer=NoTraining()).fit(bad, labels),
        "CAMMaskGenerator.transform": masks.transform,
        "CAMMaskGenerator.attention_maps": masks.attention_maps,
        "Trainer.train": lambda bad: Trainer(max_steps=1).train(network, bad, labels),
    }


# scikit-learn checks these first, since they could be tables, and raises its own errors.
TABLES = {"rank_1", "rank_0", "empty_list", "strings", "none", "ragged", "masked_table"}


@pytest.mark.parametrize("case", BAD_IMAGES)
@pytest.mark.parametrize(
    "door",
    [
        "as_images",
        "DFBDetector.fit",
        "DFBDetector.fit, unlabelled",
        "DFBDetector.score_samples",
        "DFBDetector.segment",
        "DFBDetector.score",
        "DFBDetector.refit_scorer",
        "CAMMaskGenerator.fit",
        "CAMMaskGenerator.transform",
        "CAMMaskGenerator.attention_maps",
        "Trainer.train",
    ],
)
def test_refused(doors, door, case):
    if (door, case) == ("DFBDetector.refit_scorer", "none"):
        return  # X=None uses what was kept from fit
    make, error, message = BAD_IMAGES[case]
    bad = make()
    with pytest.raises((ValueError, TypeError)) as raised:
        doors[door](bad)
    if case not in TABLES or door in ("as_images", "Trainer.train"):
        assert isinstance(raised.value, error)
        assert re.search(message, str(raised.value)), str(raised.value)
    assert re.search(r"\bX\b|image|array|samples", str(raised.value)), str(raised.value)
