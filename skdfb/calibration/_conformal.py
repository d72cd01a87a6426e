"""Split conformal prediction: p-values and a threshold from the scores of held-out in-distribution images."""

from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils.validation import check_is_fitted

from skdfb._constraints import Interval
from skdfb.utils import check_scores


class ConformalCalibrator(BaseEstimator):
    r"""Threshold that rejects at most a share `alpha` of in-distribution images, also for small held-out sets.

    The held-out images must not be used to train the network, the scorers or the fusion. Then their scores and those of
    new in-distribution images are exchangeable. The guarantee holds for any score with this property.

    Parameters
    ----------
    alpha : float or None, default=0.05
        Largest share of in-distribution images to be rejected, in (0, 1). None sets no threshold.

    Attributes
    ----------
    scores_ : ndarray of shape (n_held_out,)
        Held-out scores in ascending order, in float64.
    offset_ : float
        Threshold in units of the score: an image is rejected if its score is below it. It is -inf, which rejects
        nothing, for ``alpha=None``.

    See Also
    --------
    stratified_holdout : Chooses the images to hold out.

    Notes
    -----
    With held-out scores :math:`s_1, \dots, s_n`, where higher is more in-distribution, a score :math:`s` has

    .. math:: p(s) = \frac{1 + \#\{i : s_i \le s\}}{n + 1}, \qquad
        \mathrm{offset} = s_{(k)}, \quad k = \lfloor \alpha (n + 1) \rfloor

    where :math:`s_{(k)}` is the k-th smallest held-out score. An image is rejected if :math:`p(s) \le \alpha`. This is
    equivalent to :math:`s < \mathrm{offset}`, also with ties. If an image is exchangeable with the held-out images,
    :math:`P(p \le \alpha) \le \alpha`. This probability is also over the draw of the held-out images. For a given
    held-out set, the rejected share varies about :math:`k / (n + 1)` with a standard deviation of about
    :math:`\sqrt{\alpha (1 - \alpha) / n}`.

    References
    ----------
    .. [1] V. Vovk, A. Gammerman, G. Shafer, *Algorithmic Learning in a Random World*, Springer, 2005.
    .. [2] S. Bates, E. Candès, L. Lei, Y. Romano, M. Sesia, "Testing for outliers with conformal p-values",
       Annals of Statistics 51(1), 2023. arXiv:2104.08279.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.calibration import ConformalCalibrator
    >>> calibrator = ConformalCalibrator(alpha=0.1).fit(np.arange(39.0))
    >>> calibrator.offset_
    3.0
    >>> calibrator.p_values([2.5, 3.0, 100.0])
    array([0.1  , 0.125, 1.   ])
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {"alpha": [Interval(Real, 0, 1, closed="neither"), None]}

    scores_: npt.NDArray[np.float64]
    offset_: float

    def __init__(self, alpha: float | None = 0.05) -> None:
        self.alpha = alpha

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, scores: npt.ArrayLike) -> Self:
        """Set the threshold.

        Parameters
        ----------
        scores : array-like of shape (n_held_out,)
            Finite scores of held-out images; higher is more in-distribution.

        Returns
        -------
        ConformalCalibrator
            The fitted calibrator.

        Raises
        ------
        ValueError
            If `scores` is empty, not 1-d, not numeric or not finite, or if there are fewer than `number_needed`.
        """
        held_out = np.sort(check_scores(scores, "scores"))
        if held_out.size < self.number_needed:
            raise ValueError(
                f"{held_out.size} held-out scores are too few for alpha={self.alpha:g}: expected at least "
                f"{self.number_needed}. Give more images, a larger alpha, or alpha=None, which sets no threshold."
            )
        rank = 0 if self.alpha is None else _rank_of_offset(held_out.size, float(self.alpha))
        self.scores_ = held_out
        self.offset_ = float(held_out[rank - 1]) if rank else -np.inf
        return self

    @property
    def number_needed(self) -> int:
        """The least number of held-out images with a finite threshold: 1 / alpha - 1, rounded up."""
        if self.alpha is None:
            return 1
        alpha = float(self.alpha)
        # If 1 / alpha is a whole number, rounding errors must not add one.
        nearest = round(1 / alpha)
        return nearest - 1 if 1 / nearest <= alpha else nearest

    def p_values(self, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return conformal p-values, which are small for images with lower scores than the held-out images.

        Parameters
        ----------
        scores : array-like of shape (n,)
            Finite scores of the images; higher is more in-distribution.

        Returns
        -------
        ndarray of shape (n,)
            Values in [1 / (n_held_out + 1), 1] in float64. An image is rejected if its value is at most `alpha`.

        Raises
        ------
        NotFittedError
            If the calibrator is not fitted.
        ValueError
            If `scores` is empty, not 1-d, not numeric or not finite.
        """
        check_is_fitted(self)
        # The number of held-out scores that are at most the given score, ties included.
        n_at_most = np.searchsorted(self.scores_, check_scores(scores, "scores"), side="right")
        values: npt.NDArray[np.float64] = (1 + n_at_most) / (self.scores_.size + 1)
        return values


def _rank_of_offset(n_held_out: int, alpha: float) -> int:
    """Return floor(alpha * (n + 1)), the number of possible p-values that are at most alpha."""
    # Counted, because 0.05 * 60 may be less than 3 by rounding. With the same divisions as in `p_values`, the rules
    # `p <= alpha` and `score < offset` always agree.
    return int(np.count_nonzero(np.arange(1, n_held_out + 1) / (n_held_out + 1) <= alpha))
