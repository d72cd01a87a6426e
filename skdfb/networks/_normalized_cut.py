"""Foreground by a normalised cut between the places of a feature map."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from skdfb.networks._attention_maps import gaussian_blur, min_max
from skdfb.networks._dense_classifier import DenseClassifier
from skdfb.networks._layer_maps import recorded_map
from skdfb.utils import own_torch_modes

__all__ = ["normalized_cut", "normalized_cut_maps"]

_EPSILON = 1e-5  # affinity of places that are not similar: it keeps the graph connected
_MOST_SIDE = 16  # places in a row; 256 places make an eigenproblem of a few milliseconds
_MOST_NUMBERS = 2**24  # numbers in the affinities of one part of the images: 128 MB in float64


@own_torch_modes()
def normalized_cut_maps(
    network: DenseClassifier,
    images: Tensor,
    targets: Tensor | None,
    *,
    layer: str,
    affinity: str,
    tau: float,
    sigma: float,
    output_size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Compute maps of the object by a normalised cut of a layer's feature maps, smoothed, and scaled to [0, 1].

    Parameters
    ----------
    network : DenseClassifier
        The network, in evaluation mode.
    images : Tensor of shape (n, 3, H, W)
        Normalised inputs.
    targets : Tensor of shape (n,) or None
        The class of each image, which the maps do not depend on. None takes the predicted class.
    layer : str
        Name of the layer, one of ``layer_map_sizes``.
    affinity : {"linear", "binary"}
        How affinities follow from cosines; see ``normalized_cut``.
    tau : float
        Cosine up to which places are not similar.
    sigma : float
        Standard deviation of the Gaussian, in pixels of the output.
    output_size : tuple of (int, int)
        Height and width of the maps in pixels.

    Returns
    -------
    maps : Tensor of shape (n, height, width)
        Numbers in [0, 1]. Each map has its own minimum 0 and maximum 1; a constant map is all 0.
    targets : Tensor of shape (n,)
        The class of each map.
    """
    with recorded_map(network, layer) as recorded:
        feature_map = network.feature_map(images)  # (n, C, h, w)
    if targets is None:
        targets = network.head(feature_map.mean((2, 3))).argmax(1)
    maps = normalized_cut(recorded[layer], affinity=affinity, tau=tau)
    maps = F.interpolate(maps[:, None], output_size, mode="bilinear")[:, 0]
    return min_max(gaussian_blur(maps, sigma)), targets


