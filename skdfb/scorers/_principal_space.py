"""The principal space of training features about the origin of the head, shared by ViM and Residual."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from skdfb.scorers._base import as_double, product, tensor_like, wide
from skdfb.scorers._moments import numerical_rank, second_moment
from skdfb.scorers._representation import Representation

# A product of float32 features has an error of about 1e-7 of h - u. If the residual is more than this share of h - u,
# the error is at most 1e-5 of the residual, which is as much as the rounding of the features themselves.
_SHARE_FOR_FLOAT32 = 0.03


def check_components(n_components: int | None, n_features: int, n_images: int, remedy: str) -> None:
    """Refuse a size of the principal space that leaves no residual for any features of these sizes."""
    if n_features < 2 or (n_components is not None and n_components >= n_features):
        raise ValueError(
            f"n_components={n_components} leaves no residual of the {n_features} feature(s) of representation: "
            f"expected n_components < number of features, and at least 2 features. {remedy}"
        )
    # The features are not centred, so n images span up to n dimensions.
    choose_components(n_components, min(n_images, n_features), n_features, n_images)


def choose_components(n_components: int | None, rank: int, n_features: int, n_images: int) -> int:
    """Return D, or refuse features whose rank is too low to leave a residual.

    None takes 1000 if C >= 2048, 512 if C >= 768, else C // 2, but at most half of the rank.
    """
    C, D = n_features, n_components
    if D is None:
        default = 1000 if C >= 2048 else 512 if C >= 768 else C // 2
        D = max(1, min(default, rank // 2))
    if rank <= D:
        raise ValueError(
            f"n_components={n_components} leaves no residual: the features of {n_images} training image(s) have "
            f"numerical rank {rank} about the origin of the head. Expected n_components < rank, and a rank of at least "
            "2; lower n_components, give more or more varied images, or use Energy()."
        )
    return int(D)


@dataclass(frozen=True)
class ResidualSpace:
    """The directions in which training features are closest to the origin of the head."""

    origin: Tensor  # u, (C,)
    basis: Tensor  # R, (C, C - D), orthonormal columns
    share: float  # root mean square of the residual divided by that of h - u, over the training images

    @classmethod
    def fit(cls, representation: Representation, n_components: int | None) -> Self:
        """Find the C - D directions with the smallest second moment about u."""
        C = representation.n_features
        origin = head_origin(representation)
        eigenvalues, eigenvectors = torch.linalg.eigh(second_moment(representation, origin))  # ascending
        rank = numerical_rank(eigenvalues, representation.features.dtype)
        n_residual = C - choose_components(n_components, rank, C, len(representation))
        # Rounding can make the smallest eigenvalues negative.
        eigenvalues = eigenvalues.clamp(min=0)
        share = (eigenvalues[:n_residual].sum() / eigenvalues.sum()).sqrt()
        return cls(origin, eigenvectors[:, :n_residual].contiguous(), float(share))

    @classmethod
    def of(cls, scorer: Any, representation: Representation) -> Self:
        """Return the space of a fitted scorer, on the device of the representation, in the type of the residuals."""
        dtype = _residual_type(representation, scorer.residual_share_)
        origin, basis = (
            tensor_like(array, representation.features, dtype) for array in (scorer.origin_, scorer.residual_basis_)
        )
        return cls(origin, basis, scorer.residual_share_)

    def norms(self, representation: Representation) -> Iterator[tuple[Representation, Tensor]]:
        """Yield each batch and its r(x) = ||Rᵀ(h - u)||, (m,) in float64."""
        dtype = _residual_type(representation, self.share)
        origin, basis = self.origin.to(dtype), self.basis.to(dtype)  # as they are, unless in fit
        for batch in representation.batches():
            residual = product(wide(batch.features).to(dtype) - origin, basis)  # (m, C - D)
            yield batch, torch.linalg.vector_norm(residual, dim=1, dtype=torch.float64)


def _residual_type(representation: Representation, share: float) -> torch.dtype:
    narrow = representation.features.dtype != torch.float64 and share > _SHARE_FOR_FLOAT32
    return torch.float32 if narrow else torch.float64


def head_origin(representation: Representation) -> Tensor:
    """Return u = -W⁺ b, shape (C,)."""
    weight = representation.weight
    W, b = as_double(weight), as_double(representation.bias)
    # Adding one vector to all rows of a softmax head changes no probability. Weight decay drives this vector to 0, and
    # the corresponding singular value is then only the rounding of the stored type. Inverted, it would move u far away.
    rtol = max(max(W.shape) * torch.finfo(torch.float64).eps, 4 * torch.finfo(weight.dtype).eps)
    inverse: Tensor = torch.linalg.pinv(W, rtol=rtol)
    return -inverse @ b
