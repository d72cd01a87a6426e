"""Maps drawn to the edges of their images: averaging over pixels of like colour."""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["refine_by_affinity"]

_LEAST_STD = 1 / 255  # fainter differences than one grey level are no edges
_KERNEL_SIZE = 2**24  # numbers in the kernels that are held at a time: 64 MB in float32


@torch.no_grad()
def refine_by_affinity(
    maps: Tensor,
    images: Tensor,
    *,
    dilations: Sequence[int],
    n_iterations: int,
    bandwidth: float = 0.1,
) -> Tensor:
    r"""Average maps over neighbouring pixels of like colour, again and again.

    .. math::

        m_i \leftarrow \sum_{j \in \mathcal{N}(i)} \alpha_{ij} \, m_j
        \qquad
        \alpha_{i \cdot} = \mathrm{softmax}_j \Bigl(-\tfrac{1}{3} \sum_c \frac{|x_{ic} - x_{jc}|}{w \, s_{ic}}\Bigr)

    The neighbours :math:`\mathcal{N}(i)` of a pixel are the eight around it at each of the dilations, its own place is
    not among them, and beyond its edge an image goes on with its last pixel. :math:`x_{ic}` is channel c of the image,
    :math:`s_{ic}` the channel's standard deviation over pixel and neighbours, but at least 1/255, and w the bandwidth.
    So a map spreads over a region of one colour and stops at its edges. Each step takes weighted means: the range of a
    map never grows, and a constant map stays as it is.

    Parameters
    ----------
    maps : Tensor of shape (n, H, W)
        Floats.
    images : Tensor of shape (n, C, H, W)
        What they are maps of: floats in 0..1, not normalised.
    dilations : sequence of int
        Distances of the neighbours, in pixels; eight neighbours each.
    n_iterations : int
        How often the maps are averaged; 0 leaves them as they are.
    bandwidth : float, default=0.1
        w; the smaller it is, the fainter the edges that hold a map back.

    Returns
    -------
    maps : Tensor of shape (n, H, W)

    Raises
    ------
    ValueError
        If shapes do not fit, the images hold no floats, or a parameter is not as wanted.

    See Also
    --------
    skdfb.masks.AffinityMaskGenerator : The same for whole image sets, as a transformer.

    Notes
    -----
    The published kernel divides by the variance where this one has w times the standard deviation, so that it is the
    same for a paler image.

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
    >>> found[:, 2:4, 4] = 1  # of which a map knows two pixels
    >>> refined = refine_by_affinity(found, image, dilations=(1, 2), n_iterations=10)
    >>> (refined > 0.05)[0, 0]
    tensor([False, False, False,  True,  True,  True])
    """
    _check(maps, images, dilations, n_iterations, bandwidth)
    images = images.to(maps.device, maps.dtype)
    offsets = [(d * dy, d * dx) for d in dilations for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
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
            f"maps has shape {tuple(maps.shape)} and images {tuple(images.shape)}; (n, H, W) and (n, C, H, W) are "
            "wanted: resize one of them."
        )
    if not (maps.is_floating_point() and images.is_floating_point()):
        raise ValueError(
            f"maps has dtype {maps.dtype} and images {images.dtype}; floats are wanted: divide uint8 images by 255."
        )
    if len(dilations) == 0 or min(dilations) < 1:
        raise ValueError(f"dilations={dilations!r}; at least one distance of 1 pixel or more is wanted.")
    if n_iterations < 0 or not bandwidth > 0:
        raise ValueError(
            f"n_iterations={n_iterations!r} and bandwidth={bandwidth!r}; a number from 0 up and one above 0 are wanted."
        )


def _shifted(values: Tensor, offsets: Sequence[tuple[int, int]]) -> Iterator[Tensor]:
    """Yield what lies at each offset of every pixel of ``values`` (n, C, H, W)."""
    height, width = values.shape[-2:]
    margin = max(max(offset) for offset in offsets)
    padded = F.pad(values, (margin, margin, margin, margin), mode="replicate")
    for dy, dx in offsets:
        yield padded[..., margin + dy : margin + dy + height, margin + dx : margin + dx + width]


def _kernels(images: Tensor, offsets: Sequence[tuple[int, int]], bandwidth: float) -> Tensor:
    """Return the weights of all neighbours, (n, neighbours, H, W); they add up to 1 at each pixel."""
    # Moments about the pixel itself, which is one of those counted: exactly 0 where all are alike.
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
