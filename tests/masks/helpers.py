"""What the tests of the mask generators share."""

from typing import Any

import torch
from torch import nn

from skdfb.networks import DenseClassifier
from skdfb.training import Trainer
from tests.helpers import TinyBackbone

SIZE, N, K = 32, 10, 3

QUICK: dict[str, Any] = {"device": "cpu", "trainer": Trainer(max_steps=2, batch_size=8), "random_state": 0}


def trained_network(n_classes=K, backbone=None, dtype=torch.float32, size=SIZE):
    """A network whose weights are random, which counts as trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DenseClassifier(backbone or TinyBackbone(dtype=dtype), n_classes, image_size=size)
        nn.init.normal_(network.head.weight)
    return network
