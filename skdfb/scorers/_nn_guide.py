"""NNGuide: the energy, multiplied by the similarity to the nearest training features."""

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
    draw_images,
    narrow_unit_rows,
    parts,
    products,
    unit_bank,
)
from skdfb.scorers._representation import Representation
from skdfb.scorers._softmax import energy

# 1 % of ImageNet-1k, the paper's bank.
_PAPER_BANK = 12_812


class NNGuide(BaseScorer):
    r"""Nearest-neighbour guidance: the energy multiplied by the similarity to confident training features.

    .. math::

        S(x) = E(x) \cdot \frac{1}{k} \sum_{i \in N_k(x)} \langle z, E_i z_i \rangle, \qquad
        E(x) = \log \sum_c e^{l_c}, \qquad z = h / \lVert h \rVert

    where h are the C features and l the K logits of image x, :math:`z_i` and :math:`E_i` are z and E of training image
    i of the bank, :math:`N_k(x)` are the k images of the bank with the largest products
    :math:`\langle z, E_i z_i \rangle` and k is `n_neighbors`. Higher is more in-distribution. No labels are needed.

    Parameters
    ----------
    n_neighbors : int, default=10
        Number of neighbours k, from 1 to the number of images in the bank.
    bank_size : int or float, default=None
        Number of training images in the bank, which are drawn at random without replacement. An int >= 1 is the number
        of images; all are taken if there are fewer. A float in (0, 1] is a share of the training images. None takes 1 %
        of the training images but at least 12,812, or all if there are fewer. The paper takes 1 % of ImageNet, which
        is 12,812 images.
    random_state : int, RandomState instance or None, default=0
        Seed for drawing the bank. None draws another bank in each `fit`.

    Attributes
    ----------
    bank_ : ndarray of shape (n_bank, C)
        Normalised features of the bank in float32, each multiplied by its energy divided by `bank_scale_`.
    bank_scale_ : float
        The largest absolute energy in the bank.
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit".

    See Also
    --------
    Energy : The factor E(x) alone.
    KNN : The nearest neighbours alone.

    Notes
    -----
    `fit` raises ValueError if the bank has fewer images than `n_neighbors`. It reads only the images of the bank.
    Which images are drawn depends on the order of the training images. The search is exact; see :class:`KNN`.

    As in the paper, the score is a product of two energies. If energies are negative (all logits well below 0), the
    sign of the score loses its meaning. Adding a constant to all logits does not change the softmax, but it changes
    the ranks of the scores.

    An image whose features are all 0 has no direction. Its normalised features stay 0, so its score is 0. (The paper's
    code bounds the norm from below for this purpose. Some libraries add a small number to every normalised feature
    instead.)

    References
    ----------
    Park, Jung and Teoh, *Nearest Neighbor Guidance for Out-of-Distribution Detection*, ICCV 2023, arXiv 2309.14888.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import NNGuide, Representation
    >>> head = {"weight": np.array([[1.0, 0.0], [0.0, 1.0]]), "bias": np.zeros(2)}
    >>> features = np.array([[4.0, 0.0], [5.0, 0.1], [0.0, 4.0], [0.1, 5.0]])
    >>> scorer = NNGuide(n_neighbors=2).fit(Representation.from_numpy(features=features, **head))
    >>> new = np.array([[5.0, 0.0], [4.3, 4.3]])  # of about the same energy
    >>> scorer.score_samples(Representation.from_numpy(features=new, **head)).round(1)
    array([22.6, 18. ])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {**BANK_CONSTRAINTS}

    def __init__(
        self,
        n_neighbors: int = 10,
        bank_size: int | float | None = None,
        random_state: int | RandomState | None = 0,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.bank_size = bank_size
        self.random_state = random_state

    def _check_sizes(self, n_features: int, n_classes: int, n_images: int) -> None:
        check_bank(self.n_neighbors, n_images, self._choose_bank_size(n_images))

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        images = draw_images(len(representation), self._choose_bank_size(len(representation)), self.random_state)
        energies = _energies(representation, images)
        # Energies may exceed the range of float32, in which the bank is stored.
        scale = float(np.abs(energies).max()) or 1.0
        bank = unit_bank(representation, images, energies / scale)
        self.bank_: NDArray[np.float32] = bank
        self.bank_scale_ = scale

    def _choose_bank_size(self, n: int) -> int | float:
        # On small data sets 1 % would be too few images, so the default is at least the size in the paper.
        return max(_PAPER_BANK, round(0.01 * n)) if self.bank_size is None else self.bank_size

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        bank = tensor_like(self.bank_, representation.features)
        for batch in representation.batches(QUERIES):
            z = narrow_unit_rows(batch.features)  # (m, C)
            # The rows of the bank include their energies, so these products are the terms of the sum.
            # More rows than k are found, since float32 may rank nearly equal products wrongly.
            rows, _ = candidates(z, bank, 1, self.n_neighbors)
            nearest = products(z, bank, rows).topk(self.n_neighbors, dim=1).values  # (m, k)
            yield energy(batch.logits) * self.bank_scale_ * nearest.mean(dim=1)


def _energies(representation: Representation, images: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the energy E of the chosen training images."""
    energies = np.empty(len(images))
    for place, part in parts(representation, images):
        energies[place] = energy(part.logits).numpy(force=True)
    return energies
