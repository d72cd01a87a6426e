"""Means, second moments and whitening of features, in float64 and in batches."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skdfb.scorers._base import as_double
from skdfb.scorers._representation import Representation

# Number of column blocks in which a symmetric product is computed, and the smallest width of a block.
_BLOCKS, _LEAST_BLOCK = 8, 128


def feature_mean(representation: Representation, rows: Callable[[Tensor], Tensor] = as_double) -> Tensor:
    """Return the mean feature, shape (C,).

    `rows` maps the features (m, C) of a batch to the float64 rows, one per image, whose mean is returned.
    """
    # Sums of differences from one image are exact for features that are the same in all images, of any size.
    reference = rows(representation.features[:1])[0]
    total = torch.zeros_like(reference)
    for batch in representation.batches():
        total += (rows(batch.features) - reference).sum(dim=0)
    return _checked(reference + total / len(representation))


def class_means(
    representation: Representation, labels: NDArray[np.int64], n_groups: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return the mean feature (K, C) and the number of images (K,) of each class; means of empty classes are 0.

    `labels` may also number other groups of images, 0..n_groups-1; without `n_groups`, they are the K classes.
    """
    K = representation.n_classes if n_groups is None else n_groups
    # As in `feature_mean`, differences are summed: here from the first image of each class.
    present, first = np.unique(labels, return_index=True)
    examples = as_double(representation.features[torch.from_numpy(first).to(representation.device)])
    reference = examples.new_zeros(K, representation.n_features)
    reference[torch.from_numpy(present).to(examples.device)] = examples
    total = torch.zeros_like(reference)
    for batch, batch_labels in labelled_batches(representation, labels):
        k = batch_labels.to(total.device)
        total.index_add_(0, k, as_double(batch.features) - reference[k])
    counts = torch.from_numpy(np.bincount(labels, minlength=K)).to(total.device)
    return _checked(reference + total / counts.clamp(min=1)[:, None]), counts


