"""Refinement of maps by averaging over neighbouring pixels of similar colour."""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from skdfb.utils import own_torch_modes

__all__ = ["refine_by_affinity"]

_LEAST_STD = 1 / 255  # differences below one grey level are noise, not edges
_KERNEL_SIZE = 2**24  # numbers in the kernels of one part of the images: 64 MB in float32


@own_torch_modes()
def refine_by_affinity(
    maps: Tensor,
    images: Tensor,
    *,
    dilations: Sequence[int],
    n_iterations: int,
    bandwidth: float = 0.1,
) -> Tensor:
    r"""Average maps repeatedly over neighbouring pixels of similar colour.

    .. math::

        m_i \leftarrow \sum_{j \in \mathcal{N}(i)} \alpha_{ij} \, m_j
        \qquad
        \alpha_{i \cdot} = \mathrm{softmax}_j \Bigl(-\tfrac{1}{3} \sum_c \frac{|x_{ic} - x_{jc}|}{w \, s_{ic}}\Bigr)

    The neighbours :math:`\mathcal{N}(i)` of a pixel are the eight pixels around it at the distance of each dilation,
    without the pixel itself. Beyond its edge, an image repeats its last pixel. :math:`x_{ic}` is channel c of the
    image, :math:`s_{ic}` is the standard deviation of the channel over the pixel and its neighbours, but at least
    1/255, and w is the bandwidth. So a map spreads over a region of one colour and stops at its edges. Each step takes
    weighted means: the range of a map never grows, and a constant map does not change.

    Parameters
    ----------
    maps : Tensor of shape (n, H, W)
        The maps, as floats.
    images : Tensor of shape (n, C, H, W)
        The images that they are maps of: floats in 0..1, not normalised.
    dilations : sequence of int
        Distances of the neighbours, in pixels; eight neighbours each.
    n_iterations : int
        Number of times that the maps are averaged; 0 does not change them.
    bandwidth : float, default=0.1
        The bandwidth w. With a smaller bandwidth, fainter edges stop the map.

    Returns
    -------
    maps : Tensor of shape (n, H, W)
        New maps, in the same range.

    Raises
    ------
    ValueError
        If shapes do not fit, maps or images are not floats, or a parameter is invalid.

    See Also
    --------
    skdfb.masks.AffinityMaskGenerator : The same for whole image sets, as a transformer.

    Notes
    -----
    The published kernel divides by the variance. This one divides by w times the standard deviation, so that an image
    of less contrast gives the same result.

    References
    ----------
    Araslanov and Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020, :arxiv:`2005.08104`, where it
    is called pixel-adaptive mask refinement (PAMR).

    Examples
    --------
    >>> import torch
    >>> from skdfb.networks import refine_by_affinity
    >>> image = torch.zeros(1, 3, 6, 6)
    >>> image[..., 3:] = 1  # its right half is white
    >>> found = torch.zeros(1, 6, 6)
    >>> found[:, 2:4, 4] = 1  # a map that covers two pixels of it
    >>> refined = refine_by_affinity(found, image, dilations=(1, 2), n_iterations=10)
    >>> (refined > 0.05)[0, 0]
    tensor([False, False, False,  True,  True,  True])
    """
    _check(maps, images, dilations, n_iterations, bandwidth)
    images = images.to(maps.device, maps.dtype)
    offsets = [(d * dy, d * dx) for d in dilations for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    # The kernels take far more memory than the maps, so they are computed for some images at a time.
    part = max(1, _KERNEL_SIZE // (len(offsets) * max(1, math.prod(maps.shape[1:]))))
    refined = torch.empty_like(maps)
    for first in range(0, len(maps), part):
        rows = slice(first, first + part)
        refined[rows] = _refine(maps[rows], _kernels(images[rows], offsets, bandwidth), offsets, n_iterations)
    return refined


def _check(maps: Tensor, images: Tensor, dilations: Sequence[int], n_iterations: int, bandwidth: float) -> None:
    n, height, width = maps.shape if maps.ndim == 3 else (-1, -1, -1)
    if images.ndim != 4 or (len(images), *images.shape[2:]) != (n, height, width):
        raise ValueError(
            f"maps has shape {tuple(maps.shape)} and images {tuple(images.shape)}: expected (n, H, W) and "
            "(n, C, H, W); resize one of them."
        )
    if not (maps.is_floating_point() and images.is_floating_point()):
        raise ValueError(
            f"maps has dtype {maps.dtype} and images {images.dtype}: expected floats; divide uint8 images by 255."
        )
    if len(dilations) == 0 or min(dilations) < 1:
        raise ValueError(f"dilations={dilations!r}: expected at least one distance of 1 pixel or more.")
    if n_iterations < 0 or not bandwidth > 0:
        raise ValueError(
            f"n_iterations={n_iterations!r} and bandwidth={bandwidth!r}: expected n_iterations >= 0 and bandwidth > 0."
        )


def _shifted(values: Tensor, offsets: Sequence[tuple[int, int]]) -> Iterator[Tensor]:
    """Yield ``values`` (n, C, H, W) shifted by each offset: the neighbour of every pixel at that offset."""
    height, width = values.shape[-2:]
    margin = max(max(offset) for offset in offsets)
    padded = F.pad(values, (margin, margin, margin, margin), mode="replicate")
    for dy, dx in offsets:
        yield padded[..., margin + dy : margin + dy + height, margin + dx : margin + dx + width]


def _kernels(images: Tensor, offsets: Sequence[tuple[int, int]], bandwidth: float) -> Tensor:
    """Return the weights of all neighbours, (n, neighbours, H, W); at each pixel they add up to 1."""
    # The variance from moments about the pixel itself, not about 0: exactly 0 in a region of one colour. The pixel,
    # whose difference is 0, counts as one of n_pixels.
    total, squares = torch.zeros_like(images), torch.zeros_like(images)
    for neighbour in _shifted(images, offsets):
        difference = neighbour - images
        total += difference
        squares += difference.square_()
    n_pixels = len(offsets) + 1
    variance = squares / n_pixels - (total / n_pixels).square_()
    scale = -1 / (images.shape[1] * bandwidth * variance.clamp_(min=_LEAST_STD**2).sqrt_())
    affinities = images.new_empty(len(images), len(offsets), *images.shape[2:])
    for index, neighbour in enumerate(_shifted(images, offsets)):
        affinities[:, index] = ((neighbour - images).abs_() * scale).sum(1)
    return affinities.softmax(1)


def _refine(maps: Tensor, kernels: Tensor, offsets: Sequence[tuple[int, int]], n_iterations: int) -> Tensor:
    for _ in range(n_iterations):
        averaged = torch.zeros_like(maps)
        for index, neighbour in enumerate(_shifted(maps[:, None], offsets)):
            averaged.addcmul_(kernels[:, index], neighbour[:, 0])
        maps = averaged
    return maps
