"""Residual: the distance of the feature from the principal space."""

from collections.abc import Iterator
from numbers import Integral
from typing import Any, ClassVar

from numpy.typing import ArrayLike
from torch import Tensor

from skdfb._constraints import Interval
from skdfb.scorers._base import BaseScorer
from skdfb.scorers._principal_space import ResidualSpace, check_components
from skdfb.scorers._representation import Representation


class Residual(BaseScorer):
    r"""Distance of the feature from the principal space of the training features, negated.

    .. math:: S(x) = -\lVert R^\top (h - u) \rVert, \qquad u = -W^{+} b

    where h are the C features of image x, W and b are the weight and the bias of the head and W⁺ is the
    pseudo-inverse. The principal space is spanned by the D eigenvectors of
    :math:`\sum_i (h_i - u)(h_i - u)^\top` with the largest eigenvalues, where the sum is over the training images i.
    The columns of R are the other C - D eigenvectors. Scores are at most 0. Higher is more in-distribution.

    Parameters
    ----------
    n_components : int, default=None
        Size D of the principal space. It must be less than C and less than the numerical rank of the training features
        about u, which is at most n for n images. None takes 1000 if C >= 2048, 512 if C >= 768, else C // 2, but at
        most half of that rank. So a residual is left even with few training images.

    Attributes
    ----------
    origin_ : ndarray of shape (C,)
        The origin u, where all logits are as close to 0 as possible.
    residual_basis_ : ndarray of shape (C, C - D)
        The matrix R with orthonormal columns.
    residual_share_ : float
        Root mean square of the residual of the training features divided by that of h - u.
    n_components_ : int
        The D in use.
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit".

    See Also
    --------
    ViM : The energy of the logits minus this residual, scaled.
    NECO : The share of the feature inside a principal space.

    Notes
    -----
    This is the part of ViM that does not read the logits. The ViM paper also evaluates it alone. It needs no classes,
    so it can score background representations, too. `fit` raises ValueError if no residual is left: D >= C, or
    D >= rank of the training features, where the residual would consist of rounding errors. The second moment is not
    centred. It is summed and decomposed in float64.

    References
    ----------
    Wang et al., *ViM: Out-Of-Distribution with Virtual-logit Matching*, CVPR 2022, arXiv 2203.10807.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import Representation, Residual
    >>> rng = np.random.default_rng(0)
    >>> head = {"weight": np.eye(2, 4), "bias": np.zeros(2)}
    >>> features = rng.normal(size=(100, 4)) * [3.0, 3.0, 0.1, 0.1]
    >>> scorer = Residual(n_components=2).fit(Representation.from_numpy(features=features, **head))
    >>> new = np.array([[3.0, 0.0, 0.0, 0.0], [3.0, 0.0, 1.0, 0.0]])
    >>> in_distribution, out = scorer.score_samples(Representation.from_numpy(features=new, **head))
    >>> bool(in_distribution > out)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left"), None]
    }

    def __init__(self, n_components: int | None = None) -> None:
        self.n_components = n_components

    def _check_sizes(self, n_features: int, n_classes: int, n_images: int) -> None:
        remedy = "For a single feature, use a scorer that reads the logits, such as Energy()."
        check_components(self.n_components, n_features, n_images, remedy)

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        space = ResidualSpace.fit(representation, self.n_components)
        self.origin_ = space.origin.numpy(force=True)
        self.residual_basis_ = space.basis.numpy(force=True)
        self.residual_share_ = space.share
        # The chosen D: the basis holds the other C - D directions.
        self.n_components_ = representation.n_features - space.basis.shape[1]

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        # Negated, since higher must be more in-distribution.
        for _, residual in ResidualSpace.of(self, representation).norms(representation):
            yield -residual
