"""Class activation maps of a network (Eq. 1)."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from skdfb.networks._dense_classifier import DenseClassifier

__all__ = ["attention_maps", "gaussian_blur", "min_max", "scaled_views"]


@torch.no_grad()
def attention_maps(
    network: DenseClassifier,
    images: Tensor,
    targets: Tensor | None,
    *,
    input_sizes: Sequence[int],
    flip: bool,
    sigma: float,
    output_size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    r"""Class activation maps summed over scales and flips, smoothed, and brought to [0, 1].

    .. math:: M_y = \sum_{\text{scales, flips}} \mathrm{up}(\mathrm{ReLU}(W_y \cdot F(x)))

    Parameters
    ----------
    network : DenseClassifier
        In evaluation mode; its first classes are meant by ``targets``.
    images : Tensor of shape (n, 3, H, W)
        Normalised inputs at the network's own size.
    targets : Tensor of shape (n,) or None
        The class y of each image; None takes the predicted one (at the network's own size, unflipped).
    input_sizes : sequence of int
        Sides in pixels the images are scaled to; one forward pass each, and one more for its flip.
    flip : bool
        Whether mirrored images are added.
    sigma : float
        Of the Gaussian, in pixels of the output.
    output_size : tuple of (int, int)
        Height and width of the maps.

    Returns
    -------
    maps : Tensor of shape (n, height, width)
        In [0, 1]; each image has its own minimum 0 and maximum 1, a constant map is all 0.
    targets : Tensor of shape (n,)

    See Also
    --------
    skdfb.masks.CAMMaskGenerator : The same for whole image sets, as a transformer.

    References
    ----------
    Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, :arxiv:`1512.04150`; Eq. 1 of Ding
    and Pang, ACM MM 2024, :arxiv:`2303.08727`.

    Examples
    --------
    >>> import torch
    >>> from skdfb.networks import DenseClassifier, attention_maps
    >>> network = DenseClassifier("test_resnet", 3, pretrained=False, image_size=64, output_stride=8).eval()
    >>> maps, classes = attention_maps(
    ...     network, torch.rand(2, 3, 64, 64), None, input_sizes=[64, 128], flip=True, sigma=2.0, output_size=(32, 32)
    ... )
    >>> maps.shape, classes.shape
    (torch.Size([2, 32, 32]), torch.Size([2]))
    """
    if targets is None and images.shape[-1] not in input_sizes:
        targets = network(images).argmax(1)
    total = images.new_zeros(len(images), *output_size, dtype=torch.promote_types(images.dtype, torch.float32))
    for view, mirrored in scaled_views(images, input_sizes, flip):
        feature_map = network.feature_map(view)  # (n, C, h, w)
        if targets is None:  # the first view is the image as it is
            targets = network.head(feature_map.mean((2, 3))).argmax(1)
        activation = torch.einsum("nchw,nc->nhw", feature_map, network.head.weight[targets]).relu()
        activation = F.interpolate(activation[:, None].to(total.dtype), output_size, mode="bilinear")[:, 0]
        total += activation.flip(-1) if mirrored else activation
    assert targets is not None
    return min_max(gaussian_blur(total, sigma)), targets


def scaled_views(images: Tensor, input_sizes: Sequence[int], flip: bool) -> Iterator[tuple[Tensor, bool]]:
    """Yield the images at each size, then mirrored; the images as they are come first, if they are among them."""
    own_size = images.shape[-1]
    for size in sorted(input_sizes, key=lambda size: size != own_size):
        scaled = images
        if size != own_size:  # in float32 at least: halves cannot be antialiased on a CPU
            wide = images.to(torch.promote_types(images.dtype, torch.float32))
            scaled = F.interpolate(wide, (size, size), mode="bilinear", antialias=True).to(images.dtype)
        yield scaled, False
        if flip:
            yield scaled.flip(-1), True


def gaussian_blur(maps: Tensor, sigma: float, truncate: float = 4.0) -> Tensor:
    """Smooth maps (n, h, w) by a Gaussian of ``sigma`` pixels; edges are continued by their last value."""
    radius = int(truncate * sigma + 0.5)
    if radius == 0:
        return maps
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(maps)
    padded = F.pad(maps[:, None], (radius, radius, radius, radius), mode="replicate")
    rows = F.conv2d(padded, kernel.view(1, 1, 1, -1))
    return F.conv2d(rows, kernel.view(1, 1, -1, 1))[:, 0]


def min_max(maps: Tensor) -> Tensor:
    """Bring each of the maps (n, h, w) to [0, 1]; one that is constant but for rounding becomes 0."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    spread = high - low
    return torch.where(spread > 16 * torch.finfo(maps.dtype).eps * high.abs(), (maps - low) / spread, 0.0)
