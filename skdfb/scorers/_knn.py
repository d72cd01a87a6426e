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
    r"""Deep nearest neighbours: the distance to the k-th nearest training feature on the unit sphere, negated.

    .. math:: S(x) = -\lVert z - z_{(k)} \rVert, \qquad z = h / \lVert h \rVert

    where h are the C features of image x, :math:`z_{(1)}, z_{(2)}, \ldots` are the normalised features of the training
    images in the bank, nearest to z first, and k is `n_neighbors`. Higher is more in-distribution; scores lie between
    -2 and 0. `fit` needs no classes, so background representations can be scored as well.

    Parameters
    ----------
    n_neighbors : int, default=50
        The number k >= 1, at most the size of the bank. The paper uses 50 for CIFAR-10, 200 for CIFAR-100 and, for
        ImageNet, 1000 with all training images or 10 with a bank of 1 % of them.
    bank_size : int or float, default=None
        Number of training images in the bank, drawn at random without replacement: an int >= 1 (if there are fewer
        images, all of them) or, as a float in (0, 1], a share of the images. None uses all.
    random_state : int, RandomState instance or None, default=0
        Seed for drawing the bank. None draws a different bank in each `fit`.

    Attributes
    ----------
    bank_ : ndarray of shape (n_bank, C)
        Normalised features of the images in the bank, in float32.
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit".

    See Also
    --------
    NNGuide : Energy times the similarity to the nearest training features.

    Notes
    -----
    `fit` raises ValueError if the bank has fewer images than `n_neighbors`. It reads only the images of the bank, so a
    small bank of a large memory-mapped set loads little. The images that are drawn depend on their order.

    The search is exact. Float32 products choose candidates, one block of the bank at a time. The distance to the k-th
    neighbour is then computed in float64 from differences. Images whose neighbours are too close together for float32
    are searched for again in float64. So distances between near-duplicates are accurate. The only rounding is that of
    the normalised features to float32, which changes a distance by a few 1e-7 at most. Features that are all 0 have no
    direction; they stay 0, at distance 1 from all others.

    A training image that is scored finds itself in the bank at distance 0. To leave it out, score training images with
    ``n_neighbors + 1``. Distances are not squared, as in the paper. Its code and some libraries use squared distances,
    which give the same ranking.

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

    def _check_sizes(self, n_features: int, n_classes: int, n_images: int) -> None:
        check_bank(self.n_neighbors, n_images, self.bank_size)

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        images = draw_images(len(representation), self.bank_size, self.random_state)
        self.bank_: NDArray[np.float32] = unit_bank(representation, images)

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        bank = tensor_like(self.bank_, representation.features)
        for batch in representation.batches(QUERIES):
            # Rounded to float32 like the bank, so that a copy of a training image is at distance 0.
            z = narrow_unit_rows(batch.features)  # (m, C)
            rows, n_nearer = candidates(z, bank, self.n_neighbors, self.n_neighbors, by_distance=True)
            # `rows` leave out the n_nearer nearest, so the k-th neighbour is the (k - n_nearer)-th of them.
            yield -distances(z, bank, rows).kthvalue(self.n_neighbors - n_nearer, dim=1).values
