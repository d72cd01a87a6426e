"""Fits in threads equal fits one after the other, and torch's and NumPy's global random states stay as they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from torch import nn

from skdfb import CAMMaskGenerator, Trainer
from skdfb.networks import create_backbone
from skdfb.scorers import Energy
from skdfb.utils import isolated_rng
from tests.detector.conftest import make_detector
from tests.helpers import TinyBackbone


class Dropping(TinyBackbone):
    """A backbone with dropout and stochastic depth, the latter written by hand."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = nn.functional.dropout(super().forward(images), 0.3, self.training)
        return maps * (torch.rand(len(maps), 1, 1, 1) < 0.8) if self.training else maps


class Watching:
    """An augmentation that draws without its generator, and notes torch's and NumPy's global states."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()

    def augment(self, batch, generator):
        self.seen |= {torch.get_rng_state().numpy().tobytes(), np.random.get_state()[1].tobytes()}  # noqa: NPY002
        return replace(batch, images=batch.images + 0.01 * torch.randn(batch.images.shape))


def weights_of(detector) -> list[torch.Tensor]:
    networks = detector.classifier_, detector.dense_network_
    return [tensor for network in networks for tensor in network.state_dict().values()]


def dropping() -> nn.Module:
    with isolated_rng(0):
        return Dropping()


def created(seed: int) -> nn.Module:
    return create_backbone("test_resnet", pretrained=False, output_stride=8, random_state=seed)


@pytest.mark.parametrize("backbone", ["timm", "dropout"])
def test_fits_in_threads_equal_fits_one_by_one(X, y, backbone):
    watching = Watching()
    changes = {"image_size": 32} if backbone != "dropout" else {}

    def fit(seed: int) -> list[torch.Tensor]:
        trainer = Trainer(max_steps=2, batch_size=8, augmentation=watching, mixup=0.0)
        detector = make_detector(
            backbone=dropping() if backbone == "dropout" else created(seed),
            scorer=Energy(),
            classifier_trainer=trainer,
            dense_trainer=trainer,
            mask_generator=CAMMaskGenerator(scales=(1.0,), flip=False),
            random_state=seed,
            **changes,
        )
        return weights_of(detector.fit(X, y))

    before = torch.get_rng_state()
    alone = [fit(0), fit(1), fit(0)]
    together = Parallel(n_jobs=2, backend="threading")(delayed(fit)(seed) for seed in (0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert watching.seen == {before.numpy().tobytes(), np.random.get_state()[1].tobytes()}  # noqa: NPY002
    for found, expected in ((alone[2], alone[0]), (together[0], alone[0]), (together[1], alone[1])):
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(alone[0], alone[1], strict=True))
