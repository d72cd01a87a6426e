"""Classes for images that come without labels."""

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans

from skdfb.detector._forward import ForwardPass, represent_foreground
from skdfb.utils import Images

__all__ = ["pseudo_labels"]

_MOST_CLUSTERS, _IMAGES_A_CLUSTER = 10, 20


def pseudo_labels(forward: ForwardPass, images: Images, seed: int) -> npt.NDArray[np.intp]:
    """Cluster images by k-means on the features of the untrained backbone.

    There are ``min(10, n // 20)`` clusters, but at least 2; who knows the number better clusters first and passes
    ``y``. Images that all have the same features are split at random.
    """
    features = np.concatenate(
        [
            represent_foreground(forward.network, batch.feature_map, forward.n_classes).features.cpu().numpy()
            for batch in forward.batches(images)
        ]
    ).astype(np.float64)
    rng = np.random.RandomState(seed)
    n_clusters = max(2, min(_MOST_CLUSTERS, len(features) // _IMAGES_A_CLUSTER))
    if len(np.unique(features, axis=0)) < n_clusters:
        return rng.permutation(len(features)) % 2
    labels = KMeans(n_clusters, n_init=3, random_state=rng).fit(features).labels_
    return np.unique(labels, return_inverse=True)[1].astype(np.intp)
