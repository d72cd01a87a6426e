"""The background score of DFB."""

from collections.abc import Iterator

from torch import Tensor

from skdfb.scorers._base import BaseScorer, as_double
from skdfb.scorers._representation import Representation


class BackgroundLogit(BaseScorer):
    r"""Logit of the background class: the background score of DFB.

    It is Eq. 6 of the paper:

    .. math:: S_b(x) = z_K

    where :math:`z_K` is the last logit of image x: the logit of the background class of the dense network, averaged
    over all places. Higher is more in-distribution: the dense network learned the backgrounds of the training images,
    so unusual backgrounds, and unusual combinations of foreground and background, lower the score. `fit` only records
    the sizes.

    The logits may have shape (n, 1), as in the background representation, or all K + 1 columns.

    Attributes
    ----------
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of columns of the logits in `fit`.
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
        # The background is the last class, also if the logits of the other classes are given.
        for batch in representation.batches():
            yield as_double(batch.logits[:, -1])
