"""Classes for images that come without labels."""

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans

from skdfb.detector._views import NetworkViews, ViewRequest
from skdfb.images import BatchSize, Images
from skdfb.networks import DenseClassifier
from skdfb.scoring._parts import CLASSIFIER

__all__ = ["check_unlabelled", "pseudo_labels"]

_MOST_CLUSTERS, _IMAGES_PER_CLUSTER = 10, 20
_LEAST_IMAGES = 4  # two clusters of two


def check_unlabelled(n_images: int) -> None:
    """Refuse too few images to form classes."""
    if n_images < _LEAST_IMAGES:
        raise ValueError(f"X has {n_images} images and y is None: expected at least {_LEAST_IMAGES} images, or labels.")


def pseudo_labels(
    network: DenseClassifier,
    images: Images,
    train: npt.NDArray[np.intp],
    seed: int,
    batch_size: BatchSize,
    n_jobs: int | None,
) -> npt.NDArray[np.intp]:
    """Return class indices 0..K-1 of all images, from k-means on the features of an untrained network.

    There are ``min(10, n // 20)`` clusters for n images at ``train``, but at least 2. Clusters of a single image are
    dropped. If fewer than two are left, as for images that all have the same features, the images are split at random.
    The other images get the label of the nearest cluster.
    """
    views = NetworkViews({CLASSIFIER: network}, network.num_classes, batch_size, n_jobs)
    collected = views.collect(images, {CLASSIFIER: ViewRequest(CLASSIFIER)})
    features = collected[CLASSIFIER].features.numpy().astype(np.float64)
    # 1. Cluster the training images, if their features differ enough for as many clusters.
    rng = np.random.RandomState(seed)
    n_clusters = max(2, min(_MOST_CLUSTERS, len(features) // _IMAGES_PER_CLUSTER))
    if len(np.unique(features[train], axis=0)) >= n_clusters:
        clustering = KMeans(n_clusters, n_init=3, random_state=rng).fit(features[train])
        shared = np.bincount(clustering.labels_, minlength=n_clusters) > 1
        # A cluster of one image is mostly an outlier, and no class can be learned from it.
        if shared.sum() > 1:
            distances = np.where(shared, clustering.transform(features), np.inf)  # (n, n_clusters)
            places: npt.NDArray[np.intp] = np.searchsorted(np.flatnonzero(shared), distances.argmin(1))
            # Features that differ by rounding alone can all be nearest to one centre.
            if np.bincount(places[train], minlength=shared.sum()).min() > 1:
                return places

    # 2. Otherwise split at random, in two halves of the training images and of the others.
    labels = np.empty(len(features), dtype=np.intp)
    others = np.setdiff1d(np.arange(len(features)), train)
    labels[np.concatenate([rng.permutation(train), others])] = np.arange(len(features)) % 2
    return labels
