"""KNN: distance to the k-th nearest training feature."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.random import RandomState
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from skdfb.scorers._base import BaseScorer, tensor_like
from skdfb.scorers._neighbours import (
    BANK_CONSTRAINTS,
    QUERIES,
    candidates,
    check_bank,
    distances,
    draw_images,
    narrow_unit_rows,
    unit_bank,
)
from skdfb.scorers._representation import Representation


class KNN(BaseScorer):
    r"""Deep nearest neighbours: how far the k-th nearest training feature is, on the unit sphere.

    .. math:: S(x) = -\lVert z - z_{(k)} \rVert, \qquad z = h / \lVert h \rVert

    where h are the C features of image x, :math:`z_{(1)}, z_{(2)}, \ldots` are the normalised features of the bank of
    training images, nearest to z first, and k is `n_neighbors`. Higher is more in-distribution; scores run from -2
    to 0. No labels are needed, so it scores background representations as well.

    Parameters
    ----------
    n_neighbors : int, default=50
        The k >= 1, at most the size of the bank. 50 is the paper's for CIFAR-10; it takes 200 for CIFAR-100 and, on
        ImageNet, 1000 with all training images and 10 with a bank of 1 % of them.
    bank_size : int or float, default=None
        Training images in the bank, drawn at random without replacement: a number >= 1 (at most all are taken) or,
        as a float in (0, 1], a share of them. None takes all.
    random_state : int, RandomState instance or None, default=0
        Draws the bank. None draws another one in each `fit`.

    Attributes
    ----------
    bank_ : ndarray of shape (n_bank, C)
        Normalised features of the bank, in float32.
    n_features_in_ : int
        Number of features C seen in `fit`.
    n_classes_ : int
        Number of classes K seen in `fit`.
    output : str
        "logit".

    See Also
    --------
    NNGuide : Energy times the similarity to the nearest training features.

    Notes
    -----
    `fit` raises ValueError if the bank has fewer images than `n_neighbors`. It reads the images of the bank alone, so
    a small bank of a large memory-mapped set loads little. Which images are drawn depends on their order.

    The search is exact: float32 products choose candidates a block of the bank at a time, the distance to the k-th is
    then computed in float64 from differences, and images whose neighbours lie too close together for float32 are
    searched again in float64. So near-duplicates keep their distances. What is rounded is the normalised features,
    to float32, which moves a distance by a few 1e-7 at most. Features of zeros have no direction and stay 0, at
    distance 1 from all others.

    A training image that is scored finds itself in the bank at distance 0. To leave it out, score training images with
    ``n_neighbors + 1``. Distances are plain ones, as in the paper; its code and some libraries take
    squared ones, which rank images the same.

    References
    ----------
    Sun et al., *Out-of-Distribution Detection with Deep Nearest Neighbors*, ICML 2022, arXiv 2204.06507.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import KNN, Representation
    >>> head = {"weight": np.eye(2), "bias": np.zeros(2)}
    >>> features = np.array([[1.0, 0.0], [2.0, 0.1], [4.0, -0.2], [0.0, 3.0]])
    >>> scorer = KNN(n_neighbors=2).fit(Representation.from_numpy(features=features, **head))
    >>> new = np.array([[5.0, 0.0], [0.0, 1.0]])
    >>> scorer.score_samples(Representation.from_numpy(features=new, **head)).round(2)
    array([-0.05, -1.38])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {**BANK_CONSTRAINTS}

    def __init__(
        self,
        n_neighbors: int = 50,
        bank_size: int | float | None = None,
        random_state: int | RandomState | None = 0,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.bank_size = bank_size
        self.random_state = random_state

    def check_sizes(self, n_features: int, n_classes: int, n_images: int) -> None:
        super().check_sizes(n_features, n_classes, n_images)
        check_bank(self.n_neighbors, self.bank_size)

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        images = draw_images(len(representation), self.bank_size, self.random_state)
        check_bank(self.n_neighbors, len(images))
        self.bank_: NDArray[np.float32] = unit_bank(representation, images)

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        bank = tensor_like(self.bank_, representation.features)
        for batch in representation.batches(QUERIES):
            z = narrow_unit_rows(batch.features)  # rounded like the bank, so that a copy is at distance 0
            rows, n_nearer = candidates(z, bank, self.n_neighbors, self.n_neighbors, by_distance=True)
            yield -distances(z, bank, rows).kthvalue(self.n_neighbors - n_nearer, dim=1).values
