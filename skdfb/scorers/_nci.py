"""NCI: the centred feature along the weight of the predicted class, and the size of the feature."""

from collections.abc import Iterator
from numbers import Real
from typing import Any, ClassVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from skdfb._constraints import Interval
from skdfb.scorers._base import BaseScorer, as_double, double_like
from skdfb.scorers._moments import feature_mean
from skdfb.scorers._representation import Representation


class NCI(BaseScorer):
    r"""Neural-collapse inspired detector: the feature along the weight of the predicted class, plus its size.

    .. math::

        S(x) = \frac{w_c^\top (h - \mu)}{\lVert h - \mu \rVert} + \alpha \lVert h \rVert_1, \qquad
        c = \arg\max_k z_k

    where h are the C features and z the K logits of image x, :math:`w_c` is the weight of the head for the predicted
    class c, μ is the mean of the training features and α is `filter_strength`. The first term is
    :math:`\lVert w_c \rVert` times the cosine between the weight and the centred feature. It is large for
    in-distribution images because neural collapse aligns the centred features with the weights of their classes. The
    second term lowers the score of features near the origin. Higher is more in-distribution.

    Parameters
    ----------
    filter_strength : float, default=1e-4
        Factor α >= 0 of the second term, in units of the weight divided by units of the features. The default comes
        from the authors' code. The authors choose among 1e-4, 1e-3, 1e-2 and 0.1 on validation data.

    Attributes
    ----------
    mean_ : ndarray of shape (C,)
        The mean μ.
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit".

    See Also
    --------
    FDBD : The distance of the feature to the decision boundaries.
    NECO : The share of the feature inside a principal space.

    Notes
    -----
    The first term of an image exactly at μ is 0 / 0. It is set to 0. `fit` needs no classes and reads the features
    once. The weight is taken from the representation that is scored.

    References
    ----------
    Liu and Qin, *Detecting Out-of-Distribution Through the Lens of Neural Collapse*, CVPR 2025, arXiv 2311.01479.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import NCI, Representation
    >>> head = {"weight": np.array([[1.0, -1.0], [-1.0, 1.0]]), "bias": np.zeros(2)}
    >>> features = np.array([[4.0, 0.0], [0.0, 4.0]])
    >>> scorer = NCI().fit(Representation.from_numpy(features=features, **head))
    >>> new = np.array([[4.0, 0.0], [4.0, 3.0]])
    >>> scorer.score_samples(Representation.from_numpy(features=new, **head)).round(3)
    array([1.415, 0.448])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "filter_strength": [Interval(Real, 0, None, closed="left")]
    }

    def __init__(self, filter_strength: float = 1e-4) -> None:
        self.filter_strength = filter_strength

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        self.mean_ = feature_mean(representation).numpy(force=True)

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        mean = double_like(self.mean_, representation.features)
        weight = as_double(representation.weight)
        for batch in representation.batches():
            h = as_double(batch.features)  # (m, C)
            largest, c = as_double(batch.logits).max(dim=1)
            centred = h - mean
            norm = torch.linalg.vector_norm(centred, dim=1)
            # Dividing by 1 where the norm is 0 gives the 0 of the docstring.
            along_weight = (weight[c] * centred).sum(dim=1) / norm.where(norm != 0, 1.0)
            scores = along_weight + self.filter_strength * h.abs().sum(dim=1)
            # torch predicts a class even where a logit is NaN, so the score would hide it.
            yield scores.masked_fill(largest.isnan(), torch.nan)
