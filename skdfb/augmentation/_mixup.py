"""Mixup of whole batches on their device."""

from dataclasses import replace

import torch
from torch import Generator, Tensor

from skdfb.augmentation._batch import Batch

__all__ = ["mixup"]


def mixup(batch: Batch, alpha: float, generator: Generator) -> Batch:
    """Mix each image and its target with another one's, by one weight a batch drawn from Beta(alpha, alpha).

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, :arxiv:`1710.09412`.
    """
    n = len(batch.images)
    first, second = _gamma(alpha, generator), _gamma(alpha, generator)
    weight = float(first / (first + second)) if float(first + second) > 0 else 1.0
    other = torch.randperm(n, generator=generator).to(batch.images.device)
    return replace(
        batch,
        images=torch.lerp(batch.images[other], batch.images, weight),
        targets=torch.lerp(batch.targets[other], batch.targets, weight),
    )


def _gamma(alpha: float, generator: Generator) -> Tensor:
    """Draw from Gamma(alpha, 1) with a generator of our own, which ``torch.distributions`` does not take."""
    return torch._standard_gamma(torch.tensor(alpha, dtype=torch.float64), generator=generator)
