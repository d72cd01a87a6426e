"""Mixup of whole batches on their device."""

from dataclasses import replace

import torch
from torch import Generator, Tensor

from skdfb._transfers import upload
from skdfb.augmentation._batch import Batch

__all__ = ["mixup"]


def mixup(batch: Batch, alpha: float, generator: Generator) -> Batch:
    """Mix each image and its target with those of another image; the weight, one per batch, is Beta(alpha, alpha).

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, :arxiv:`1710.09412`.
    """
    n = len(batch.images)
    # A Beta number from two Gamma numbers. For a tiny alpha both can round to 0; then nothing is mixed.
    first, second = _gamma(alpha, generator), _gamma(alpha, generator)
    weight = float(first / (first + second)) if float(first + second) > 0 else 1.0
    other = upload(torch.randperm(n, generator=generator), batch.images.device)
    return replace(
        batch,
        images=torch.lerp(batch.images[other], batch.images, weight),
        targets=torch.lerp(batch.targets[other], batch.targets, weight),
    )


def _gamma(alpha: float, generator: Generator) -> Tensor:
    """Draw from Gamma(alpha, 1) with a given generator, which ``torch.distributions`` does not accept."""
    return torch._standard_gamma(torch.tensor(alpha, dtype=torch.float64), generator=generator)
