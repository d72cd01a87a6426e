"""From images on the user's side to batches of network inputs."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from joblib import Parallel, delayed, effective_n_jobs
from torch import Tensor

from skdfb.images._batch_size import BatchSize
from skdfb.images._images import Images, Indices

__all__ = ["Preprocessor", "check_readable", "iterate_batches", "read_batches"]


@dataclass(frozen=True)
class Preprocessor:
    """Resize to a square and normalise, as the backbone was trained.

    Parameters
    ----------
    image_size : int
        Side of the network's input in pixels. The whole image is squeezed into the square, nothing is cropped.
    mean, std : tuple of float
        A channel's mean and standard deviation, for pixels in 0..1.
    interpolation : {"bilinear", "bicubic"}, default="bicubic"
        Always antialiased.
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"

    def resize(self, pixels: Tensor, size: int | None = None) -> Tensor:
        """Bring pixels (..., 3, H, W), uint8 or 0..1, to floats in 0..1 of shape (..., 3, size, size)."""
        size = self.image_size if size is None else size
        if pixels.dtype == torch.uint8:
            pixels = pixels.float() / 255
        if pixels.shape[-2:] == (size, size):
            return pixels
        images = pixels if pixels.ndim == 4 else pixels[None]
        low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        images = F.interpolate(images, (size, size), mode=self.interpolation, antialias=True)
        images = images.clamp(low, high)  # bicubic overshoots
        return images if pixels.ndim == 4 else images[0]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Subtract the mean and divide by the standard deviation, a channel; the input is (b, 3, H, W) in 0..1."""
        mean = torch.tensor(self.mean, dtype=pixels.dtype, device=pixels.device).view(3, 1, 1)
        return (pixels - mean) / self.channel_std(pixels)

    def channel_std(self, like: Tensor) -> Tensor:
        """Return the standard deviations as (3, 1, 1) with dtype and device of ``like``."""
        return torch.tensor(self.std, dtype=like.dtype, device=like.device).view(3, 1, 1)

    def __call__(self, pixels: Tensor, size: int | None = None) -> Tensor:
        """Resize and normalise a batch of pixels (b, 3, H, W)."""
        return self.normalise(self.resize(pixels, size))


def iterate_batches(
    images: Images,
    batches: Iterable[Indices],
    preprocessor: Preprocessor,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    size: int | None = None,
    n_jobs: int | None = None,
) -> Iterator[tuple[Indices, Tensor]]:
    """Read batches and bring them to the device as network inputs (b, 3, size, size); see :func:`read_batches`."""
    for indices, pixels in read_batches(images, batches, preprocessor, size=size, n_jobs=n_jobs):
        yield indices, preprocessor(pixels.to(device, non_blocking=True), size).to(dtype)


def read_batches(
    images: Images,
    batches: Iterable[Indices],
    preprocessor: Preprocessor,
    *,
    size: int | None = None,
    n_jobs: int | None = None,
) -> Iterator[tuple[Indices, Tensor]]:
    """Read batches of pixels (b, 3, H, W), which ``preprocessor`` makes inputs of.

    With ``n_jobs`` above 1 as many threads read and decode ahead, a batch each. Images that share a size come as they
    are, to be resized on the device; others are resized where they are read, by the same function, so that an image
    gives the same input however it came.
    """

    def read(indices: Indices) -> tuple[Indices, Tensor]:
        if images.size is None:  # one after the other: a batch of photographs as they are would fill the memory
            read_one = (images.read(np.array([index]))[0] for index in indices)
            return indices, torch.stack([preprocessor.resize(image, size) for image in read_one])
        pixels = images.read(indices)
        assert isinstance(pixels, Tensor), "images that share a size come as one tensor"
        return indices, pixels

    n_threads = 1 if n_jobs is None else effective_n_jobs(n_jobs)
    yield from map(read, batches) if n_threads == 1 else _read_ahead(read, batches, n_threads)


_Batch = tuple[Indices, Tensor]


def _read_ahead(read: Callable[[Indices], _Batch], batches: Iterable[Indices], n_threads: int) -> Iterator[_Batch]:
    """Yield ``read(indices)`` in order, read by threads that stay at most ``n_threads`` batches ahead.

    joblib's generator reads on without end, whether or not its results are taken: the whole set would be in memory.
    """
    waiting: deque[Future[_Batch]] = deque()
    with ThreadPoolExecutor(n_threads) as pool:
        for indices in batches:
            waiting.append(pool.submit(read, indices))
            if len(waiting) > n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def check_readable(images: Images, batch_size: int, n_jobs: int | None) -> None:
    """Read each image once, so that a cut file is found before the training; arrays have been checked already."""
    if images.size is not None:
        return

    def read(indices: Indices) -> None:
        for index in indices:
            images.read(np.array([index]))

    batches = BatchSize(batch_size).batches(len(images))
    Parallel(n_jobs=n_jobs, prefer="threads")(delayed(read)(indices) for indices in batches)
