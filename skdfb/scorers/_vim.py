"""ViM: the energy of the logits minus the scaled residual of the features."""

import warnings
from collections.abc import Iterator
from numbers import Integral
from typing import Any, ClassVar

from numpy.typing import ArrayLike
from torch import Tensor

from skdfb._constraints import Interval
from skdfb.scorers._base import BaseScorer, as_double
from skdfb.scorers._principal_space import ResidualSpace, check_components
from skdfb.scorers._representation import Representation
from skdfb.scorers._softmax import energy


class ViM(BaseScorer):
    r"""Virtual-logit matching: the energy of the logits minus the scaled residual of the features.

    .. math::

        S(x) = \log \sum_k e^{z_k} - \alpha \, r(x), \qquad
        r(x) = \lVert R^\top (h - u) \rVert, \qquad
        u = -W^{+} b, \qquad
        \alpha = \frac{\sum_i \max_k z_{ik}}{\sum_i r(x_i)}

    where h are the C features and z the K logits of image x, W and b are the weight and the bias of the head, W⁺ is
    the pseudo-inverse and the sums run over the training images i. The principal space is spanned by the D
    eigenvectors of :math:`\sum_i (h_i - u)(h_i - u)^\top` with the largest eigenvalues. The columns of R are the other
    C - D eigenvectors. So r(x) is the distance of the feature from the principal space. Higher is more
    in-distribution.

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
        The matrix R with orthonormal columns. (Some libraries call this matrix the principal space.)
    alpha_ : float
        The scale α of the residual.
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

    Warns
    -----
    UserWarning
        If ``alpha_ <= 0``, because the largest logits of the training images sum to 0 or less.

    See Also
    --------
    Energy : The score without the residual.
    Residual : The residual alone.

    Notes
    -----
    `fit` raises ValueError if no residual is left: D >= C, or D >= rank of the training features, where α would be
    infinite or consist of rounding errors. The second moment is not centred. It is summed and decomposed in float64.
    `fit` reads the features twice, in batches; besides a batch it holds C x C numbers in memory. Residuals of float32
    features are computed in float32, unless `residual_share_` is so small that rounding would change the scores.

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
        check_components(self.n_components, n_features, n_images, "Energy() needs no features.")

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        space = ResidualSpace.fit(representation, self.n_components)
        alpha = _alpha(representation, space)
        # With such an α, a larger residual would not lower the score.
        if alpha <= 0:
            warnings.warn(
                f"alpha_ is {alpha:.3g}: the largest logits of the training images sum to 0 or less, so the residual "
                "does not lower ViM's score. Check the head, or use a scorer that does not scale by logits.",
                UserWarning,
                stacklevel=4,  # the caller of `fit`
            )
        # Attributes are set only now, so that a failed fit leaves an earlier one intact.
        self.origin_ = space.origin.numpy(force=True)
        self.residual_basis_ = space.basis.numpy(force=True)
        self.residual_share_ = space.share
        self.alpha_ = alpha
        self.n_components_ = representation.n_features - space.basis.shape[1]

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        for batch, residual in ResidualSpace.of(self, representation).norms(representation):
            # α r(x) is the logit of a virtual class for OOD images.
            yield energy(batch.logits) - self.alpha_ * residual


def _alpha(representation: Representation, space: ResidualSpace) -> float:
    """Return the sum of the largest logits divided by the sum of the residual norms."""
    # The residuals need the basis of the space, so this is a second pass over the features.
    largest_logits = residuals = 0.0
    for batch, residual in space.norms(representation):
        largest_logits += float(as_double(batch.logits.amax(dim=1)).sum())
        residuals += float(residual.sum())
    return largest_logits / residuals
