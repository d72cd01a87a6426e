"""Softmax probabilities and their complements, stored in a form that does not round to 0 or 1."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from skdfb.scorers._base import may_be_any, wide

# If the sum of the other exponentials is less than this, some of them may have underflowed in float32 or float64. The
# exponential of the largest logit is 1.
_LOST_IN_FLOAT32 = 1e-30
_LOST_IN_FLOAT64 = 1e-300


@dataclass(frozen=True)
class Softmax:
    """The softmax of m rows of K logits, with the sum over the other classes stored without the 1 of the largest one.

    So neither the logarithm of the largest probability nor that of its complement rounds to 0 for confident images.
    Values per class have the type of the logits, values per row are float64.
    """

    shifted: Tensor  # (m, K), the logits minus the largest logit of the row
    exponentials: Tensor  # (m, K)
    top: Tensor  # (m, 1), the class of the largest logit
    others: Tensor  # (m, 1), the sum of the exponentials of the other classes

    @classmethod
    def of(cls, logits: Tensor) -> Self:
        """Compute the softmax of float32 or float64 logits (m, K)."""
        # Shifting by the largest logit changes no probability and prevents overflow.
        largest, top = logits.max(dim=1, keepdim=True)
        shifted = logits - largest
        exponentials = shifted.exp()
        others = exponentials.scatter(1, top, 0.0).sum(dim=1, keepdim=True)
        return cls(shifted, exponentials, top, others.double())

    @property
    def log_normaliser(self) -> Tensor:
        """Logarithm of the sum of all exponentials, (m, 1): the negated logarithm of the largest probability."""
        return torch.log1p(self.others)

    @property
    def log_others(self) -> Tensor:
        """Logarithm of the sum over the other classes, (m, 1); needs K >= 2."""
        log_others = self.others.log()
        # Where the exponentials have underflowed, the logarithm is computed from the logits.
        lost = self.others < _LOST_IN_FLOAT64
        if not may_be_any(lost):
            return log_others
        others = self.shifted.double().scatter(1, self.top, -torch.inf)
        return torch.where(lost, others.logsumexp(dim=1, keepdim=True), log_others)

    def p(self) -> Tensor:
        """Return the probabilities p, (m, K)."""
        return self.exponentials / (1 + self.others).to(self.shifted.dtype)

    def log_p(self) -> Tensor:
        """Return the logarithms of p, (m, K)."""
        dtype = self.shifted.dtype
        # Finite values, so that p log p is 0 for p = 0, even if a difference of logits overflows.
        return (self.shifted - self.log_normaliser.to(dtype)).clamp(min=torch.finfo(dtype).min)

    def log_complements(self) -> Tensor:
        """Return the logarithms of 1 - p, (m, K); needs K >= 2."""
        dtype = self.shifted.dtype
        # All but the largest p are at most 1/2, so log1p is accurate for them. The complement of the largest p is the
        # sum over the other classes.
        complements = torch.log1p(-self.p())
        return complements.scatter(1, self.top, (self.log_others - self.log_normaliser).to(dtype))


def row_by_row(logits: Tensor, function: Callable[[Softmax], Tensor]) -> Tensor:
    """Return one value per row, (m,) in float64, that `function` computes from the softmax of the logits.

    For float32 logits, float32 exponentials are as accurate as the logits. Only in the most confident rows some
    exponentials underflow in float32. These rows are computed in float64.
    """
    z = wide(logits)
    softmax = Softmax.of(z)
    scores = function(softmax).double()
    if z.dtype == torch.float64:
        return scores
    lost = softmax.others[:, 0] < _LOST_IN_FLOAT32
    if not may_be_any(lost):
        return scores
    return torch.where(lost, function(Softmax.of(z.double())), scores)


def energy(logits: Tensor) -> Tensor:
    """Return the log-sum-exp of each row in float64, (m,)."""
    z = wide(logits)
    # Subtracting the largest logit prevents overflow.
    largest = z.amax(dim=1, keepdim=True)
    return largest[:, 0].double() + (z - largest).exp_().sum(dim=1).double().log_()
