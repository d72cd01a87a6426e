"""Maps of a class against the background, from a dense network."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from skdfb.networks._attention_maps import scaled_views
from skdfb.networks._dense_classifier import DenseClassifier
from skdfb.utils import own_torch_modes

__all__ = ["foreground_maps"]


@own_torch_modes()
def foreground_maps(
    network: DenseClassifier,
    images: Tensor,
    targets: Tensor | None,
    *,
    input_sizes: Sequence[int],
    flip: bool,
    output_size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    r"""Compute the probability of a class against the background at every pixel, as the mean over scales and flips.

    .. math:: M_y = \mathrm{mean}_{\text{scales, flips}} \; \mathrm{sigmoid}(\mathrm{up}(l_y - l_K))

    with the logit maps :math:`l_k` of a dense network. This is the softmax over the two logits alone.

    Parameters
    ----------
    network : DenseClassifier
        The dense network, in evaluation mode, with K + 1 outputs, of which the last is the background.
    images : Tensor of shape (n, 3, H, W)
        Normalised inputs at the network's own size.
    targets : Tensor of shape (n,) or None
        The class y of each image, in 0..K-1. None takes the predicted class (at the network's own size, unflipped).
    input_sizes : sequence of int
        Sides in pixels that the images are scaled to: one forward pass each.
    flip : bool
        Whether the mirrored images are added, which takes as many passes again.
    output_size : tuple of (int, int)
        Height and width of the maps in pixels.

    Returns
    -------
    maps : Tensor of shape (n, height, width)
        Numbers in [0, 1].
    targets : Tensor of shape (n,)
        The class of each map.
    """
    if targets is None:
        targets = network(images)[:, :-1].argmax(1)  # the background is no class of an image
    rows = torch.arange(len(images), device=images.device)
    views = list(scaled_views(images, input_sizes, flip))
    total = images.new_zeros(len(images), *output_size, dtype=torch.promote_types(images.dtype, torch.float32))
    for view, mirrored in views:
        logits = network.logit_map(view).to(total.dtype)  # (n, K+1, h, w)
        margin = logits[rows, targets] - logits[:, -1]  # (n, h, w)
        # First the logits are enlarged, then the sigmoid is taken, as Eq. 3 does with the softmax.
        probability = F.interpolate(margin[:, None], output_size, mode="bilinear")[:, 0].sigmoid()
        total += probability.flip(-1) if mirrored else probability
    return total / len(views), targets
