"""Random zooms and flips of whole batches on their device; images and masks are transformed together."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from skdfb._transfers import upload
from skdfb.augmentation._batch import IGNORED, Batch

__all__ = ["zoom_and_flip"]


def _uniform(n: int, low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=generator, dtype=torch.float64)


def zoom_and_flip(
    batch: Batch, scale_range: tuple[float, float], flip: bool, output_size: int, generator: Generator
) -> Batch:
    """Scale each image by its own random factor, crop or place it at random, and mirror half of the images.

    With a factor above 1, a random window of ``output_size`` is cropped from the enlarged image. With a factor below 1,
    the smaller image is placed at random; around it, pixels are 0 (the mean pixel) and the mask is :data:`IGNORED`.
    Masks may have another size than the images.
    """
    n = len(batch.images)
    # In grid_sample's coordinates the image spans [-1, 1], and its window spans 2 / factor.
    inverse = 1 / _uniform(n, *scale_range, generator)
    slack = (1 - inverse).abs()  # how far the window's centre may lie from the image's
    x, y = (slack * _uniform(n, -1, 1, generator) for _ in range(2))
    sign = 1 - 2 * (torch.rand(n, generator=generator, dtype=torch.float64) < 0.5) if flip else torch.ones(n)
    zero = torch.zeros(n)
    theta = torch.stack([torch.stack([sign * inverse, zero, x], 1), torch.stack([zero, inverse, y], 1)], 1)
    theta = upload(theta.to(batch.images.dtype), batch.images.device)  # (n, 2, 3)
    grid = F.affine_grid(theta, [n, 1, output_size, output_size], align_corners=False)
    images = _sample(batch.images, grid, inverse * (batch.images.shape[-1] / output_size))
    if batch.masks is None:
        return replace(batch, images=images)
    # Outside the image, sampling gives 0: so IGNORED becomes 0 before it, and IGNORED again after it.
    shifted = (batch.masks - IGNORED)[:, None].to(images.dtype)
    masks = F.grid_sample(shifted, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return replace(batch, images=images, masks=masks[:, 0].round().long() + IGNORED)


def _sample(images: Tensor, grid: Tensor, step: Tensor) -> Tensor:
    """Sample each image bilinearly at the points of its grid, which are ``step`` pixels apart.

    If the step is two pixels or more, as for a large photograph that is scaled down, bilinear sampling would skip
    pixels. Such an image is first halved, with antialiasing, until the step is below two.
    """
    halvings = step.log2().floor().clamp_min(0)
    counts = sorted(set(halvings.tolist()))
    if len(counts) == 1:
        return _sample_halved(images, grid, counts[0])
    sampled = images.new_empty(len(images), images.shape[1], *grid.shape[1:3])
    # One pass per number of halvings. The rows of all passes go to the device at once.
    order = upload(halvings.argsort(stable=True), images.device)
    ends = [int((halvings <= count).sum()) for count in counts]
    for start, end, count in zip([0, *ends], ends, counts, strict=False):
        rows = order[start:end]
        sampled[rows] = _sample_halved(images[rows], grid[rows], count)
    return sampled


def _sample_halved(images: Tensor, grid: Tensor, n_halvings: float) -> Tensor:
    if n_halvings:
        side = max(1, round(images.shape[-1] / 2**n_halvings))
        images = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
