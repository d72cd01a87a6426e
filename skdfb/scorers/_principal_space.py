"""The principal space of training features about the head's origin, which ViM and Residual share."""

import torch
from torch import Tensor

from skdfb.scorers._base import as_double
from skdfb.scorers._moments import numerical_rank, second_moment
from skdfb.scorers._representation import Representation


def check_components(n_components: int | None, n_features: int, remedy: str) -> None:
    """Refuse a size of the principal space that leaves no residual of so many features."""
    if n_features < 2 or (n_components is not None and n_components >= n_features):
        raise ValueError(
            f"n_components={n_components} leaves no residual of the {n_features} feature(s) of "
            f"representation; wanted n_components < number of features, so at least 2 features. {remedy}"
        )


def choose_components(n_components: int | None, rank: int, n_features: int) -> int:
    """Return D, which must leave a residual of features of this rank.

    None takes 1000 if C >= 2048, 512 if C >= 768, else C // 2, but at most half of the rank.
    """
    C, D = n_features, n_components
    if D is None:
        default = 1000 if C >= 2048 else 512 if C >= 768 else C // 2
        D = max(1, min(default, rank // 2))
    if rank <= D:
        raise ValueError(
            f"n_components={n_components} leaves no residual: the training features of representation have "
            f"numerical rank {rank} about the head's origin. Wanted n_components < rank, so a rank of at least 2: "
            "lower n_components, give more or more varied images, or use Energy()."
        )
    return int(D)


def fit_residual_space(representation: Representation, n_components: int | None) -> tuple[Tensor, Tensor]:
    """Return the origin u, shape (C,), and R, shape (C, C - D), the directions of least second moment about u."""
    C = representation.n_features
    origin = head_origin(representation)
    eigenvalues, eigenvectors = torch.linalg.eigh(second_moment(representation, origin))  # ascending
    rank = numerical_rank(eigenvalues, representation.features.dtype)
    D = choose_components(n_components, rank, C)
    return origin, eigenvectors[:, : C - D].contiguous()


def head_origin(representation: Representation) -> Tensor:
    """Return u = -W⁺ b, shape (C,)."""
    weight = representation.weight
    W, b = as_double(weight), as_double(representation.bias)
    # A softmax head is free up to one vector added to all its rows. Weight decay takes that one to 0, which leaves a
    # singular value made of the stored type's rounding: inverted, it would throw u far away.
    rtol = max(max(W.shape) * torch.finfo(torch.float64).eps, 4 * torch.finfo(weight.dtype).eps)
    inverse: Tensor = torch.linalg.pinv(W, rtol=rtol)
    return -inverse @ b


def residual_norm(batch: Representation, origin: Tensor, residual_basis: Tensor) -> Tensor:
    """Return r(x) = ||Rᵀ(h - u)||, shape (m,)."""
    residual: Tensor = (as_double(batch.features) - origin) @ residual_basis  # (m, C - D)
    return residual.square_().sum(dim=1).sqrt_()