def within_class_moments(
    representation: Representation, labels: NDArray[np.int64]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return class means, class shares, pooled covariance and mean square of the features.

    These are the means (K', C) of the K' classes that have images, the share (K',) of the images that each of them
    has, the covariance (C, C) about the class means, pooled and divided by the number of images, and the mean of the
    squared features, a scalar that sets the scale of rounding errors.
    """
    means, counts = class_means(representation, labels)
    covariance = second_moment(representation, means, labels)
    present = counts > 0
    means, shares = means[present], counts[present].double() / len(representation)
    # E[h²] is the variance within classes plus the mean square of the class means, so no third pass is needed.
    mean_square = covariance.diagonal().mean() + (shares[:, None] * means.square()).sum() / means.shape[1]
    return means, shares, covariance, mean_square


def second_moment(representation: Representation, origin: Tensor, labels: NDArray[np.int64] | None = None) -> Tensor:
    """Return the mean of (h - u)(h - u)ᵀ over the images, shape (C, C).

    `origin` is u, of shape (C,). With `labels` it has shape (K, C), and u is the row of the image's class. With class
    means as rows, this gives the pooled covariance within classes.
    """
    C = representation.n_features
    moment = torch.zeros(C, C, dtype=torch.float64, device=origin.device)
    for batch, batch_labels in labelled_batches(representation, labels):
        u = origin if labels is None else origin[batch_labels.to(origin.device)]
        _add_upper_gram(moment, as_double(batch.features) - u)
    return _checked(_mirrored(moment)) / len(representation)


def gram(rows: Tensor) -> Tensor:
    """Return rowsᵀ rows, shape (C, C)."""
    return _mirrored(_add_upper_gram(rows.new_zeros(rows.shape[1], rows.shape[1]), rows))


def _add_upper_gram(total: Tensor, rows: Tensor) -> Tensor:
    """Add rowsᵀ rows to a matrix, except below its diagonal blocks, which saves almost half of the work."""
    C = len(total)
    width = max(_LEAST_BLOCK, -(-C // _BLOCKS))
    for start in range(0, C, width):
        total[start : start + width, start:].addmm_(rows[:, start : start + width].T, rows[:, start:])
    return total


def _mirrored(upper: Tensor) -> Tensor:
    """Return the symmetric matrix whose upper triangle is given."""
    return upper.triu() + upper.triu(1).T


def numerical_rank(eigenvalues: Tensor, dtype: torch.dtype, mean_square: Tensor | None = None) -> int:
    """Return how many eigenvalues of a second moment are larger than rounding errors.

    `eigenvalues` ascend, and the features were stored as `dtype`. `mean_square` is the mean of the squared features,
    which a centred moment does not contain. None uses the mean eigenvalue.
    """
    C = len(eigenvalues)
    # The usual bound on the error of an eigenvalue decomposition in float64.
    decomposition = C * torch.finfo(torch.float64).eps * eigenvalues[-1]
    # Rounding the features to the stored type adds about eps² / 12 of their mean square in every direction.
    level = eigenvalues.clamp(min=0).mean() if mean_square is None else mean_square
    storage = torch.finfo(dtype).eps ** 2 * level
    return int((eigenvalues > torch.maximum(decomposition, storage)).sum())


def whitening(
    covariance: Tensor, dtype: torch.dtype, mean_square: Tensor | None = None, shrinkage: float = 0.0
) -> Tensor:
    """Return A, shape (C, r), with A Aᵀ the pseudo-inverse of a covariance of rank r of features stored as `dtype`.

    `mean_square` is that of :func:`numerical_rank`. With `shrinkage` s > 0, the covariance is replaced by (1 - s) times
    itself plus s times its mean variance in all C directions, so r = C. Raises ValueError if the rank is 0 before.
    """
    eigenvalues, eigenvectors = torch.linalg.eigh(covariance)  # ascending
    r = numerical_rank(eigenvalues, dtype, mean_square)
    check_variation(r > 0)
    if shrinkage > 0:
        # Shrinkage changes the eigenvalues only, so one decomposition is enough.
        eigenvalues = eigenvalues.clamp(min=0)
        eigenvalues = (1 - shrinkage) * eigenvalues + shrinkage * eigenvalues.mean()
        r = len(eigenvalues)
    kept = slice(len(eigenvalues) - r, None)
    whitened: Tensor = eigenvectors[:, kept] / eigenvalues[kept].sqrt()
    return whitened


def check_variation(varies: bool) -> None:
    """Raise ValueError if features do not vary within classes."""
    if not varies:
        raise ValueError(
            "representation.features do not vary within a class beyond rounding errors, so they have no covariance: "
            "expected different images in at least one class; give more or more varied images."
        )


def oracle_shrinkage(covariance: Tensor, n: int) -> float:
    """Return the shrinkage that brings the covariance of n normal samples nearest to the true covariance.

    It is the oracle approximating shrinkage (OAS) of Chen et al., "Shrinkage Algorithms for MMSE Covariance
    Estimation", IEEE Transactions on Signal Processing 58(10), 2010, Eq. 23, in the form of
    :class:`sklearn.covariance.OAS`.
    """
    C = len(covariance)
    mean_of_squares, squared_mean = covariance.square().mean(), (covariance.trace() / C).square()
    spread = (n + 1) * (mean_of_squares - squared_mean / C)
    return 1.0 if spread <= 0 else min(1.0, float((mean_of_squares + squared_mean) / spread))


def nearest_squared_distance(rows: Tensor, points: Tensor) -> Tensor:
    """Return the squared distance of each row to the nearest of the points (K, r), shape (m,)."""
    # The nearest point minimises |point|² - 2 row·point, since |row|² is the same for all points.
    nearest = torch.addmm(points.square().sum(dim=1), rows, points.T, alpha=-2).argmin(dim=1)
    # The distance is computed from the difference: |row|² - 2 row·point + |point|² cancels far from the origin.
    return (rows - points[nearest]).square_().sum(dim=1)


def labelled_batches(
    representation: Representation, labels: NDArray[np.int64] | None = None
) -> Iterator[tuple[Representation, Tensor]]:
    """Yield batches with their labels as a tensor on the CPU; without labels, with an empty tensor."""
    start = 0
    for batch in representation.batches():
        stop = start + len(batch)
        yield batch, torch.empty(0, dtype=torch.int64) if labels is None else torch.from_numpy(labels[start:stop])
        start = stop


def _checked(statistic: Tensor) -> Tensor:
    """Return the statistic; raise ValueError if it holds NaN or infinity."""
    if not torch.isfinite(statistic).all():
        raise ValueError(
            "representation.features, weight or bias hold NaN or infinity or are too large to square: expected finite "
            "numbers; compute them in a wider floating-point type, or leave out such images."
        )
    return statistic
