"""Softmax probabilities and their complements, kept so that none rounds to 0 or 1."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from skdfb.scorers._base import wide

# Where the other classes have less than this of the largest one's probability, float32 no longer holds them all.
_LOST_IN_FLOAT32 = 1e-30
_LOST_IN_FLOAT64 = 1e-300


@dataclass(frozen=True)
class Softmax:
    """The softmax of m rows of K logits; the sum over the other classes is kept apart from the 1 of the largest.

    So the logarithm of the largest probability does not round to 0 for confident images, nor its complement. Numbers
    a class are of the logits' type, numbers a row are float64.
    """

    shifted: Tensor  # (m, K), logits less the largest of the row
    exponentials: Tensor  # (m, K)
    top: Tensor  # (m, 1), the class of the largest logit
    others: Tensor  # (m, 1), the sum of the exponentials of the other classes

    @classmethod
    def of(cls, logits: Tensor) -> Self:
        """Compute it from float32 or float64 logits (m, K)."""
        largest, top = logits.max(dim=1, keepdim=True)
        shifted = logits - largest
        exponentials = shifted.exp()
        others = exponentials.scatter(1, top, 0.0).sum(dim=1, keepdim=True)
        return cls(shifted, exponentials, top, others.double())

    @property
    def log_normaliser(self) -> Tensor:
        """Logarithm of the sum of all exponentials, (m, 1): minus the logarithm of the largest probability."""
        return torch.log1p(self.others)

    @property
    def log_others(self) -> Tensor:
        """Logarithm of the sum over the other classes, (m, 1); K >= 2."""
        log_others = self.others.log()
        lost = self.others[:, 0] < _LOST_IN_FLOAT64
        if lost.any():
            others = self.shifted[lost].double().scatter(1, self.top[lost], -torch.inf)
            log_others[lost] = others.logsumexp(dim=1, keepdim=True)
        return log_others

    def p(self) -> Tensor:
        """Return the probabilities, (m, K)."""
        return self.exponentials / (1 + self.others).to(self.shifted.dtype)

    def log_p(self) -> Tensor:
        """Return their logarithms, (m, K)."""
        dtype = self.shifted.dtype
        # Finite, so that 0 log 0 is 0 even where a difference of logits overflows.
        return (self.shifted - self.log_normaliser.to(dtype)).clamp(min=torch.finfo(dtype).min)

    def log_complements(self) -> Tensor:
        """Return the logarithms of 1 - p, (m, K); K >= 2."""
        dtype = self.shifted.dtype
        # Less than 1/2 for all but the largest, whose complement is the sum of the others.
        complements = torch.log1p(-self.p())
        return complements.scatter(1, self.top, (self.log_others - self.log_normaliser).to(dtype))


def row_by_row(logits: Tensor, function: Callable[[Softmax], Tensor]) -> Tensor:
    """Return a number a row, (m,) in float64, that `function` makes of a softmax.

    Exponentials of float32 logits are as exact in float32 as their logits are; but it cannot hold those of the most
    confident rows, which are computed in float64.
    """
    z = wide(logits)
    softmax = Softmax.of(z)
    scores = function(softmax).double()
    if z.dtype != torch.float64:
        lost = softmax.others[:, 0] < _LOST_IN_FLOAT32
        if lost.any():
            scores[lost] = function(Softmax.of(z[lost].double()))
    return scores


def energy(logits: Tensor) -> Tensor:
    """Return log sum exp of each row in float64, (m,)."""
    z = wide(logits)
    largest = z.amax(dim=1, keepdim=True)
    return largest[:, 0].double() + (z - largest).exp_().sum(dim=1).double().log_()
