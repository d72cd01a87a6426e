"""RankFeat: the energy without the strongest pattern of the feature map."""

import torch
from torch import Tensor

from skdfb.scorers._base import as_double
from skdfb.scorers._representation import Representation
from skdfb.scorers._shaped_energy import ShapedEnergy, map_chunks


class RankFeat(ShapedEnergy):
    r"""Rank-1 feature removal: the energy after the strongest pattern was taken off the feature map.

    .. math::

        S(x) = \log \sum_k e^{z_k}, \qquad z = W \bar{a} + b, \qquad
        \bar{a} = \frac{1}{hw} (A - s_1 u_1 v_1^\top) 1

    where A is the feature map of image x as a matrix of C channels by h w places, s₁ its largest singular value with
    the singular vectors u₁ (over channels) and v₁ (over places), 1 is a vector of ones, so that :math:`\bar{a}` is a
    mean over places, and W and b are the head. Strange images give a large s₁, and with it confident logits. Higher is
    more in-distribution. It learns nothing: `fit` only records the sizes.

    Attributes
    ----------
    n_features_in_ : int
        Number of features C seen in `fit`.
    n_classes_ : int
        Number of classes K seen in `fit`.
    output : str
        "logit".
    needs_activations : tuple of str
        ("feature_map",), the map (n, C, h, w) whose mean over the places are the features.

    See Also
    --------
    Energy : The score of the whole map.

    Notes
    -----
    The singular vector of the smaller side comes from the eigenvectors of A Aᵀ or Aᵀ A, in float64. Where the two
    largest singular values are equal, the pattern, and so the score, is not unique.

    This is the paper's score of the last map, from which the head reads; the average of its logits with those of the
    map one block earlier needs another forward pass and is not offered.

    Raises ValueError where every map is taken off whole: with a single feature (in `fit`), or a single place (when
    scores are asked for).

    References
    ----------
    Song et al., *RankFeat: Rank-1 Feature Removal for Out-of-distribution Detection*, NeurIPS 2022, arXiv 2209.08590.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import RankFeat, Representation
    >>> maps = np.array([[[[9.0, 0.0], [0.0, 0.0]], [[0.0, 4.0], [0.0, 0.0]]]])  # strong in channel 0
    >>> representation = Representation.from_numpy(
    ...     features=maps.mean((2, 3)), weight=np.eye(2), bias=np.zeros(2), activations={"feature_map": maps}
    ... )
    >>> RankFeat().fit(representation).score_samples(representation).round(3)  # that of features [0, 1]
    array([1.313])
    """

    needs_activations = ("feature_map",)

    def _check_sizes(self, n_features: int, n_classes: int, n_images: int) -> None:
        if n_features < 2:
            raise ValueError(
                f"representation has {n_features} feature; RankFeat takes the strongest pattern off the feature map, "
                "which is all of a map of one channel, so at least 2 features are wanted. Energy() works with one."
            )

    def _shape(self, batch: Representation) -> tuple[Tensor, Tensor | float]:
        pooled = [_mean_without_strongest(maps.double()) for maps in map_chunks(batch)]
        return torch.cat(pooled) if pooled else as_double(batch.features), 1.0


def _mean_without_strongest(maps: Tensor) -> Tensor:
    """Return the mean over places, (m, C), of maps (m, C, P) less their rank-1 part."""
    C, P = maps.shape[1:]
    if P == 1:
        raise ValueError(
            "activations['feature_map'] has one place; RankFeat would take all of it off, so at least 2 places are "
            "wanted: use larger images, or Energy()."
        )
    # Neither the squares nor their sums shall leave float64's range; the singular vectors know no scale.
    scale = maps.abs().amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    A = torch.where(torch.isfinite(scale), maps / scale, 0.0)
    mean = maps.mean(dim=2, keepdim=True)  # (m, C, 1)
    if P <= C:
        v = torch.linalg.eigh(A.mT @ A).eigenvectors[:, :, -1:]  # (m, P, 1), eigenvalues ascend
        strongest = (maps @ v) * v.mean(dim=1, keepdim=True)
    else:
        u = torch.linalg.eigh(A @ A.mT).eigenvectors[:, :, -1:]  # (m, C, 1)
        strongest = u * (u.mT @ mean)
    pooled: Tensor = (mean - strongest).squeeze(2)
    return pooled
