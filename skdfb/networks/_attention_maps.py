"""Class activation maps of a classifier (Eq. 1)."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from skdfb.networks._dense_classifier import DenseClassifier
from skdfb.utils import own_torch_modes

__all__ = ["attention_maps", "gaussian_blur", "min_max", "scaled_views"]


@own_torch_modes()
def attention_maps(
    network: DenseClassifier,
    images: Tensor,
    targets: Tensor | None,
    *,
    input_sizes: Sequence[int],
    flip: bool,
    sigma: float,
    output_size: tuple[int, int],
    use_bias: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Compute class activation maps, summed over scales and flips, smoothed, and scaled to [0, 1].

    .. math:: M_y = \mathrm{minmax}\bigl(G_\sigma * \textstyle\sum_{\text{scales, flips}}
              \mathrm{up}(\mathrm{ReLU}(W_y \cdot F(x) [{} + b_y]))\bigr)

    :math:`F(x)` is the feature map, :math:`W_y` and :math:`b_y` are the head's weights and bias of class y, and
    :math:`G_\sigma` is a Gaussian.

    Parameters
    ----------
    network : DenseClassifier
        The classifier, in evaluation mode.
    images : Tensor of shape (n, 3, H, W)
        Normalised inputs at the network's own size.
    targets : Tensor of shape (n,) or None
        The class y of each image. None takes the predicted class (at the network's own size, unflipped).
    input_sizes : sequence of int
        Sides in pixels that the images are scaled to: one forward pass each.
    flip : bool
        Whether the mirrored images are added, which takes as many passes again.
    sigma : float
        Standard deviation of the Gaussian, in pixels of the output.
    output_size : tuple of (int, int)
        Height and width of the maps in pixels.
    use_bias : bool, default=False
        Whether the bias :math:`b_y` is added before the ReLU.

    Returns
    -------
    maps : Tensor of shape (n, height, width)
        Numbers in [0, 1]. Each map has its own minimum 0 and maximum 1; a constant map is all 0.
    targets : Tensor of shape (n,)
        The class of each map.

    See Also
    --------
    skdfb.masks.CAMMaskGenerator : The same for whole image sets, as a transformer.

    Notes
    -----
    :math:`W_y \cdot F(x)` is Eq. 1 of the DFB paper, the class activation map of Zhou et al. The ReLU is not in the
    text of either paper. It is in Grad-CAM, and in the public code of the DFB authors, which also adds the bias before
    it.

    References
    ----------
    Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, :arxiv:`1512.04150`. Selvaraju et
    al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017,
    :arxiv:`1610.02391`. Ding and Pang, ACM MM 2024, :arxiv:`2303.08727`.

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
    if targets is None and images.shape[-1] not in input_sizes:  # no view below has the network's own size
        targets = network(images).argmax(1)
    # Sums of many views in half precision would lose digits.
    total = images.new_zeros(len(images), *output_size, dtype=torch.promote_types(images.dtype, torch.float32))
    for view, mirrored in scaled_views(images, input_sizes, flip):
        feature_map = network.feature_map(view)  # (n, C, h, w)
        if targets is None:  # the first view is the unscaled, unflipped image
            targets = network.head(feature_map.mean((2, 3))).argmax(1)
        activation = torch.einsum("nchw,nc->nhw", feature_map, network.head.weight[targets])
        if use_bias and network.head.bias is not None:
            activation = activation + network.head.bias[targets, None, None]
        activation = F.interpolate(activation.relu()[:, None].to(total.dtype), output_size, mode="bilinear")[:, 0]
        total += activation.flip(-1) if mirrored else activation
    assert targets is not None
    return min_max(gaussian_blur(total, sigma)), targets


def scaled_views(images: Tensor, input_sizes: Sequence[int], flip: bool) -> Iterator[tuple[Tensor, bool]]:
    """Yield (images, whether mirrored) at each size; the unscaled images come first, if they are among the sizes."""
    own_size = images.shape[-1]
    for size in sorted(input_sizes, key=lambda size: size != own_size):
        scaled = images
        if size != own_size:
            # In float32 at least: torch cannot antialias half precision on a CPU.
            wide = images.to(torch.promote_types(images.dtype, torch.float32))
            scaled = F.interpolate(wide, (size, size), mode="bilinear", antialias=True).to(images.dtype)
        yield scaled, False
        if flip:
            yield scaled.flip(-1), True


def gaussian_blur(maps: Tensor, sigma: float, truncate: float = 4.0) -> Tensor:
    """Smooth maps (n, h, w) by a Gaussian of ``sigma`` pixels; beyond the edge the last pixel is repeated."""
    radius = int(truncate * sigma + 0.5)
    if radius == 0:
        return maps
    kernel = _gaussian(radius, sigma, maps.dtype, maps.device)
    # A Gaussian is separable: one pass along the rows, one along the columns.
    padded = F.pad(maps[:, None], (radius, radius, radius, radius), mode="replicate")
    rows = F.conv2d(padded, kernel.view(1, 1, 1, -1))
    return F.conv2d(rows, kernel.view(1, 1, -1, 1))[:, 0]


@lru_cache
def _gaussian(radius: int, sigma: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the weights (2 radius + 1,). They are kept: sending them to a device with each batch takes time."""
    with torch.inference_mode(False):  # a tensor of this mode could not be used in a training
        offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
        kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
        return (kernel / kernel.sum()).to(device, dtype)


def min_max(maps: Tensor) -> Tensor:
    """Scale each of the maps (n, h, w) to [0, 1]; a map that is constant up to rounding becomes 0."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    spread = high - low
    return torch.where(spread > 16 * torch.finfo(maps.dtype).eps * high.abs(), (maps - low) / spread, 0.0)
