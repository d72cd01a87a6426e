"""Split conformal prediction: p-values and a threshold from the scores of held-out in-distribution images."""

from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils.validation import check_is_fitted

from skdfb._constraints import Interval
from skdfb.utils import check_groups, check_scores


class ConformalCalibrator(BaseEstimator):
    r"""Threshold that rejects at most a share `alpha` of in-distribution images, also for small held-out sets.

    The held-out images must not be used to train the network, the scorers or the fusion. Then their scores and those of
    new in-distribution images are exchangeable. The guarantee holds for any score with this property. If images come in
    groups, such as the frames of one video, only the groups are exchangeable: pass them to :meth:`fit`.

    Parameters
    ----------
    alpha : float or None, default=0.05
        Largest share of in-distribution images to be rejected, in (0, 1). None sets no threshold.

    Attributes
    ----------
    scores_ : ndarray of shape (n_held_out,)
        Held-out scores in ascending order, in float64.
    groups_ : ndarray of int of shape (n_held_out,) or None
        Which group each of the scores belongs to; None without groups.
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

    *Groups.* With G groups of :math:`n_1, \dots, n_G` held-out images, each group counts as one image, and its images
    share this weight equally [3]_:

    .. math:: p(s) = \frac{1 + \sum_g \#\{i : s_{gi} \le s\} / n_g}{G + 1}, \qquad
        \mathrm{offset} = \min \{ s_{gi} : p(s_{gi}) > \alpha \}

    If the group of a new image is exchangeable with the held-out groups, and images inside a group are, then
    :math:`P(p \le \alpha) \le \alpha` for one image of this group. Groups of one image give the formulas above. It is
    the number of groups that makes the rejected share vary little, not that of images.

    References
    ----------
    .. [1] V. Vovk, A. Gammerman, G. Shafer, *Algorithmic Learning in a Random World*, Springer, 2005.
    .. [2] S. Bates, E. Candès, L. Lei, Y. Romano, M. Sesia, "Testing for outliers with conformal p-values",
       Annals of Statistics 51(1), 2023. arXiv:2104.08279.
    .. [3] Y. Lee, R. F. Barber, R. Willett, "Distribution-free inference with hierarchical data", 2023.
       arXiv:2306.06342.

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
    groups_: npt.NDArray[np.intp] | None
    offset_: float

    def __init__(self, alpha: float | None = 0.05) -> None:
        self.alpha = alpha

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, scores: npt.ArrayLike, groups: npt.ArrayLike | None = None) -> Self:
        """Set the threshold.

        Parameters
        ----------
        scores : array-like of shape (n_held_out,)
            Finite scores of held-out images; higher is more in-distribution.
        groups : array-like of shape (n_held_out,), default=None
            The group of each image, any labels; see Notes. None means that each image is a group of its own.

        Returns
        -------
        ConformalCalibrator
            The fitted calibrator.

        Raises
        ------
        ValueError
            If `scores` is empty, not 1-d, not numeric or not finite, if `groups` has another length, or if there are
            fewer images, or groups, than `number_needed`.
        """
        held_out = check_scores(scores, "scores")
        order = np.argsort(held_out, kind="stable")
        codes = None if groups is None else check_groups(groups, len(held_out))[order]
        n_units = held_out.size if codes is None else int(codes.max()) + 1
        if n_units < self.number_needed:
            what, more = ("held-out scores", "images") if codes is None else ("groups of held-out scores", "groups")
            raise ValueError(
                f"{n_units} {what} are too few for alpha={self.alpha:g}: expected at least "
                f"{self.number_needed}. Give more {more}, a larger alpha, or alpha=None, which sets no threshold."
            )
        self.scores_, self.groups_ = held_out[order], codes
        self.offset_ = self._offset()
        return self

    def _offset(self) -> float:
        """Return the lowest held-out score that is not rejected."""
        if self.alpha is None:
            return -np.inf
        # Decided by the p-values themselves, so that `p <= alpha` and `score < offset` always agree.
        return float(self.scores_[np.argmax(self.p_values(self.scores_) > self.alpha)])

    def _weights_up_to(self) -> npt.NDArray[np.float64]:
        """Return the sum of the weights of the first i held-out images, for i = 0 to n_held_out."""
        # Models that were saved before there were groups lack the attribute.
        groups = getattr(self, "groups_", None)
        if groups is None:
            return np.arange(self.scores_.size + 1.0)
        sizes = np.bincount(groups)
        sums = np.concatenate([[0.0], np.cumsum(1 / sizes[groups])])
        sums[-1] = len(sizes)  # without rounding errors
        return sums

    @property
    def number_needed(self) -> int:
        """The least number of held-out images, or groups, with a finite threshold: 1 / alpha - 1, rounded up."""
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
            Values in [1 / (n + 1), 1] in float64, for n held-out images, or groups. An image is rejected if its value
            is at most `alpha`.

        Raises
        ------
        NotFittedError
            If the calibrator is not fitted.
        ValueError
            If `scores` is empty, not 1-d, not numeric or not finite.
        """
        check_is_fitted(self)
        # How many held-out scores are at most the given score, ties included.
        n_at_most = np.searchsorted(self.scores_, check_scores(scores, "scores"), side="right")
        weights = self._weights_up_to()
        values: npt.NDArray[np.float64] = (1 + weights[n_at_most]) / (weights[-1] + 1)
        return values
