"""Means, second moments and whitening of features, in float64 and a batch at a time."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skdfb.scorers._base import as_double
from skdfb.scorers._representation import Representation

# Rows of a product: large enough to run at full speed, small beside C x C.
_ROWS = 4096


def feature_mean(representation: Representation) -> Tensor:
    """Return the mean feature, shape (C,)."""
    total = sum(as_double(batch.features).sum(dim=0) for batch in representation.batches())
    assert isinstance(total, Tensor), "there is at least one image"
    return total / len(representation)


def class_means(representation: Representation, labels: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Return the mean feature (K, C) and the number of images (K,) of each class; means of empty classes are 0."""
    K, C = representation.n_classes, representation.n_features
    counts = torch.from_numpy(np.bincount(labels, minlength=K))
    sums: Tensor | None = None
    for batch, batch_labels in labelled_batches(representation, labels):
        h = as_double(batch.features)
        sums = h.new_zeros(K, C) if sums is None else sums
        sums.index_add_(0, batch_labels.to(h.device), h)
    assert sums is not None, "there is at least one image"
    counts = counts.to(sums.device)
    return sums / counts.clamp(min=1)[:, None], counts


def second_moment(representation: Representation, origin: Tensor, labels: NDArray[np.int64] | None = None) -> Tensor:
    """Return the mean of (h - u)(h - u)ᵀ over the images, shape (C, C).

    `origin` is u, of shape (C,); with `labels` it is (K, C), and the row of its class is taken off each image, which
    gives the pooled within-class covariance about class means.
    """
    C = representation.n_features
    moment = torch.zeros(C, C, dtype=torch.float64, device=origin.device)
    for batch, batch_labels in labelled_batches(representation, labels):
        u = origin if labels is None else origin[batch_labels.to(origin.device)]
        moment += gram(as_double(batch.features) - u)
    if not torch.isfinite(moment).all():
        raise ValueError(
            "representation.features, weight or bias hold NaN or infinity or are too large to square; wanted finite "
            "numbers: compute them in a wider floating-point type, or leave out such images."
        )
    return moment / len(representation)


def gram(rows: Tensor) -> Tensor:
    """Return rowsᵀ rows, shape (C, C)."""
    if rows.device.type != "cpu":
        return rows.T @ rows
    # NumPy sees that both factors are one matrix and computes half of the product: float64 at the price of float32.
    array = rows.numpy()
    return torch.from_numpy(array.T @ array)


def numerical_rank(eigenvalues: Tensor, dtype: torch.dtype) -> int:
    """Return how many eigenvalues of a second moment of features stored as `dtype` stand out from rounding errors."""
    C = len(eigenvalues)
    decomposition = C * torch.finfo(torch.float64).eps * eigenvalues[-1]
    # Rounding features to the stored type adds about eps² / 12 of their mean square in every direction.
    storage = torch.finfo(dtype).eps ** 2 * eigenvalues.clamp(min=0).mean()
    return int((eigenvalues > torch.maximum(decomposition, storage)).sum())


def whitening(covariance: Tensor, dtype: torch.dtype) -> Tensor:
    """Return A, shape (C, r), with A Aᵀ the pseudo-inverse of a covariance of rank r of features stored as `dtype`."""
    eigenvalues, eigenvectors = torch.linalg.eigh(covariance)  # ascending
    r = numerical_rank(eigenvalues, dtype)
    kept = slice(len(eigenvalues) - r, None)
    whitened: Tensor = eigenvectors[:, kept] / eigenvalues[kept].sqrt()
    return whitened


def labelled_batches(
    representation: Representation, labels: NDArray[np.int64] | None = None
) -> Iterator[tuple[Representation, Tensor]]:
    """Yield batches with their labels as a tensor on the CPU; empty tensors without labels."""
    start = 0
    for batch in representation.batches(_ROWS):
        stop = start + len(batch)
        yield batch, torch.empty(0, dtype=torch.int64) if labels is None else torch.from_numpy(labels[start:stop])
        start = stop
