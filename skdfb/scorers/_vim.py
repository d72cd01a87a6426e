"""ViM: virtual-logit matching."""

import warnings
from collections.abc import Iterator
from numbers import Integral
from typing import Any, ClassVar

from numpy.typing import ArrayLike
from sklearn.utils._param_validation import Interval
from torch import Tensor

from skdfb.scorers._base import BaseScorer, as_double
from skdfb.scorers._principal_space import ResidualSpace, check_components
from skdfb.scorers._representation import Representation
from skdfb.scorers._softmax import energy


class ViM(BaseScorer):
    r"""Virtual-logit matching: the energy of the logits less the residual of the features.

    .. math::

        S(x) = \log \sum_k e^{z_k} - \alpha \, r(x), \qquad
        r(x) = \lVert R^\top (h - u) \rVert, \qquad
        u = -W^{+} b, \qquad
        \alpha = \frac{\sum_i \max_k z_{ik}}{\sum_i r(x_i)}

    where h are the C features and z the K logits of image x, W and b are the head, W⁺ is the pseudo-inverse and the
    sums run over the training images i. The principal space is spanned by the D eigenvectors of
    :math:`\sum_i (h_i - u)(h_i - u)^\top` with the largest eigenvalues; R holds the other C - D as columns,
    so r(x) is how far the feature lies from where training features lie. Higher is more in-distribution.

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
        R, with orthonormal columns. (Some libraries hold it under the name of the principal space.)
    alpha_ : float
        Scale of the residual.
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

    Warns
    -----
    UserWarning
        If `fit` finds ``alpha_ <= 0``, because the largest logits of the training images sum to 0 or less.

    See Also
    --------
    Energy : The score without the residual.
    Residual : The residual alone.

    Notes
    -----
    `fit` raises ValueError if no residual is left: D >= C, or D >= rank of the training features, where alpha would
    be infinite or made of rounding errors. The second moment is not centred, and it is summed up and
    decomposed in float64. `fit` reads the features twice, a batch at a time; beyond a batch it holds C x C numbers.
    Residuals of float32 features are computed in float32, unless `residual_share_` is so small that rounding would
    show.

    References
    ----------
    Wang et al., *ViM: Out-Of-Distribution with Virtual-logit Matching*, CVPR 2022, arXiv 2203.10807.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import Representation, ViM
    >>> rng = np.random.default_rng(0)
    >>> head = {"weight": np.eye(2, 4), "bias": np.zeros(2)}
    >>> features = rng.normal(size=(100, 4)) * [3.0, 3.0, 0.1, 0.1]
    >>> scorer = ViM(n_components=2).fit(Representation.from_numpy(features=features, **head))
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
        check_components(self.n_components, n_features, "Energy() needs no features.")

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        space = ResidualSpace.fit(representation, self.n_components)
        alpha = _alpha(representation, space)
        if alpha <= 0:
            warnings.warn(
                f"alpha_ is {alpha:.3g}: the largest logits of the training images sum to 0 or less, so the residual "
                "does not lower ViM's score. Check the head, or use a scorer that does not scale by logits.",
                UserWarning,
                stacklevel=4,
            )
        self.origin_ = space.origin.numpy(force=True)
        self.residual_basis_ = space.basis.numpy(force=True)
        self.residual_share_ = space.share
        self.alpha_ = alpha
        self.n_components_ = representation.n_features - space.basis.shape[1]

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        for batch, residual in ResidualSpace.of(self, representation).norms(representation):
            yield energy(batch.logits) - self.alpha_ * residual


def _alpha(representation: Representation, space: ResidualSpace) -> float:
    """Return the sum of the largest logits over the sum of the residual norms."""
    largest_logits = residuals = 0.0
    for batch, residual in space.norms(representation):
        largest_logits += float(as_double(batch.logits.amax(dim=1)).sum())
        residuals += float(residual.sum())
    return largest_logits / residuals
