"""RankFeat: the energy after removing the strongest pattern of the feature map."""

import torch
from torch import Tensor

from skdfb.scorers._base import as_double
from skdfb.scorers._representation import Representation
from skdfb.scorers._shaped_energy import ShapedEnergy, map_chunks


class RankFeat(ShapedEnergy):
    r"""Rank-1 feature removal: the energy after removing the strongest pattern of the feature map.

    .. math::

        S(x) = \log \sum_k e^{z_k}, \qquad z = W \bar{a} + b, \qquad
        \bar{a} = \frac{1}{hw} (A - s_1 u_1 v_1^\top) 1

    where A is the feature map of image x as a matrix of C channels by h w places, s₁ is its largest singular value
    with the singular vectors u₁ (over the channels) and v₁ (over the places), and 1 is a vector of ones, so that
    :math:`\bar{a}` is a mean over the places. W and b are the weight and the bias of the head. OOD images often have a
    large s₁, which makes their logits large. Higher is more in-distribution. `fit` only records the sizes.

    Attributes
    ----------
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit".
    needs_activations : tuple of str
        ("feature_map",): the map (n, C, h, w) whose mean over the places gives the features.

    See Also
    --------
    Energy : The energy with the whole map.

    Notes
    -----
    The singular vector of the smaller side is the leading eigenvector of A Aᵀ or Aᵀ A, computed in float64. If the two
    largest singular values are equal, the pattern is not unique, and neither is the score.

    This is the paper's score for the last map, which is the input of the head. The paper also averages these logits
    with those of the map one block earlier. That needs another forward pass and is not offered.

    A map with a single channel or a single place is removed completely. So `fit` raises ValueError for a single
    feature, and `score_samples` raises it for a single place.

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
                f"representation has {n_features} feature: expected at least 2 features. RankFeat removes the "
                "strongest pattern of the feature map, and a map of one channel has no other. Energy() works with one "
                "feature."
            )

    def _shape(self, batch: Representation) -> tuple[Tensor, Tensor | float]:
        pooled = [_mean_without_strongest(maps.double()) for maps in map_chunks(batch)]
        return torch.cat(pooled) if pooled else as_double(batch.features), 1.0


def _mean_without_strongest(maps: Tensor) -> Tensor:
    """Return the mean over places, (m, C), of maps (m, C, P) less their rank-1 part."""
    C, P = maps.shape[1:]
    if P == 1:
        raise ValueError(
            "activations['feature_map'] has one place: expected at least 2 places. RankFeat would remove the whole "
            "map; use larger images, or Energy()."
        )
    # Without this division, the squares in A Aᵀ could overflow or underflow. It does not change the singular vectors.
    scale = maps.abs().amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    # `eigh` fails on NaN and infinity. `mean` keeps them, so that the score of such an image is NaN.
    A = torch.where(torch.isfinite(scale), maps / scale, 0.0)
    mean = maps.mean(dim=2, keepdim=True)  # (m, C, 1)
    # The eigenvectors of the smaller of the two products are cheaper.
    if P <= C:
        v = torch.linalg.eigh(A.mT @ A).eigenvectors[:, :, -1:]  # (m, P, 1), eigenvalues ascend
        strongest = (maps @ v) * v.mean(dim=1, keepdim=True)
    else:
        u = torch.linalg.eigh(A @ A.mT).eigenvectors[:, :, -1:]  # (m, C, 1)
        strongest = u * (u.mT @ mean)
    pooled: Tensor = (mean - strongest).squeeze(2)
    return pooled
