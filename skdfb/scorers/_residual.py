"""Residual: how far the feature lies outside the principal space."""

from collections.abc import Iterator
from numbers import Integral
from typing import Any, ClassVar

from numpy.typing import ArrayLike
from sklearn.utils._param_validation import Interval
from torch import Tensor

from skdfb.scorers._base import BaseScorer
from skdfb.scorers._principal_space import ResidualSpace, check_components
from skdfb.scorers._representation import Representation


class Residual(BaseScorer):
    r"""Distance of the feature from the principal space of the training features, negated.

    .. math:: S(x) = -\lVert R^\top (h - u) \rVert, \qquad u = -W^{+} b

    where h are the C features of image x, W and b are the head and W⁺ is the pseudo-inverse. The principal space is
    spanned by the D eigenvectors of :math:`\sum_i (h_i - u)(h_i - u)^\top` over the training images i with the largest
    eigenvalues; R holds the other C - D as columns. Scores are 0 at most. Higher is more in-distribution.

    Parameters
    ----------
    n_components : int, default=None
        Size D of the principal space, less than C and less than the numerical rank of the training features about
        u. None takes 1000 if C >= 2048, 512 if C >= 768, else C // 2, but at most half of that rank, so that few
        training images leave a residual, too.

    Attributes
    ----------
    origin_ : ndarray of shape (C,)
        The origin u, at which all logits are as close to 0 as can be.
    residual_basis_ : ndarray of shape (C, C - D)
        R, with orthonormal columns.
    residual_share_ : float
        Root mean square of the residual of the training features over that of h - u.
    n_components_ : int
        The D in use.
    n_features_in_ : int
        Number of features C seen in `fit`.
    n_classes_ : int
        Number of classes K seen in `fit`.
    output : str
        "logit".

    See Also
    --------
    ViM : This residual, scaled, and the energy of the logits.
    NECO : The share of the feature inside a principal space.

    Notes
    -----
    This is the part of ViM that reads no logits, which its paper scores on its own, too. It needs no classes, so it
    serves background representations as well. `fit` raises ValueError if no residual is left: D >= C, or D >= rank of
    the training features, where it would be made of rounding errors. The second moment is not centred; it is summed
    up and decomposed in float64.

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
        check_components(self.n_components, n_features, "A single feature has no residual: use scores of logits.")

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        space = ResidualSpace.fit(representation, self.n_components)
        self.origin_ = space.origin.numpy(force=True)
        self.residual_basis_ = space.basis.numpy(force=True)
        self.residual_share_ = space.share
        self.n_components_ = representation.n_features - space.basis.shape[1]

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        for _, residual in ResidualSpace.of(self, representation).norms(representation):
            yield -residual
