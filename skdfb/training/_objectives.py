"""Losses of the two stages, as modules around the network so that the engine can wrap them.

Both losses are means over a batch. A batch may be processed in pieces, and the losses of the pieces must add up to the
loss of the whole batch. So the arguments ``n_images`` and ``n_pixels`` give the number of images, and of pixels inside
images, of the whole batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skdfb.augmentation._batch import IGNORED
from skdfb.networks import DenseClassifier
from skdfb.training._compiled import Compiled
from skdfb.training._pixel_loss import pixel_cross_entropy

__all__ = ["ClassificationLoss", "DenseLoss", "n_valid"]


class ClassificationLoss(nn.Module):
    """Cross-entropy of the classifier's logits against class probabilities."""

    def __init__(self, network: DenseClassifier, *, compiled: bool = False) -> None:
        super().__init__()
        self.network: nn.Module = Compiled(network) if compiled else network

    def forward(
        self, images: Tensor, targets: Tensor, masks: None = None, n_images: int | None = None, n_pixels: None = None
    ) -> Tensor:
        """Return the share of these images in the mean loss of a batch of ``n_images``; targets are (b, K)."""
        return _cross_entropy(self.network(images), targets) / (n_images or len(images))


class DenseLoss(nn.Module):
    r"""Cross-entropy of every pixel against the mask (Eq. 3, 4), plus a classification loss.

    .. math::

        -\frac{1}{|\Omega|} \sum_{p \in \Omega} \log \mathrm{softmax}(\mathrm{up}(W' F(x) + b'))_{m_p}
        \; + \; \lambda \, \mathrm{CE}(\mathrm{GAP}(W' F(x) + b')_{1..K}, \, y)

    :math:`m` is the mask with values 0..K, K the background, :math:`\Omega` the pixels inside the image, up is
    bilinear, :math:`\lambda` the ``classification_weight``. The second term uses the logits of the K classes
    only. On all K + 1 logits, it would lower the background logit of known images, which the background score needs to
    be high.
    """

    def __init__(self, network: DenseClassifier, classification_weight: float, *, compiled: bool = False) -> None:
        super().__init__()
        logit_map = _LogitMap(network)
        # Without the loss: compiled, the logits of all pixels would be in memory at once.
        self.logit_map: nn.Module = Compiled(logit_map) if compiled else logit_map
        self.classification_weight = classification_weight

    def forward(
        self,
        images: Tensor,
        targets: Tensor,
        masks: Tensor,
        n_images: int | None = None,
        n_pixels: Tensor | None = None,
    ) -> Tensor:
        """Return the share of these images in the mean loss of a batch; targets are (b, K), masks (b, H, W)."""
        logit_map = self.logit_map(images)  # (b, K + 1, h, w)
        loss = pixel_cross_entropy(logit_map, masks) / (n_valid(masks) if n_pixels is None else n_pixels)
        if self.classification_weight:
            # The head is linear, so the mean of its map is its output for the pooled features. Background comes last.
            logits = logit_map.mean((2, 3))[:, :-1]  # (b, K)
            loss = loss + self.classification_weight * _cross_entropy(logits, targets) / (n_images or len(images))
        return loss


class _LogitMap(nn.Module):
    """The logit map of a network, as a module."""

    def __init__(self, network: DenseClassifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.logit_map(images)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the sum over images of the cross-entropies of logits (b, K) against class probabilities (b, K)."""
    wide = torch.promote_types(logits.dtype, torch.float32)  # 16 bits would round the sum
    return F.cross_entropy(logits.to(wide), targets.to(wide), reduction="none").sum()


def n_valid(masks: Tensor) -> Tensor:
    """Return the number of pixels inside images, at least 1: without any pixel the sum is 0, and so is the mean."""
    return (masks != IGNORED).sum().clamp_min(1)
