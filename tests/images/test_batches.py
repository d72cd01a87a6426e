"""From images to network inputs: the same for all forms of images, in order, with few images in memory."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from skdfb.images import BatchSize, Images, Preprocessor, as_images, read_batches

Array = npt.NDArray[Any]
CPU = torch.device("cpu")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


@pytest.fixture(scope="module")
def pixels() -> Array:
    return np.random.default_rng(0).integers(0, 256, (7, 20, 14, 3)).astype(np.uint8)


def inputs(X: Any, batch_size: int = 3, **options: Any) -> Tensor:
    images = as_images(X)
    preprocessor = options.pop("preprocessor", Preprocessor(16, MEAN, STD))
    batches = list(read_batches(images, BatchSize(batch_size).batches(len(images)), preprocessor, **options))
    assert [index for indices, _ in batches for index in indices] == list(range(len(images)))
    return torch.cat([preprocessor(pixels, options.get("size")) for _, pixels in batches])


class TestPreprocessor:
    def test_normalise_by_hand(self, pixels: Array) -> None:
        preprocessor = Preprocessor(14, MEAN, STD)
        batch = torch.from_numpy(pixels[:, :14]).permute(0, 3, 1, 2)
        expected = (pixels[:, :14] / 255 - np.array(MEAN)) / np.array(STD)
        np.testing.assert_allclose(preprocessor(batch).permute(0, 2, 3, 1).numpy(), expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(preprocessor.channel_std(batch.double()).flatten().numpy(), STD)

    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
    @pytest.mark.parametrize("size", [8, 16, 40])
    def test_resize_is_that_of_pillow(self, pixels: Array, interpolation: str, size: int) -> None:
        """Pillow rounds to whole levels after each axis and keeps overshoots up to 0 and 255."""
        smooth = np.asarray(Image.fromarray(pixels[0]).resize((14, 20)).resize((5, 6)).resize((14, 20)))
        preprocessor = Preprocessor(size, MEAN, STD, interpolation)
        ours = preprocessor.resize(torch.from_numpy(smooth.copy()).permute(2, 0, 1)) * 255
        method = getattr(Image.Resampling, interpolation.upper())
        expected = np.asarray(Image.fromarray(smooth).resize((size, size), method)).clip(smooth.min(), smooth.max())
        np.testing.assert_allclose(ours.permute(1, 2, 0).numpy(), expected, rtol=0, atol=1.5)

    @given(height=st.integers(1, 12), width=st.integers(1, 12), size=st.integers(1, 12), seed=st.integers(0, 9))
    def test_resize_stays_in_the_images_range(self, height: int, width: int, size: int, seed: int) -> None:
        images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
        resized = Preprocessor(size, MEAN, STD).resize(images)
        assert resized.shape == (2, 3, size, size)
        assert (resized.amin((1, 2, 3)) >= images.amin((1, 2, 3))).all()
        assert (resized.amax((1, 2, 3)) <= images.amax((1, 2, 3))).all()

    def test_one_image_or_a_batch(self, pixels: Array) -> None:
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        preprocessor = Preprocessor(9, MEAN, STD)
        alone = torch.stack([preprocessor.resize(image) for image in batch])
        torch.testing.assert_close(preprocessor.resize(batch), alone, rtol=0, atol=1e-6)

    def test_constant_stays_constant(self) -> None:
        white = torch.full((1, 3, 7, 5), 255, dtype=torch.uint8)
        assert torch.equal(Preprocessor(11, MEAN, STD).resize(white), torch.ones(1, 3, 11, 11))

    def test_other_size(self, pixels: Array) -> None:
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        assert Preprocessor(16, MEAN, STD)(batch, 24).shape == (7, 3, 24, 24)


class TestSameInput:
    @pytest.mark.parametrize("size", [None, 8, 40])
    def test_arrays_pil_paths_and_tensors(self, pixels: Array, tmp_path: Path, size: int | None) -> None:
        paths = [tmp_path / f"{index}.png" for index in range(len(pixels))]
        for path, image in zip(paths, pixels, strict=True):
            Image.fromarray(image).save(path)
        expected = inputs(pixels, size=size)
        assert expected.shape == (7, 3, size or 16, size or 16)
        for form in (
            paths,
            [Image.fromarray(image) for image in pixels],
            torch.utils.data.TensorDataset(torch.from_numpy(pixels).permute(0, 3, 1, 2)),
            pixels / 255,
        ):
            torch.testing.assert_close(inputs(form, size=size), expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
    def test_any_batch_size(self, pixels: Array, batch_size: int) -> None:
        torch.testing.assert_close(inputs(pixels, batch_size), inputs(pixels, 3), rtol=0, atol=1e-6)

    def test_several_sizes_in_one_batch(self, pixels: Array) -> None:
        mixed = [pixels[0], pixels[1, :9], pixels[2, :, :7]]
        expected = torch.cat([inputs(image[None]) for image in mixed])
        torch.testing.assert_close(inputs(mixed), expected, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("n_jobs", [None, 1, 2, 3, -1])
    @pytest.mark.parametrize("as_pil", [True, False])
    def test_threads(self, pixels: Array, n_jobs: int | None, as_pil: bool) -> None:
        X = [Image.fromarray(image) for image in pixels] if as_pil else pixels
        assert torch.equal(inputs(X, 1, n_jobs=n_jobs), inputs(X, 1))


class Counting(Images):
    """Counts the images that are read; one image may be broken."""

    def __init__(self, n: int, broken: int | None = None) -> None:
        self.n, self.broken, self.read_count = n, broken, 0
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return self.n

    def read(self, indices: npt.NDArray[np.intp]) -> Tensor:
        with self.lock:
            self.read_count += len(indices)
        if self.broken in indices:
            raise ValueError(f"image {self.broken} cannot be read")
        return torch.zeros(len(indices), 3, 4, 4)


def iterate(images: Images, n_jobs: int, batch_size: int = 1) -> Any:
    batches = BatchSize(batch_size).batches(len(images))
    return read_batches(images, batches, Preprocessor(4, MEAN, STD), n_jobs=n_jobs)


class TestThreads:
    @pytest.mark.parametrize("n_jobs", [1, 2, 4])
    def test_few_batches_are_read_ahead(self, n_jobs: int) -> None:
        images = Counting(200)
        for position, _ in enumerate(iterate(images, n_jobs), start=1):
            assert images.read_count <= position + n_jobs

    @pytest.mark.parametrize("n_jobs", [1, 2])
    def test_caller_may_stop_early(self, n_jobs: int) -> None:
        images = Counting(200)
        running = threading.active_count()
        batches = iterate(images, n_jobs)
        next(batches)
        batches.close()
        assert images.read_count <= 1 + n_jobs
        assert threading.active_count() == running

    @pytest.mark.parametrize("n_jobs", [1, 2])
    def test_error_is_raised_at_its_place(self, n_jobs: int) -> None:
        running = threading.active_count()
        batches = iterate(Counting(200, broken=5), n_jobs)
        assert [int(next(batches)[0][0]) for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(ValueError, match="image 5 cannot be read"):
            next(batches)
        assert threading.active_count() == running

    def test_no_batches(self) -> None:
        for n_jobs in (1, 2):
            assert list(read_batches(Counting(3), [], Preprocessor(4, MEAN, STD), n_jobs=n_jobs)) == []


def test_what_is_kept_of_inference_mode_can_be_trained_with() -> None:
    preprocessor = Preprocessor(4, (0.1, 0.2, 0.35), (0.3, 0.4, 0.55))
    with torch.inference_mode():
        preprocessor.normalise(torch.rand(1, 3, 4, 4))
    images = torch.rand(1, 3, 4, 4, requires_grad=True)
    preprocessor.normalise(images).sum().backward()
    assert images.grad is not None
