"""NCI: how well the centred feature points along the weight of its class, and how large the feature is."""

from collections.abc import Iterator
from numbers import Real
from typing import Any, ClassVar

import torch
from numpy.typing import ArrayLike
from sklearn.utils._param_validation import Interval
from torch import Tensor

from skdfb.scorers._base import BaseScorer, as_double, double_like
from skdfb.scorers._moments import feature_mean
from skdfb.scorers._representation import Representation


class NCI(BaseScorer):
    r"""Neural-collapse inspired detector: the feature along the weight of its class, and the size of the feature.

    .. math::

        S(x) = \frac{w_c^\top (h - \mu)}{\lVert h - \mu \rVert} + \alpha \lVert h \rVert_1, \qquad
        c = \arg\max_k z_k

    where h are the C features and z the K logits of image x, :math:`w_c` is the row of the head's weight of the
    predicted class c, μ is the mean of the training features and α is `filter_strength`. The first term is
    :math:`\lVert w_c \rVert` times the cosine between weight and centred feature: under neural collapse, features
    centre on the weights of their classes. The second filters out features near the origin. Higher is more
    in-distribution.

    Parameters
    ----------
    filter_strength : float, default=1e-4
        α >= 0, in units of the weight over those of features. The default is that of the authors' code; they choose
        among 1e-4, 1e-3, 1e-2 and 0.1 on validation data.

    Attributes
    ----------
    mean_ : ndarray of shape (C,)
        The mean μ.
    n_features_in_ : int
        Number of features C seen in `fit`.
    n_classes_ : int
        Number of classes K seen in `fit`.
    output : str
        "logit".

    See Also
    --------
    FDBD : Distance of the feature to the decision boundaries.
    NECO : The share of the feature inside a principal space.

    Notes
    -----
    An image right at μ, where the first term is 0 / 0, has 0 there. `fit` needs no classes and reads the features once.
    The weight is that of the representation that is scored.

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
            h = as_double(batch.features)
            largest, c = as_double(batch.logits).max(dim=1)
            centred = h - mean
            norm = torch.linalg.vector_norm(centred, dim=1)
            along_weight = (weight[c] * centred).sum(dim=1) / norm.where(norm != 0, 1.0)
            scores = along_weight + self.filter_strength * h.abs().sum(dim=1)
            # A class is predicted of NaN, too.
            yield scores.masked_fill(largest.isnan(), torch.nan)
