"""Small problems that are shared by the tests of this package."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from skdfb.networks import DenseClassifier
from skdfb.training import Trainer
from tests.helpers import TinyBackbone

SIZE, N_CLASSES = 16, 3
PLAIN: dict[str, Any] = {"scale_range": None, "flip": False, "mixup": None, "schedule": "constant", "warmup_steps": 0}


def tiny_network(num_classes: int = N_CLASSES, dtype: torch.dtype = torch.float32, seed: int = 0) -> DenseClassifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DenseClassifier(TinyBackbone(dtype=dtype), num_classes, image_size=SIZE)


def easy_problem(n: int = 60, seed: int = 0) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp], npt.NDArray[Any]]:
    """Squares of the class's colour on noise: images, class indices, and masks where the square is."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, N_CLASSES, n)
    images = rng.integers(0, 60, (n, SIZE, SIZE, 3)).astype(np.uint8)
    masks = np.full((n, SIZE, SIZE), N_CLASSES, dtype=np.uint8)
    for i, label in enumerate(labels):
        top, left = rng.integers(0, SIZE // 2, 2)
        images[i, top : top + 8, left : left + 8, label] = 230
        masks[i, top : top + 8, left : left + 8] = label
    return images, labels, masks


def weights_of(network: DenseClassifier) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def train(
    trainer: Trainer, *, dense: bool = False, dtype: torch.dtype = torch.float32, seed: int = 0, n: int = 60
) -> tuple[DenseClassifier, dict[str, list[float]]]:
    images, labels, masks = easy_problem(n)
    network = tiny_network(N_CLASSES + dense, dtype)
    history = trainer.train(network, images, labels, masks if dense else None, device="cpu", random_state=seed)
    return network, history
