"""Logarithms of softmax probabilities and of their complements, exact where a probability rounds to 0 or 1."""

import torch
from torch import Tensor

from skdfb.scorers._base import as_double


def log_softmax(logits: Tensor) -> Tensor:
    """Return the logarithm of each softmax probability, shape (n, K), finite and in float64.

    The sum over the other classes is kept apart from the 1 of the largest logit, so that its logarithm does not round
    to 0 for confident images.
    """
    shifted, k = _shift(logits)
    # Finite, so that 0 log 0 is 0 even where a difference of logits overflows.
    return (shifted - torch.log1p(_sum_of_others(shifted, k))).clamp(min=torch.finfo(torch.float64).min)


def log_complement(logits: Tensor) -> Tensor:
    """Return log(1 - p) for each softmax probability p of K >= 2 classes, shape (n, K), in float64."""
    shifted, k = _shift(logits)
    log_normaliser = torch.log1p(_sum_of_others(shifted, k))
    # At most the largest probability is above 1/2: there, 1 - p is the sum of the others, which may underflow.
    log_others = shifted.scatter(1, k, -torch.inf).logsumexp(dim=1, keepdim=True)
    return torch.log1p(-(shifted - log_normaliser).exp()).scatter(1, k, log_others - log_normaliser)


def _shift(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits less the largest of their row, and its place, shapes (n, K) and (n, 1)."""
    z = as_double(logits)
    largest, k = z.max(dim=1, keepdim=True)
    return z - largest, k


def _sum_of_others(shifted: Tensor, k: Tensor) -> Tensor:
    """Return the sum of exp over all classes but the largest, relative to it, shape (n, 1)."""
    return shifted.exp().scatter(1, k, 0.0).sum(dim=1, keepdim=True)
