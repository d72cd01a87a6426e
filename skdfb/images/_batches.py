"""Batches of network inputs, made from images: read, resize, normalise."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from joblib import effective_n_jobs
from torch import Tensor

from skdfb._transfers import pinned
from skdfb.images._images import Images, Indices

__all__ = ["Preprocessor", "read_batches"]

# Large JPEG files are decoded at a half, a quarter or an eighth of their size, if the sides stay this many times those
# of the network's input: then the resized pixels are nearly those of the whole file.
OVERSAMPLING = 3
# Numbers per image in memory. To copy a batch of smaller ones takes less time than to hand it over to another thread.
_WORTH_A_THREAD = 2**16
# Larger images are resized in strips of at most this many pixels.
_LARGE = 2**22


@dataclass(frozen=True)
class Preprocessor:
    """Resize to a square and normalise, as in the backbone's own training.

    Parameters
    ----------
    image_size : int
        Side of the network's input in pixels. The whole image is resized to the square; nothing is cropped.
    mean, std : tuple of C floats
        Mean and standard deviation of each of the C channels, for pixels in 0..1.
    interpolation : {"bilinear", "bicubic"}, default="bicubic"
        Always antialiased.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"

    @property
    def n_channels(self) -> int:
        """Number of channels C."""
        return len(self.mean)

    def resize(self, pixels: Tensor, size: int | None = None) -> Tensor:
        """Resize an image or a batch.

        Parameters
        ----------
        pixels : Tensor of shape (C, H, W) or (b, C, H, W)
            Pixels as uint8 in 0..255 or floats in 0..1.
        size : int, default=None
            Side of the result; None takes ``image_size``.

        Returns
        -------
        resized : Tensor of shape (C, size, size) or (b, C, size, size)
            Floats in 0..1.
        """
        size = self.image_size if size is None else size
        if pixels.shape[-2:] == (size, size):
            return _floats(pixels)
        images = pixels if pixels.ndim == 4 else pixels[None]  # (b, C, H, W)
        limits = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        # Strips of rows, so that never all pixels are floats. The width changes in the strips, the height stays, since
        # a filter of scale 1 leaves it as it is; then the height changes.
        strips = torch.split(images, max(1, _LARGE // images.shape[-1]), dim=-2)
        if len(strips) > 1:
            images = torch.cat([self._interpolated(strip, (strip.shape[-2], size)) for strip in strips], dim=-2)
        images = self._interpolated(images, (size, size))
        # Bicubic interpolation overshoots at edges. The limits are those of each image, not of its batch.
        low, high = map(_floats, limits)
        images = images.clamp(low, high)
        return images if pixels.ndim == 4 else images[0]

    def _interpolated(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        # Floats first: interpolation of uint8 rounds, and the same image as floats would give another result.
        return F.interpolate(_floats(images), size, mode=self.interpolation, antialias=True)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Subtract the mean and divide by the standard deviation per channel; the input is (b, C, H, W) in 0..1."""
        return (pixels - _channels(self.mean, pixels.dtype, pixels.device)).div_(self.channel_std(pixels))

    def channel_std(self, like: Tensor) -> Tensor:
        """Return the standard deviations as (C, 1, 1) with dtype and device of ``like``."""
        return _channels(self.std, like.dtype, like.device)

    def __call__(self, pixels: Tensor, size: int | None = None) -> Tensor:
        """Resize and normalise a batch of pixels (b, C, H, W)."""
        return self.normalise(self.resize(pixels, size))


@lru_cache
def _channels(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a number per channel as (C, 1, 1). It is kept: sending it to a device again with each batch takes time."""
    with torch.inference_mode(False):  # a tensor of this mode could not be used in a training
        return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)


def _floats(pixels: Tensor) -> Tensor:
    """Return pixels as floats in 0..1."""
    return pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels


def read_batches(
    images: Images,
    batches: Iterable[Indices],
    preprocessor: Preprocessor,
    *,
    size: int | None = None,
    n_jobs: int | None = None,
    device: torch.device | None = None,
) -> Iterator[tuple[Indices, Tensor]]:
    """Read batches of pixels.

    Images that share a size are not changed: they can be resized on the device. Others are resized as they are read,
    by the same function, so an image gives the same input in any form.

    Parameters
    ----------
    images : Images
        The images.
    batches : iterable of ndarray of int
        Places of the images of each batch.
    preprocessor : Preprocessor
        Resizes images of several sizes.
    size : int, default=None
        Side of resized images; None takes that of ``preprocessor``.
    n_jobs : int, default=None
        Number of threads that read and decode ahead, one batch each; -1 means all processors. None reads in the
        caller's thread. But for a GPU one thread reads ahead, unless images are small and in memory, or reading runs
        code of the user, which may depend on its thread.
    device : torch.device, default=None
        Where the pixels will go. For a GPU they come in memory that it can read by itself.

    Yields
    ------
    indices : ndarray of int of shape (b,)
        Places of the images.
    pixels : Tensor of shape (b, C, H, W)
        Pixels as uint8 in 0..255 or floats in 0..1.
    """
    for_gpu = device is not None and device.type == "cuda"
    slow = images.size is None or math.prod(images.size) * images.n_channels >= _WORTH_A_THREAD
    # Threads suffice: PIL and NumPy release the interpreter's lock while they decode and copy.
    n_threads = 1 if n_jobs is None else effective_n_jobs(n_jobs)
    ahead = n_threads > 1 or (for_gpu and n_jobs is None and slow and not images.runs_user_code)

    def read(indices: Indices) -> tuple[Indices, Tensor]:
        if images.size is None:
            # One by one: a batch of photographs in full size would fill the memory.
            least_side = OVERSAMPLING * (size or preprocessor.image_size)
            read_one = (images.read_one(int(index), least_side) for index in indices)
            pixels: list[Tensor] | Tensor = torch.stack([preprocessor.resize(image, size) for image in read_one])
        else:
            pixels = images.read(indices)
        assert isinstance(pixels, Tensor), "images that share a size are read as one tensor"
        return indices, pinned(pixels) if for_gpu and ahead else pixels

    yield from _read_ahead(read, batches, n_threads) if ahead else map(read, batches)


_Batch = tuple[Indices, Tensor]


def _read_ahead(read: Callable[[Indices], _Batch], batches: Iterable[Indices], n_threads: int) -> Iterator[_Batch]:
    """Yield ``read(indices)`` in order, read by threads that stay at most ``n_threads`` batches ahead.

    joblib's generator does not wait until its results are used: the whole set would end up in memory.
    """
    waiting: deque[Future[_Batch]] = deque()
    with ThreadPoolExecutor(n_threads) as pool:
        for indices in batches:
            waiting.append(pool.submit(read, indices))
            # The oldest batch comes first, whichever is ready first.
            if len(waiting) > n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
