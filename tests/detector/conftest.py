"""Small images, a small detector and a fitted one, shared by the tests of the detector."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from skdfb import CAMMaskGenerator, DFBDetector, Trainer
from skdfb.fusion import TemperatureFusion
from skdfb.scorers import BackgroundLogit
from tests.helpers import TinyBackbone

SIDE, CLASSES = 16, 3


def make_images(n: int = 60, seed: int = 0) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp]]:
    """Coloured squares, one colour a class, at random places of a noisy background."""
    rng = np.random.default_rng(seed)
    X = rng.integers(40, 120, size=(n, SIDE, SIDE, 3), dtype=np.uint8)
    y = np.arange(n) % CLASSES
    for image, label, (row, column) in zip(X, y, rng.integers(0, SIDE - 7, size=(n, 2)), strict=True):
        image[row : row + 8, column : column + 8, label] += 130
    return X, y


def tiny_backbone(dtype: torch.dtype = torch.float32, seed: int = 0) -> TinyBackbone:
    """A backbone whose weights follow the seed; torch's own generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TinyBackbone(dtype=dtype)


def make_detector(dtype: torch.dtype = torch.float32, **changes: Any) -> DFBDetector:
    """Return a small detector with the paper's two parts, which take few held-out images."""
    trainer = Trainer(max_steps=30, batch_size=16, learning_rate=0.2, schedule="step", mixup=0.1)
    parameters: dict[str, Any] = {
        "backbone": tiny_backbone(dtype),
        "background_scorer": BackgroundLogit(),
        "fusion": TemperatureFusion(),
        "mask_generator": CAMMaskGenerator(scales=(1.0, 0.5)),
        "classifier_trainer": trainer,
        "dense_trainer": trainer,
        "calibration_fraction": 0.35,
        "device": "cpu",
        "random_state": 0,
    }
    return DFBDetector(**parameters | changes)


@pytest.fixture(scope="session")
def data() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp]]:
    X, y = make_images()
    X.setflags(write=False)
    y.setflags(write=False)
    return X, y


@pytest.fixture(scope="session", name="X")
def training_images(data):
    return data[0]


@pytest.fixture(scope="session", name="y")
def training_labels(data):
    return data[1]


@pytest.fixture(scope="session", name="X_new")
def new_images():
    return make_images(24, seed=1)[0]


@pytest.fixture(scope="session")
def fitted(X, y):
    """A fitted detector with the default scorer; tests must not change it."""
    return make_detector().fit(X, y)


@pytest.fixture(scope="session")
def fitted64(X, y):
    """The same in float64."""
    return make_detector(torch.float64).fit(X, y)
