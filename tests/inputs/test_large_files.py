"""Large photographs are read with little memory, and nearly as if all of them were."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image
from sklearn.datasets import load_sample_images

from skdfb.images import Preprocessor, as_images, read_batches
from skdfb.images import _batches as batches_module

SIZE = 32
PREPROCESSOR = Preprocessor(SIZE, (0.0,) * 3, (1.0,) * 3)


def photograph(factor: int) -> Any:
    """A photograph of 640 by 427 pixels, repeated."""
    return np.tile(load_sample_images().images[0], (factor, factor, 1))


@pytest.mark.parametrize("factor", [1, 3])
@pytest.mark.parametrize("quality", [75, 95])
def test_a_jpeg_file_that_is_decoded_small(factor: int, quality: int, tmp_path: Path) -> None:
    Image.fromarray(photograph(factor)).save(tmp_path / "a.jpg", quality=quality)
    images = as_images([tmp_path / "a.jpg"])
    whole = PREPROCESSOR.resize(images.read_one(0))
    ((_, small),) = read_batches(images, [np.array([0])], PREPROCESSOR)
    assert max(images.read_one(0, batches_module.OVERSAMPLING * SIZE).shape) < max(images.read_one(0).shape)
    difference = 255 * (whole - small[0]).abs()
    # The tolerance that the user guide names.
    assert difference.mean() < 0.5
    assert difference.flatten().quantile(0.99) < 2.5


def test_a_small_jpeg_file_is_decoded_whole(tmp_path: Path) -> None:
    image = photograph(1)[:90, :90]
    Image.fromarray(image).save(tmp_path / "a.jpg")
    images = as_images([tmp_path / "a.jpg"])
    ((_, read),) = read_batches(images, [np.array([0])], PREPROCESSOR)
    assert_allclose(read[0], PREPROCESSOR.resize(images.read_one(0)), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(3, 70, 333), (1, 333, 70), (2, 3, 100, 101)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_strips_give_the_same_pixels(
    shape: tuple[int, ...], dtype: torch.dtype, interpolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    pixels = pixels if dtype == torch.uint8 else pixels / 255
    preprocessor = Preprocessor(17, (0.0,), (1.0,), interpolation)
    whole = preprocessor.resize(pixels)
    monkeypatch.setattr(batches_module, "_LARGE", 999)
    assert_allclose(preprocessor.resize(pixels), whole, rtol=0, atol=1e-6)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_memory() -> None:
    """A photograph of 30 megapixels is 90 MB of bytes and 360 MB of floats."""
    path = Path(__file__).parents[2] / "benchmarks" / "reading.py"
    output = subprocess.run(
        [sys.executable, str(path), "--megapixels", "30", "--ways", "skdfb"], check=True, capture_output=True, text=True
    ).stdout
    rows = [line.split() for line in output.splitlines()[1:]]
    megabytes = {row[0]: float(row[3]) for row in rows}
    assert megabytes["jpg"] < 90
    assert megabytes["png"] < 90 * 4.2
