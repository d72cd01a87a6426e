"""SHE: the inner product of the feature with the stored pattern of the predicted class."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from skdfb.scorers._base import (
    BaseScorer,
    as_double,
    check_class_indices,
    double_like,
    predicted_classes,
    tensor_like,
)
from skdfb.scorers._moments import class_means
from skdfb.scorers._representation import Representation


class SHE(BaseScorer):
    r"""Simplified Hopfield energy: the inner product of the feature with the pattern of the predicted class.

    .. math:: S(x) = h^\top p_c, \qquad c = \arg\max_k z_k

    where h are the C features and z the K logits of image x. The pattern :math:`p_k` of class k is the mean feature of
    the training images of this class that the network classifies correctly. Higher is more in-distribution.

    Attributes
    ----------
    patterns_ : ndarray of shape (K, C)
        The patterns; 0 for classes without a pattern.
    has_pattern_ : ndarray of shape (K,)
        The number 1.0 for classes with a pattern and 0.0 for the others.
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit".

    See Also
    --------
    NCI : The centred feature along the weight of the predicted class.

    Notes
    -----
    `fit` needs the classes y, 0..K-1. With K = 1 (a background representation) y may be None; all images then count as
    classified correctly.

    If no training image of a class is classified correctly, the pattern is the mean feature of all training images of
    this class. A class without training images has no pattern. If it is predicted, the class with the largest logit
    among the classes with a pattern is used instead. (Other libraries raise an error in this case or return NaN.)

    `fit` reads the logits and the features once, in batches. Besides a batch it holds K x C numbers in memory.

    References
    ----------
    Zhang et al., *Out-of-Distribution Detection based on In-Distribution Data Patterns Memorization with Modern
    Hopfield Energy*, ICLR 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import SHE, Representation
    >>> features = np.array([[4.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> representation = Representation.from_numpy(features=features, weight=np.eye(2), bias=np.zeros(2))
    >>> scorer = SHE().fit(representation, [0, 0, 1])
    >>> scorer.patterns_
    array([[3., 0.],
           [0., 1.]])
    >>> scorer.score_samples(representation)
    array([12.,  6.,  1.])
    """

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        labels, K = check_class_indices(y, representation), representation.n_classes
        # Two groups per class, so that one pass is enough: group k has the images of class k that are classified
        # correctly, group K + k has the other images of class k.
        groups = np.where(predicted_classes(representation) == labels, labels, K + labels)
        means, counts = class_means(representation, groups, 2 * K)
        patterns = torch.where(counts[:K, None] > 0, means[:K], means[K:])
        # A float, since fitted arrays become tensors only from floating-point numbers.
        has_pattern = (counts[:K] + counts[K:] > 0).double()
        self.patterns_ = patterns.numpy(force=True)
        self.has_pattern_ = has_pattern.numpy(force=True)

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        patterns = double_like(self.patterns_, representation.features)
        without_pattern = tensor_like(self.has_pattern_, representation.features) == 0
        for batch in representation.batches():
            z = as_double(batch.logits)
            c = z.masked_fill(without_pattern, -torch.inf).argmax(dim=1)
            scores = (as_double(batch.features) * patterns[c]).sum(dim=1)
            # torch predicts a class even where a logit is NaN, so the score would hide it.
            yield scores.masked_fill(z.isnan().any(dim=1), torch.nan)
