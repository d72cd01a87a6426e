"""CADRef: the relative error of the feature, split by its effect on the largest logit."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from numpy.typing import ArrayLike
from sklearn.utils._param_validation import StrOptions
from torch import Tensor

from skdfb.scorers._base import BaseScorer, as_double, logit_batches
from skdfb.scorers._caref import feature_errors, predicted_class_means
from skdfb.scorers._representation import Representation
from skdfb.scorers._softmax import energy, row_by_row

# exp(-300) is about 1e-130. No error divided by it overflows in float64.
_SMALLEST_EXPONENT = -300.0


class CADRef(BaseScorer):
    r"""Class-aware decoupled relative feature: the relative error, in two parts that are scaled separately.

    .. math::

        S(x) = -\frac{E_+(x)}{L(x)} - \frac{E_-(x)}{\bar L}, \qquad
        E_\pm(x) = \frac{1}{\lVert h \rVert_1} \sum_j \max\bigl(\pm \operatorname{sign}(w_{cj}) \,
        (h_j - \mu_{cj}), 0\bigr), \qquad c = \arg\max_k z_k

    where h are the C features and z the K logits of image x, :math:`\lVert h \rVert_1` is the sum of their absolute
    values, :math:`\mu_k` is the mean feature of the training images that the network predicts as class k, and
    :math:`w_k` is row k of the head's weight. The errors in E₊ make the largest logit larger, those in E₋ make it
    smaller. L is the confidence of `logit_score`, and :math:`\bar L` is its mean over the training images. Higher is
    more in-distribution; the largest score is 0.

    Parameters
    ----------
    logit_score : {"energy", "max_logit", "msp"}, default="energy"
        The confidence L > 0:

        - "energy": the energy :math:`\log \sum_k e^{z_k}`;
        - "max_logit": the largest logit;
        - "msp": the largest probability.

        Values a < 1 of the energy and of the largest logit are replaced by :math:`e^{a - 1}`.

    Attributes
    ----------
    means_ : ndarray of shape (K, C)
        The means :math:`\mu_k`; 0 for classes without a mean.
    has_mean_ : ndarray of shape (K,)
        The number 1.0 for classes with a mean and 0.0 for the others.
    mean_confidence_ : float
        The mean confidence :math:`\bar L`.
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit".

    See Also
    --------
    CARef : The sum of both errors, without scaling.
    Energy : The default confidence.
    NCI : How closely the features align with the weight of the predicted class.

    Notes
    -----
    Eq. 7 and 8 of the paper split the features by the sign of :math:`w_{cj} h_j` and print the norm of a sum. This
    contradicts its abstract, which splits by the signs of the weight and of the relative feature
    :math:`h_j - \mu_{cj}`. The formula above follows the abstract and the authors' code
    (https://github.com/LingAndZero/CADRef). So E₊ + E₋ is the error of :class:`CARef`, except for features whose weight
    is exactly 0: they are in neither part.

    The authors' code divides by L and so assumes L > 0. Energies and largest logits can be negative, above all the
    single logit of a background representation (K = 1), where both are this logit. Division by a negative L would rank
    images the wrong way round. The replacement below 1 is positive, increasing and smooth; from 1 on, L is that of the
    authors. The exponent is at least -300, so that nothing overflows. With K = 1, "msp" is always 1. The authors' code
    also offers the reciprocal of GEN, which is infinite for confident images.

    As in the authors' code, means are taken over predicted classes, so `fit` needs no classes. Classes without a mean
    and features of zeros are treated as in :class:`CARef`. The weight is taken from the representation that is scored.
    `fit` reads the features once and the logits twice, in batches. Besides a batch it holds K x C numbers in memory.

    References
    ----------
    Ling et al., *CADRef: Robust Out-of-Distribution Detection via Class-Aware Decoupled Relative Feature Leveraging*,
    CVPR 2025, arXiv 2503.00325.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import CADRef, Representation
    >>> head = {"weight": np.eye(2) - 0.5, "bias": np.full(2, 4.0)}
    >>> features = np.array([[4.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 4.0]])
    >>> scorer = CADRef().fit(Representation.from_numpy(features=features, **head))
    >>> scorer.means_
    array([[3., 0.],
           [0., 3.]])
    >>> new = np.array([[4.0, 0.0], [2.0, 0.0], [3.0, 2.0]])
    >>> scorer.score_samples(Representation.from_numpy(features=new, **head)).round(3)
    array([-0.042, -0.09 , -0.072])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "logit_score": [StrOptions({"energy", "max_logit", "msp"})]
    }

    def __init__(self, logit_score: Literal["energy", "max_logit", "msp"] = "energy") -> None:
        self.logit_score = logit_score

    def _fit(self, representation: Representation, y: ArrayLike | None) -> None:
        means, has_mean = predicted_class_means(representation)
        # Divided before the sum, which may overflow.
        n = len(representation)
        mean_confidence = sum(float((self._confidence(b.logits) / n).sum()) for b in logit_batches(representation))
        if not math.isfinite(mean_confidence):
            raise ValueError(
                "representation.logits hold NaN or infinity: expected finite numbers; leave out such images, or "
                "compute them in a wider floating-point type."
            )
        self.means_, self.has_mean_, self.mean_confidence_ = means, has_mean, mean_confidence

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        signs = as_double(representation.weight).sign()
        for batch, c, error, norm in feature_errors(representation, self.means_, self.has_mean_):
            aligned = signs[c] * error  # (m, C)
            positive, negative = aligned.clamp(min=0).sum(dim=1) / norm, -aligned.clamp(max=0).sum(dim=1) / norm
            yield -(positive / self._confidence(batch.logits) + negative / self.mean_confidence_)

    def _confidence(self, logits: Tensor) -> Tensor:
        """Return the confidence L of each image, (m,), which is positive."""
        if self.logit_score == "msp":
            return row_by_row(logits, lambda softmax: -softmax.log_normaliser[:, 0]).exp()
        score = energy(logits) if self.logit_score == "energy" else as_double(logits.amax(dim=1))
        return score.where(score >= 1, (score - 1).clamp(min=_SMALLEST_EXPONENT, max=0).exp())
