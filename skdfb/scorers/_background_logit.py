"""The background score of DFB."""

from collections.abc import Iterator

from torch import Tensor

from skdfb.scorers._base import BaseScorer, as_double
from skdfb.scorers._representation import Representation


class BackgroundLogit(BaseScorer):
    r"""Logit of the background class, Eq. 6 of DFB.

    .. math:: S_b(x) = z_K

    where z_K is the last logit of image x: the dense net's logit of the background class, averaged over all places.
    Higher is more in-distribution: the net learned the backgrounds of the training images, so strange backgrounds, and
    strange mixtures of object and background, lower it. It learns nothing: `fit` only records the sizes.

    It works on the background representation, whose logits are (n, 1), and likewise on one with all K + 1 columns.

    Attributes
    ----------
    n_features_in_ : int
        Number of features C seen in `fit`.
    n_classes_ : int
        Number of columns of the logits seen in `fit`.
    output : str
        "logit".

    References
    ----------
    Ding and Pang, *Improving Out-of-Distribution Detection with Disentangled Foreground and Background Features*,
    ACM MM 2024, arXiv 2303.08727.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import BackgroundLogit, Representation
    >>> features = np.array([[4.0, 0.0], [1.0, 1.0]])
    >>> background = Representation.from_numpy(features=features, weight=np.array([[0.5, 2.0]]), bias=np.zeros(1))
    >>> BackgroundLogit().fit(background).score_samples(background)
    array([2. , 2.5])
    """

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        for batch in representation.batches():
            yield as_double(batch.logits[:, -1])
