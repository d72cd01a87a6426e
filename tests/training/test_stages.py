"""The networks before their training."""

import pytest
import torch

from skdfb import Trainer
from skdfb.images import as_images
from skdfb.networks import DenseClassifier
from skdfb.scorers import Energy
from skdfb.training._stages import build_classifier, start_dense_network
from tests.detector.conftest import make_detector, make_images
from tests.helpers import TinyBackbone
from tests.training.problems import N_CLASSES, SIZE, easy_problem, equal, weights_of

FROM_PRETRAINED = Trainer(dense_start="pretrained")


def backbone_weights(network):
    return weights_of(network.feature_map.backbone)


@pytest.fixture(scope="module")
def backbone():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return TinyBackbone()


@pytest.fixture(scope="module")
def build(backbone):
    images = as_images(easy_problem()[0])
    return lambda: build_classifier(backbone, N_CLASSES, images, image_size=None, seed=0)


@pytest.fixture(scope="module")
def trained(build):
    images, labels, _ = easy_problem()
    network = build()
    Trainer(max_steps=5, batch_size=16, learning_rate=0.1).train(network, images, labels, device="cpu", random_state=0)
    return network


def test_build_classifier_copies_the_backbone(backbone, build):
    network, again = build(), build()
    assert network.num_classes == N_CLASSES
    assert network.preprocessor.image_size == SIZE  # that of the images
    assert network.feature_map.backbone is not backbone
    assert equal(backbone_weights(network), weights_of(backbone))
    assert equal(weights_of(network), weights_of(again))


def test_the_dense_network_starts_from_the_trained_classifier(build, trained):
    network = start_dense_network(trained, Trainer(), build)
    assert network.num_classes == N_CLASSES + 1
    assert equal(backbone_weights(network), backbone_weights(trained))
    assert torch.equal(network.head.weight[:N_CLASSES], trained.head.weight)
    assert torch.equal(network.head.bias[:N_CLASSES], trained.head.bias)
    # A classifier that the user passed as trained is not built again.
    assert equal(weights_of(start_dense_network(trained, Trainer(), None)), weights_of(network))


def test_the_dense_network_starts_from_the_untrained_weights(backbone, build, trained):
    before = weights_of(trained)
    network = start_dense_network(trained, FROM_PRETRAINED, build)
    assert network.num_classes == N_CLASSES + 1
    assert network.device == trained.device
    assert equal(backbone_weights(network), weights_of(backbone))
    assert not equal(backbone_weights(network), backbone_weights(trained))
    assert equal(weights_of(network), weights_of(build().with_background()))
    assert equal(weights_of(trained), before)


def test_the_untrained_weights_of_a_trained_classifier_are_not_known(trained):
    with pytest.raises(
        ValueError, match=r"dense_start='pretrained', but backbone is a DenseClassifier.*: expected dense"
    ):
        start_dense_network(trained, FROM_PRETRAINED, None)


# ---------------------------------------------------------------- in a detector

X, y = make_images()


@pytest.mark.parametrize("dense_start", ["classifier", "pretrained"])
def test_dense_start_of_a_detector(backbone, dense_start):
    """A learning rate this small changes no weight of the dense network, so the start is still there after fit."""
    trainer = Trainer(max_steps=1, batch_size=16, learning_rate=1e-30, dense_start=dense_start)
    detector = make_detector(backbone=backbone, scorer=Energy(), dense_trainer=trainer).fit(X, y)
    classifier, dense = backbone_weights(detector.classifier_), backbone_weights(detector.dense_network_)
    assert equal(dense, classifier) == (dense_start == "classifier")
    assert equal(dense, weights_of(backbone)) == (dense_start == "pretrained")


def test_a_detector_refuses_untrained_weights_of_a_trained_classifier(backbone):
    network = DenseClassifier(backbone, 3, image_size=16)
    detector = make_detector(backbone=network, dense_trainer=FROM_PRETRAINED)
    with pytest.raises(
        ValueError, match="dense_trainer has dense_start='pretrained', but backbone is a DenseClassifier"
    ):
        detector.fit(X, y)
    assert not hasattr(detector, "dense_network_")
