"""Losses of the two stages, as modules around the network so that the engine can wrap them."""

import torch.nn.functional as F
from torch import Tensor, nn

from skdfb.networks import DenseClassifier
from skdfb.training._transforms import IGNORED

__all__ = ["ClassificationLoss", "DenseLoss"]


class ClassificationLoss(nn.Module):
    """Cross-entropy of the classifier's logits against class probabilities."""

    def __init__(self, network: DenseClassifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, targets: Tensor, masks: None = None) -> Tensor:
        """Return the mean loss of a batch; targets are (b, K)."""
        return F.cross_entropy(self.network(images), targets)


class DenseLoss(nn.Module):
    r"""Cross-entropy of every pixel against the mask (Eq. 3, 4), and a classification loss beside it.

    .. math::

        -\frac{1}{|\Omega|} \sum_{p \in \Omega} \log \mathrm{softmax}(\mathrm{up}(W' F(x) + b'))_{m_p}
        \; + \; \lambda \, \mathrm{CE}(\mathrm{GAP}(W' F(x) + b')_{1..K}, \, y)

    :math:`m` is the mask with values 0..K, K the background, :math:`\Omega` the pixels inside the image, up is
    bilinear, :math:`\lambda` the ``classification_weight``. The second term sees the K classes only: taught on all
    K + 1 logits, it would push the background logit of known images down, which is what the background score wants up.
    """

    def __init__(self, network: DenseClassifier, classification_weight: float) -> None:
        super().__init__()
        self.network = network
        self.classification_weight = classification_weight

    def forward(self, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
        """Return the mean loss of a batch; targets are (b, K), masks (b, S, S)."""
        feature_map = self.network.feature_map(images)
        logit_map = self.network.map_head(feature_map)  # (b, K + 1, h, w)
        pixels = F.interpolate(logit_map, masks.shape[-2:], mode="bilinear")
        loss = F.cross_entropy(pixels, masks, ignore_index=IGNORED)
        if self.classification_weight:
            logits = logit_map.mean((2, 3))[:, :-1]
            loss = loss + self.classification_weight * F.cross_entropy(logits, targets)
        return loss
