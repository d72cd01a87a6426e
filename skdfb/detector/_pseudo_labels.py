"""Classes for images that come without labels."""

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans

from skdfb.detector._forward import ForwardPass, represent_foreground
from skdfb.utils import Images

__all__ = ["pseudo_labels"]

_MOST_CLUSTERS, _IMAGES_A_CLUSTER = 10, 20
_LEAST_IMAGES = 4  # two clusters of two


def pseudo_labels(forward: ForwardPass, images: Images, seed: int) -> npt.NDArray[np.intp]:
    """Cluster images by k-means on the features of the untrained backbone.

    There are ``min(10, n // 20)`` clusters, but at least 2; who knows the number better clusters first and passes
    ``y``. Clusters of a single image are given up, so that each has images to train on and to hold out. Where fewer
    than two are left, as for images that all have the same features, the images are split at random.
    """
    if len(images) < _LEAST_IMAGES:
        raise ValueError(
            f"X has {len(images)} images and y is None; without labels, at least {_LEAST_IMAGES} images are wanted."
        )
    features = np.concatenate(
        [
            represent_foreground(forward.network, batch.feature_map, forward.n_classes).features.cpu().numpy()
            for batch in forward.batches(images)
        ]
    ).astype(np.float64)
    rng = np.random.RandomState(seed)
    n_clusters = max(2, min(_MOST_CLUSTERS, len(features) // _IMAGES_A_CLUSTER))
    if len(np.unique(features, axis=0)) >= n_clusters:
        clustering = KMeans(n_clusters, n_init=3, random_state=rng).fit(features)
        shared = np.bincount(clustering.labels_, minlength=n_clusters) > 1
        if shared.sum() > 1:
            distances = np.where(shared, clustering.transform(features), np.inf)  # (n, n_clusters)
            return np.unique(distances.argmin(1), return_inverse=True)[1].astype(np.intp)
    return rng.permutation(len(features)) % 2
