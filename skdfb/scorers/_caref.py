"""CARef: the relative error of the feature from the mean feature of the predicted class."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from skdfb.scorers._base import BaseScorer, as_double, double_like, predicted_classes, tensor_like
from skdfb.scorers._moments import class_means
from skdfb.scorers._representation import Representation

# The smallest norm of a feature relative to the norm of the class mean, the rounding error of float32. It bounds the
# relative error.
_SMALLEST_NORM = 2.0**-23


class CARef(BaseScorer):
    r"""Class-aware relative feature: the relative error of the feature from the mean of the predicted class.

    .. math::

        S(x) = -\frac{\lVert h - \mu_c \rVert_1}{\lVert h \rVert_1}, \qquad c = \arg\max_k z_k

    where h are the C features and z the K logits of image x, :math:`\lVert \cdot \rVert_1` is the sum of absolute
    values, and :math:`\mu_k` is the mean feature of the training images that the network predicts as class k. Higher
    is more in-distribution; the largest score is 0.

    Attributes
    ----------
    means_ : ndarray of shape (K, C)
        The means :math:`\mu_k`; 0 for classes without a mean.
    has_mean_ : ndarray of shape (K,)
        The number 1.0 for classes with a mean and 0.0 for the others.
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit".

    See Also
    --------
    CADRef : Splits the error by the sign of the head's weight and scales it by the energy.
    SHE : The inner product with the mean feature of the predicted class.

    Notes
    -----
    As in the authors' code (https://github.com/LingAndZero/CADRef), the means are taken over predicted classes, so
    `fit` needs no classes. With K = 1 (a background representation), the mean is that of all training images.

    A class that the network predicts for no training image has no mean. If it is predicted later, the class with the
    largest logit among the classes with a mean is used instead. (The authors' code returns NaN in this case.)

    Features may be negative, since the norms take absolute values. A norm of h below
    :math:`2^{-23} \lVert \mu_c \rVert_1` is replaced by this value, so that scores are finite. An image whose features
    are all 0 has the score :math:`-2^{23}`, or 0 if :math:`\mu_c` is 0, too.

    `fit` reads the logits and the features once, in batches. Besides a batch it holds K x C numbers in memory.

    References
    ----------
    Ling et al., *CADRef: Robust Out-of-Distribution Detection via Class-Aware Decoupled Relative Feature Leveraging*,
    CVPR 2025, arXiv 2503.00325.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import CARef, Representation
    >>> head = {"weight": np.eye(2), "bias": np.zeros(2)}
    >>> features = np.array([[4.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> scorer = CARef().fit(Representation.from_numpy(features=features, **head))
    >>> scorer.means_
    array([[3., 0.],
           [0., 1.]])
    >>> new = np.array([[2.0, 0.0], [4.0, 1.0], [1.0, 1.0]])
    >>> scorer.score_samples(Representation.from_numpy(features=new, **head))
    array([-0.5, -0.4, -1.5])
    """

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        self.means_, self.has_mean_ = predicted_class_means(representation)

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        for _, _, error, norm in feature_errors(representation, self.means_, self.has_mean_):
            yield -error.abs().sum(dim=1) / norm


def predicted_class_means(representation: Representation) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean feature (K, C) of the images predicted as each class, and 1.0 for classes with images, (K,)."""
    predicted = predicted_classes(representation)
    if (predicted < 0).any():
        raise ValueError(
            f"representation.logits hold NaN, first in row {int(predicted.argmin())}: expected finite numbers; leave "
            "out such images, or compute them in a wider floating-point type."
        )
    means, counts = class_means(representation, predicted)
    # A float, since fitted arrays become tensors only from floating-point numbers.
    return means.numpy(force=True), (counts > 0).double().numpy(force=True)


def feature_errors(
    representation: Representation, means: NDArray[np.float64], has_mean: NDArray[np.float64]
) -> Iterator[tuple[Representation, Tensor, Tensor, Tensor]]:
    """Yield each batch with the class c of its images, (m,), the errors h - μ_c, (m, C), and the norms of h, (m,).

    The norms are positive, and NaN for images whose logits are NaN or infinite.
    """
    mu = double_like(means, representation.features)
    without_mean = tensor_like(has_mean, representation.features) == 0
    smallest_norms = _SMALLEST_NORM * mu.abs().sum(dim=1)  # (K,)
    for batch in representation.batches():
        z, h = as_double(batch.logits), as_double(batch.features)
        c = z.masked_fill(without_mean, -torch.inf).argmax(dim=1)
        norm = torch.maximum(h.abs().sum(dim=1), smallest_norms[c])
        # If h and the mean are 0, the error is 0 for any norm. Scores do not show broken logits, so the norm does.
        norm = norm.masked_fill(norm == 0, 1.0).masked_fill(~torch.isfinite(z).all(dim=1), torch.nan)
        yield batch, c, h - mu[c], norm
