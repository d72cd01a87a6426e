"""Images that are decoded and resized once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from skdfb.datasets import load_resized_images
from skdfb.images import Preprocessor, as_images
from tests.bad_images import CountingDataset
from tests.detector.conftest import make_detector, make_images


@pytest.fixture
def photographs() -> list[Any]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (30 + index, 40, 3)).astype(np.uint8)) for index in range(70)]


def test_they_are_those_that_the_network_would_get(photographs: list[Any]) -> None:
    resized = load_resized_images(photographs, 16)
    preprocessor = Preprocessor(16, (0.0,) * 3, (1.0,) * 3)
    for image, given in zip(resized, photographs, strict=True):
        expected = preprocessor.resize(as_images([given]).read_one(0)).movedim(0, -1).numpy()
        assert_allclose(image / 255, expected, rtol=0, atol=0.51 / 255)


def test_each_image_is_read_once(photographs: list[Any]) -> None:
    dataset = CountingDataset(photographs)
    load_resized_images(dataset, 16, n_jobs=2)
    assert (dataset.counts == 1).all()


def test_a_file(photographs: list[Any], tmp_path: Path) -> None:
    mapped = load_resized_images(photographs, 16, path=tmp_path / "images.npy")
    assert isinstance(mapped, np.memmap)
    assert_array_equal(mapped, load_resized_images(photographs, 16))
    assert_array_equal(np.load(tmp_path / "images.npy", mmap_mode="r"), mapped)
    with pytest.raises(FileExistsError, match=r"there is a file already; .*np\.load\(path, mmap_mode='r'\)"):
        load_resized_images(photographs, 16, path=tmp_path / "images.npy")


def test_deeper_numbers() -> None:
    X = np.random.default_rng(0).integers(0, 4096, (5, 20, 20, 3)).astype(np.uint16)
    resized = load_resized_images(X, 10, dtype="float32")
    assert resized.dtype == np.float32
    assert len(np.unique(resized)) > 1000
    assert_allclose(load_resized_images(X, 10) / 255, resized, rtol=0, atol=0.51 / 255)


def test_channels_and_range() -> None:
    X = np.random.default_rng(0).uniform(200, 400, (5, 20, 20, 6))
    resized = load_resized_images(X, 20, dtype="float32", n_channels=6, image_range=(200, 400))
    assert_allclose(resized, (X - 200) / 200, rtol=0, atol=1e-6)


def test_a_detector_gives_nearly_the_same_scores() -> None:
    X, y = make_images()
    images = [Image.fromarray(image).resize((40, 32)) for image in X]
    first = make_detector(image_size=16).fit(images, y).score_samples(images)
    resized = load_resized_images(images, 16)
    second = make_detector(image_size=16).fit(resized, y).score_samples(resized)
    assert np.corrcoef(first, second)[0, 1] > 0.95


def test_bad_parameters(photographs: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"dtype='int8': expected 'uint8' or 'float32'"):
        load_resized_images(photographs, 16, dtype="int8")
    with pytest.raises(ValueError, match="image_range"):
        load_resized_images(photographs, 16, image_range=(1, 0))
