"""The same images give the same pixels by every door, or are refused with the same words."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skdfb import CAMMaskGenerator, Trainer
from skdfb.images import as_images
from skdfb.networks import DenseClassifier
from skdfb.scorers import MSP
from tests.detector.conftest import make_detector, tiny_backbone
from tests.inputs.forms import FORMS, can_hold

SIDE, N = 16, 8
LABELS = np.arange(N) % 2
DTYPES = ["u1", "?", "i1", "u2", "i2", "u4", "i4", "i8", ">u2", "f2", "f4", "f8", ">f4"]
# The least and the largest value, where the type holds them.
SPANS = [
    (0, 1),
    (0, 0.9),
    (0, 255),
    (0, 200),
    (0, 4000),
    (0, 60_000),
    (-1000, 1000),
    (0, 2**31 - 1),
    (-2, 2),
    (0.2, 0.2),
]


class Recording(torch.nn.Module):
    """Keeps the inputs that reach the network, and maps them to features."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = tiny_backbone()
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images.detach().clone())
        return self.backbone(images)


def network() -> DenseClassifier:
    return DenseClassifier(Recording(), 2, image_size=SIDE)


def pixels_seen(network: DenseClassifier) -> Any:
    """The last N inputs, without their normalisation."""
    seen = network.feature_map.backbone.seen
    inputs = torch.cat(seen)[-N:]
    preprocessor = network.preprocessor
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (preprocessor.mean, preprocessor.std))
    return (inputs * std + mean).movedim(1, -1).numpy()


def by_reading(X: Any) -> Any:
    images = as_images(X)
    read = images.read(np.arange(N))
    stacked = torch.stack([image.float() / 255 if image.dtype == torch.uint8 else image for image in read])
    return stacked.movedim(1, -1).numpy()


def by_masks(X: Any) -> Any:
    given = network()
    generator = CAMMaskGenerator(given, scales=(1.0,), flip=False).fit(X, LABELS)
    generator.attention_maps(X)
    return pixels_seen(generator.network_)


def by_detector(X: Any) -> Any:
    trainer = Trainer(max_steps=1, batch_size=4, scale_range=None, flip=False)
    detector = make_detector(
        backbone=network(),
        scorer=MSP(),
        mask_generator=CAMMaskGenerator(scales=(1.0,), flip=False),
        dense_trainer=trainer,
        calibration_fraction=0.5,
        alpha=0.5,
    ).fit(X, LABELS)
    detector.score_samples(X)
    return pixels_seen(detector.dense_network_)


DOORS = {"reading": by_reading, "masks": by_masks, "detector": by_detector}


def image_array(dtype: str, low: float, high: float, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        return (low + (high - low) * rng.random((N, SIDE, SIDE, 1))).astype(dtype)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    dtype=st.sampled_from(DTYPES),
    span=st.sampled_from(SPANS),
    form=st.sampled_from([form for form in FORMS if form != "list of sizes"]),
    seed=st.integers(0, 9),
)
@pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")
def test_every_door_agrees(dtype: str, span: Any, form: str, seed: int, tmp_path_factory: Any) -> None:
    array = image_array(dtype, *span, seed)
    native = array.dtype.newbyteorder("=")
    if not can_hold(form, native) or (array.dtype != native and form != "array"):
        return
    results, errors = {}, {}
    for name, door in DOORS.items():
        X = FORMS[form](array, tmp_path_factory.mktemp("images"))
        try:
            results[name] = door(X)
        except (ValueError, TypeError) as error:
            # In fit, the message tells of all images; the reason is that of the first.
            errors[name] = getattr(error, "reason", str(error))
    # Sets of one colour can be read, but nothing can be learned from them.
    constant = {name: message for name, message in errors.items() if "X holds" in message}
    if constant:
        assert set(constant) == {"masks", "detector"}
        assert len(set(constant.values())) == 1
        return
    assert not errors or not results, errors
    assert len(set(errors.values())) <= 1, errors
    for found in results.values():
        np.testing.assert_allclose(found, results["reading"], rtol=0, atol=1e-5)
        assert found.min() >= -1e-5
        assert found.max() <= 1 + 1e-5
