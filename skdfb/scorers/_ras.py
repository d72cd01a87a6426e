"""RAS: the energy after giving the sorted features of each image the mean values of training images."""

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from skdfb.scorers._base import double_like, wide
from skdfb.scorers._moments import feature_mean
from skdfb.scorers._representation import Representation
from skdfb.scorers._shaped_energy import ShapedEnergy


class RAS(ShapedEnergy):
    r"""Ranked activation shift: the energy after replacing each feature by the mean training feature of its rank.

    .. math::

        S(x) = \log \sum_k e^{z_k}, \qquad z = W h' + b, \qquad h'_j = m_{r_j}, \qquad
        m_r = \frac{1}{n} \sum_i h_{i, (r)}

    where h are the C features of image x, :math:`r_j` is the rank of feature j among them in ascending order,
    :math:`h_{i, (r)}` is the feature of rank r of training image i, the sum runs over the n training images, and W and
    b are the weight and the bias of the head. After the shift, all images have the same values, the profile m. So the
    score depends only on which features are large, not on how large they are. Higher is more in-distribution.

    Attributes
    ----------
    profile_ : ndarray of shape (C,)
        The profile m, in ascending order.
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit".

    See Also
    --------
    Energy : The energy without the shift.
    ReAct : Clips the largest features.
    SCALE : Multiplies all features of an image by one factor.

    Notes
    -----
    The abstract of the paper speaks of sorted magnitudes. The authors' code (https://github.com/gigug/RAS) sorts the
    features with their signs and replaces them with their signs. This is the formula above. For features without
    negative values, both are the same. As in that code, the profile is the mean over the training images of all
    classes, and the score is the energy of the new logits, not the size of the shift.

    Equal features have no order. After a ReLU, this concerns all zeros of an image. Here, each of them gets the mean of
    the profile over their ranks, which is the mean of h' over all their orders. So no score depends on the order of the
    features. The authors' code takes the order that the sorting algorithm returns. An image whose features are all 0
    gets the mean of the profile for each feature.

    The score jumps where two features of an image change ranks. The largest logit of h' may belong to another class
    than that of h. `fit` needs no classes and reads the features once. It raises ValueError for one feature, because
    the score would be the same for every image.

    References
    ----------
    Guglielmo and Masana, *Ranked Activation Shift for Post-Hoc Out-of-Distribution Detection*, ECCV 2026, arXiv
    2604.08572.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import RAS, Representation
    >>> head = {"weight": np.eye(2, 3), "bias": np.zeros(2)}
    >>> features = np.array([[4.0, 1.0, 0.0], [0.0, 6.0, 1.0]])
    >>> scorer = RAS().fit(Representation.from_numpy(features=features, **head))
    >>> scorer.profile_
    array([0., 1., 5.])
    >>> new = np.array([[9.0, 2.0, 1.0], [0.9, 0.2, 0.1], [1.0, 2.0, 9.0]])
    >>> scorer.score_samples(Representation.from_numpy(features=new, **head)).round(3)
    array([5.018, 5.018, 1.313])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {}

    def _check_sizes(self, n_features: int, n_classes: int, n_images: int) -> None:
        if n_features < 2:
            raise ValueError(
                f"representation has {n_features} feature: RAS needs at least 2, since its score would be the same for "
                "every image. Use Energy() for one feature."
            )

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        self.profile_ = feature_mean(representation, _sorted_rows).numpy(force=True)

    def _shape(self, batch: Representation) -> tuple[Tensor, Tensor | float]:
        h = wide(batch.features)  # (m, C)
        profile = double_like(self.profile_, batch.features)
        # NaN and infinity would get a rank like any number, so such features are marked here.
        shifted = _replace_by_rank(h, profile).masked_fill(~torch.isfinite(h), torch.nan)
        return shifted.to(h.dtype), 1.0


def _sorted_rows(features: Tensor) -> Tensor:
    """Return the features (m, C) in float64, each row in ascending order."""
    h = wide(features)
    # On the CPU, NumPy sorts several times as fast as torch.
    ascending = torch.from_numpy(np.sort(h.detach().numpy())) if h.device.type == "cpu" else h.sort(dim=1).values
    return ascending.double()


def _replace_by_rank(h: Tensor, profile: Tensor) -> Tensor:
    """Return for each value of h (m, C) the value of the profile (C,) at its rank; equal values share their ranks."""
    order = torch.from_numpy(np.argsort(h.detach().numpy())) if h.device.type == "cpu" else h.argsort(dim=1)
    ascending = h.gather(1, order)
    # The rows are read as one sequence of runs of equal values. Each row starts a run.
    is_start = torch.ones_like(h, dtype=torch.bool)
    is_start[:, 1:] = ascending[:, 1:] != ascending[:, :-1]
    starts = is_start.flatten().nonzero()[:, 0]
    lengths = torch.diff(torch.nn.functional.pad(starts, (0, 1), value=h.numel()))
    # The mean over a run is a difference of cumulative sums.
    sums = torch.nn.functional.pad(profile.cumsum(dim=0), (1, 0))  # (C + 1,)
    first = starts % h.shape[1]
    means = (sums[first + lengths] - sums[first]) / lengths
    return torch.empty_like(h, dtype=torch.float64).scatter_(
        1, order, means.repeat_interleave(lengths, output_size=h.numel()).view_as(h)
    )