@torch.no_grad()
def normalized_cut(feature_maps: Tensor, *, affinity: str = "linear", tau: float = 0.2) -> Tensor:
    r"""Cut the places of each feature map into an object and the rest.

    .. math::

        (D - W) \, y = \lambda D y
        \qquad
        W_{ij} = \max \Bigl( \frac{\cos(f_i, f_j) - \tau}{1 - \tau}, \; \epsilon \Bigr)
        \qquad
        D_{ii} = \textstyle\sum_j W_{ij}

    with the feature :math:`f_i` of place i and :math:`\epsilon = 10^{-5}`. The binary affinity is 1 where the cosine is
    at least :math:`\tau`, and :math:`\epsilon` elsewhere. Of the eigenvector y of the second smallest
    eigenvalue, the mean divides the places into two sides. The object is the side that has the smaller share of its
    places on the border of the map; if the shares are equal, the side of the largest :math:`|y_i|`.

    Parameters
    ----------
    feature_maps : Tensor of shape (n, C, h, w)
        Feature maps. Where h or w is above 16, neighbouring places are averaged, so that at most 16 are left.
    affinity : {"linear", "binary"}, default="linear"
        How affinities follow from cosines.
    tau : float, default=0.2
        Cosine :math:`\tau` up to which places are not similar, below 1.

    Returns
    -------
    maps : Tensor of shape (n, h, w)
        The eigenvector, scaled so that the mean is 1/2, the object's largest value 1, and the other side's 0. A map
        whose places are all equally similar has no cut: it is all 0.

    Raises
    ------
    ValueError
        If a feature map holds numbers that are not finite.
    """
    dtype = torch.promote_types(feature_maps.dtype, torch.float32)
    pooled_size = _at_most(feature_maps.shape[2]), _at_most(feature_maps.shape[3])
    finite = feature_maps.isfinite().flatten(1).all(1)
    if not finite.all():
        raise ValueError(
            f"{int((~finite).sum())} of {len(finite)} feature maps hold NaN or infinite numbers: expected finite ones; "
            "the weights of the network may have diverged."
        )
    maps = feature_maps.new_zeros(len(feature_maps), *pooled_size, dtype=dtype)
    # The affinities can take far more memory than the feature maps.
    part = max(1, _MOST_NUMBERS // math.prod(pooled_size) ** 2)
    # Apple's GPUs ("mps") have no float64.
    device = torch.device("cpu") if maps.device.type == "mps" else maps.device
    for first in range(0, len(maps), part):
        rows = slice(first, first + part)
        features = feature_maps[rows].to(device, torch.float64)
        pooled = F.adaptive_avg_pool2d(features, pooled_size)
        maps[rows] = _object_side(_second_eigenvectors(_affinities(pooled, affinity, tau), pooled_size)).to(maps)
    return maps


def _at_most(side: int) -> int:
    """Return the side of a map after the averaging of neighbouring places, as few as are needed."""
    return math.ceil(side / math.ceil(side / _MOST_SIDE))


def _affinities(feature_maps: Tensor, affinity: str, tau: float) -> Tensor:
    """Return the affinities W (n, h * w, h * w) of the places of feature maps."""
    features = F.normalize(feature_maps.flatten(2), dim=1)  # (n, C, h * w)
    cosines = features.mT @ features
    if affinity == "binary":
        return torch.where(cosines >= tau, 1.0, _EPSILON).to(cosines)
    return ((cosines - tau) / (1 - tau)).clamp_(min=_EPSILON)


def _second_eigenvectors(W: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the eigenvectors y (n, h, w) of the second smallest eigenvalue; all 0 where there is no cut."""
    if W.numel() == 0 or W.shape[1] == 1:
        return W.new_zeros(len(W), *size)
    # y = D^(-1/2) v, with the eigenvector v of the symmetric matrix I - D^(-1/2) W D^(-1/2).
    scale = W.sum(2).rsqrt()
    laplacian = torch.eye(W.shape[1], dtype=W.dtype, device=W.device) - scale[:, :, None] * W * scale[:, None, :]
    y = torch.linalg.eigh(laplacian).eigenvectors[:, :, 1] * scale
    # If all places are alike, each vector is as good as another. Rounding makes differences of about 1e-16.
    has_cut = W.flatten(1).amax(1) - W.flatten(1).amin(1) > _EPSILON
    return torch.where(has_cut[:, None], y, 0.0).view(len(W), *size)


def _object_side(y: Tensor) -> Tensor:
    """Return eigenvectors (n, h, w), of either sign, with the object above 1/2 and the other side below."""
    centred = y - y.mean((1, 2), keepdim=True)
    side = centred > 0
    on_border = torch.ones(y.shape[1:], dtype=torch.bool, device=y.device)
    on_border[1:-1, 1:-1] = False
    # Integers, because rounding must not break a tie: |border & side| / |side| against |border| / |all|.
    excess = (side & on_border).sum((1, 2)) * on_border.numel() - side.sum((1, 2)) * on_border.sum()
    seed = y.flatten(1).abs().argmax(1, keepdim=True)
    seed_is_above = side.flatten(1).gather(1, seed)[:, 0]
    is_object = torch.where(excess == 0, seed_is_above, excess < 0)
    centred = torch.where(is_object[:, None, None], centred, -centred)
    # Each side has a scale of its own, so that the mean stays at 1/2.
    above, below = centred.amax((1, 2), keepdim=True), -centred.amin((1, 2), keepdim=True)
    scaled = 0.5 + 0.5 * centred / torch.where(centred > 0, above, below)
    return torch.where(above > 0, scaled, 0.0)
