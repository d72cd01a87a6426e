"""Clusters within classes: k-means by distance or on the unit sphere, with one class in memory at a time."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from torch import Tensor

from skdfb._transfers import upload
from skdfb.scorers._representation import Representation

# Random starts of k-means, of which the best is kept.
_STARTS = 16
# Largest number of iterations; most runs end earlier, when no row changes its cluster.
_ITERATIONS = 100
# Images that are read at once.
_ROWS = 4096

RowsOf = Callable[[Tensor], Tensor]


def cluster_classes(
    representation: Representation,
    labels: NDArray[np.int64],
    rows_of: RowsOf,
    n_clusters_of: Callable[[int], int],
    *,
    samples_per_class: int | None,
    random_state: int | RandomState | None,
    spherical: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cluster the images of each class by their rows, `rows_of(features)`.

    `n_clusters_of` gives the number of clusters for a number of images. At most `samples_per_class` images per class,
    drawn at random, determine the clusters; then every image joins the nearest cluster of its class. Returns the
    cluster of each image (n,), with numbers that run through all classes, and the class of each cluster (M,). Classes
    without images have no clusters.
    """
    rng = check_random_state(random_state)
    clusters = np.empty(len(labels), dtype=np.int64)
    classes: list[int] = []
    for k in np.unique(labels):
        images = np.flatnonzero(labels == k)
        sample = images
        if samples_per_class is not None and samples_per_class < len(images):
            sample = np.sort(rng.choice(images, samples_per_class, replace=False))
        rows = torch.cat([rows_of(representation[part].features) for part in _parts(sample)])
        centres = k_means(rows, n_clusters_of(len(images)), rng, spherical=spherical)
        clusters[sample] = len(classes) + _nearest(rows, centres)
        # The rows of one class are freed before those of the next are read.
        del rows
        for part in _parts(np.setdiff1d(images, sample, assume_unique=True)):
            clusters[part] = len(classes) + _nearest(rows_of(representation[part].features), centres)
        classes += [int(k)] * len(centres)
    # A cluster may have no images in the end; the others are numbered without a gap.
    used, clusters = np.unique(clusters, return_inverse=True)
    return clusters, np.array(classes)[used]


def best_class(terms: Tensor, classes: NDArray[np.int64]) -> Tensor:
    """Return the log-sum-exp of the terms of the best class, (m,); `terms` (m, M) has one column per cluster."""
    _, columns = np.unique(classes, return_inverse=True)
    own = upload(torch.from_numpy(columns), terms.device)
    membership = torch.nn.functional.one_hot(own, int(columns.max()) + 1).to(terms.dtype)  # (M, classes with clusters)
    # After subtracting the largest term of all, the sum of its class is at least 1: the best class cannot underflow.
    largest = terms.amax(dim=1, keepdim=True)
    best: Tensor = largest[:, 0] + ((terms - largest).exp() @ membership).amax(dim=1).log()
    return best


def k_means(rows: Tensor, n_clusters: int, rng: RandomState, *, spherical: bool = False) -> Tensor:
    """Return the centres (J, D) of the best of several starts, at most `n_clusters` of them.

    Each row joins the nearest centre c, that with the largest row·c - |c|² / 2. With `spherical`, rows and centres have
    length 1, so this is the centre with the largest cosine. The order of the rows does not matter.
    """
    middle = rows.mean(dim=0)
    # The rows are sorted by their distance from the middle, so that the random draws do not depend on their order.
    rows = rows[(rows - middle).square().sum(dim=1).argsort(stable=True)]
    if not spherical:
        # Far from the origin, row·c and |c|² / 2 would cancel.
        rows = rows - middle
    centres = _first_centres(rows, n_clusters, rng)  # (starts, J, D)
    members: Tensor | None = None
    for _ in range(_ITERATIONS):
        before = members
        fit, members = _fit(rows, centres)  # (n, starts)
        if before is not None and torch.equal(members, before):
            break
        centres = _moved(rows, members, centres, spherical)
    # The members of the last centres, of which the start with the largest total fit is kept.
    fit, members = _fit(rows, centres)
    best = int(fit.sum(dim=0).argmax())
    sizes = members[:, best].bincount(minlength=n_clusters)
    found = centres[best, sizes > 0]
    return found if spherical else found + middle


def _nearest(rows: Tensor, centres: Tensor) -> NDArray[np.int64]:
    """Return the index of the nearest of the centres (J, D) to each row."""
    nearest: NDArray[np.int64] = _fit(rows, centres[None])[1][:, 0].numpy(force=True)
    return nearest


def _fit(rows: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return the fit and the index of the nearest centre of each start, both (n, S), for centres (S, J, D).

    The fit is row·c - |c|² / 2, which is larger for nearer centres.
    """
    S, J, D = centres.shape
    # One product for all starts.
    products = rows @ centres.reshape(S * J, D).T - centres.square().sum(dim=2).reshape(S * J) / 2
    fit, members = products.reshape(len(rows), S, J).max(dim=2)
    return fit, members


def _moved(rows: Tensor, members: Tensor, centres: Tensor, spherical: bool) -> Tensor:
    """Return the mean of the members of each centre, or its direction; empty clusters keep their centres."""
    S, J, D = centres.shape
    # Sums over members as one product with 0/1 indicators, (n, S * J).
    indicators = torch.nn.functional.one_hot(members, J).reshape(len(rows), S * J).to(rows)
    sums = (indicators.T @ rows).reshape(S, J, D)
    counts = indicators.sum(dim=0).reshape(S, J, 1)
    means = _unit(sums) if spherical else sums / counts.clamp(min=1)
    return torch.where(counts > 0, means, centres)


def _unit(vectors: Tensor) -> Tensor:
    """Return vectors of length 1; zeros stay zeros."""
    norm = vectors.square().sum(dim=-1, keepdim=True).sqrt()
    return vectors / norm.clamp(min=torch.finfo(vectors.dtype).tiny)


def _first_centres(rows: Tensor, n_clusters: int, rng: RandomState) -> Tensor:
    """Draw centres by k-means++: the chance of a row is proportional to its squared distance from earlier centres."""
    n = len(rows)
    chances = torch.from_numpy(rng.random_sample((n_clusters, _STARTS))).to(rows.device)
    centres = [rows[(chances[0] * n).long()]]  # (starts, D)
    squares = rows.square().sum(dim=1)
    distances = rows.new_full((_STARTS, n), torch.inf)
    for chance in chances[1:]:
        last = centres[-1]
        to_last = squares - 2 * last @ rows.T + last.square().sum(dim=1, keepdim=True)
        distances = torch.minimum(distances, to_last.clamp(min=0.0))
        cumulative = distances.cumsum(dim=1)
        # Inverse transform sampling. Rounding may give n, one past the last row, which `clamp` mends.
        drawn = torch.searchsorted(cumulative, (chance * cumulative[:, -1])[:, None], right=True)[:, 0]
        centres.append(rows[drawn.clamp(max=n - 1)])
    return torch.stack(centres, dim=1)


def _parts(images: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [images[start : start + _ROWS] for start in range(0, len(images), _ROWS)]
