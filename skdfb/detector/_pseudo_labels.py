"""Classes for images that come without labels."""

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans

from skdfb.detector._forward import ForwardPass, NetworkBatch, represent_foreground
from skdfb.detector._views import to_cpu
from skdfb.images import Images

__all__ = ["check_unlabelled", "pseudo_labels"]

_MOST_CLUSTERS, _IMAGES_A_CLUSTER = 10, 20
_LEAST_IMAGES = 4  # two clusters of two


def check_unlabelled(n_images: int) -> None:
    """Refuse too few images to make classes of."""
    if n_images < _LEAST_IMAGES:
        raise ValueError(
            f"X has {n_images} images and y is None; without labels, at least {_LEAST_IMAGES} images are wanted."
        )


def pseudo_labels(forward: ForwardPass, images: Images, train: npt.NDArray[np.intp], seed: int) -> npt.NDArray[np.intp]:
    """Cluster the images at ``train`` by k-means on the features of the untrained backbone, and label all by them.

    There are ``min(10, n // 20)`` clusters for n images, but at least 2; who knows the number better clusters first and
    passes ``y``. Clusters of a single image are given up. Where fewer than two are left, as for images that
    all have the same features, the images are split at random. The other images get the label of the nearest cluster.
    """

    def features_of(batch: NetworkBatch) -> npt.NDArray[np.floating]:
        part = represent_foreground(forward.network, batch.feature_map, forward.n_classes)
        return to_cpu(part).features.numpy()

    features = np.concatenate(list(forward.over(images, features_of))).astype(np.float64)
    rng = np.random.RandomState(seed)
    n_clusters = max(2, min(_MOST_CLUSTERS, len(features) // _IMAGES_A_CLUSTER))
    if len(np.unique(features[train], axis=0)) >= n_clusters:
        clustering = KMeans(n_clusters, n_init=3, random_state=rng).fit(features[train])
        shared = np.bincount(clustering.labels_, minlength=n_clusters) > 1
        if shared.sum() > 1:
            distances = np.where(shared, clustering.transform(features), np.inf)  # (n, n_clusters)
            places: npt.NDArray[np.intp] = np.searchsorted(np.flatnonzero(shared), distances.argmin(1))
            return places
    labels = np.empty(len(features), dtype=np.intp)
    others = np.setdiff1d(np.arange(len(features)), train)
    labels[np.concatenate([rng.permutation(train), others])] = np.arange(len(features)) % 2
    return labels
