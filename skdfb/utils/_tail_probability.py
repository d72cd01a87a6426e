"""In-distribution tail probabilities of scores, also beyond the smallest and the largest learned score."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri_exp

from skdfb.utils._scores import check_scores

__all__ = ["TAIL_RULES", "TailProbability", "joined_tails"]

Scores = npt.NDArray[np.float64]

# Share and least number of the scores that an exponential tail is fitted to.
_TAIL_SHARE, _TAIL_MINIMUM = 0.1, 10


@dataclass(frozen=True)
class TailProbability:
    r"""The probability that an in-distribution image scores no higher, learned from n scores of such images.

    Between the learned scores it is their distribution function, interpolated. Below t, the largest of the lowest tenth
    of the scores (at least ten scores, at most all), it is an exponential tail,

    .. math:: \log p(s) = \log p(t) - (t - s) / \beta,

    with β the mean of :math:`t - s_i` over that tenth. Above the highest score :math:`1 - p` decreases exponentially
    too, with the β of the highest tenth, but to no less than half of its value there: n scores do not support a higher
    p. So p rises with the score. Images far below all learned scores keep their order, which ranks among the learned
    scores alone would lose. Images far above all learned scores do not gain without limit.

    Parameters
    ----------
    scores : ndarray of shape (m,)
        The distinct learned scores from t on, ascending.
    log_probabilities : ndarray of shape (m,)
        Their logarithms of p.
    lower_scale, upper_scale : float
        The β of the lower and of the upper tail.
    """

    scores: Scores
    log_probabilities: Scores
    lower_scale: float
    upper_scale: float

    @classmethod
    def fit(cls, scores: npt.ArrayLike) -> Self:
        """Learn the distribution of scores of in-distribution images.

        Parameters
        ----------
        scores : array-like of shape (n,)
            Finite; higher is more in-distribution.

        Returns
        -------
        tail : TailProbability
            Its tail probabilities.
        """
        row = np.sort(check_scores(scores, "scores"))
        n = len(row)
        size = min(n, max(_TAIL_MINIMUM, round(_TAIL_SHARE * n)))
        distinct, first = np.unique(row, return_index=True)
        no_higher = np.append(first[1:], n)  # how many scores are no higher than each distinct one
        body = distinct >= row[size - 1]
        return cls(
            scores=distinct[body],
            # n + 1, so that 1 - p is not 0 at the highest score.
            log_probabilities=np.log(no_higher[body] / (n + 1)),
            lower_scale=_scale(row[size - 1] - row[:size], row),
            upper_scale=_scale(row[n - size :] - row[n - size], row),
        )

    def log_p(self, scores: npt.NDArray[np.float64]) -> Scores:
        """Return the logarithm of the tail probability of each score.

        Parameters
        ----------
        scores : ndarray of shape (n,)
            Finite scores.

        Returns
        -------
        log_p : ndarray of shape (n,)
            Below 0; it rises with the score.
        """
        lowest, highest = self.scores[0], self.scores[-1]
        below = (np.minimum(scores, lowest) - lowest) / self.lower_scale
        above = (np.maximum(scores, highest) - highest) / self.upper_scale
        # np.interp is constant outside the learned scores: at the lower end, ``below`` continues it.
        inside = np.interp(scores, self.scores, self.log_probabilities)
        # 1 - p: at the highest score as learned, beyond it down to half of that.
        rest = -np.expm1(self.log_probabilities[-1]) * (1 + np.exp(-above)) / 2
        log_p: Scores = np.where(scores > highest, np.log1p(-rest), inside + below)
        return log_p


def _scale(excesses: Scores, scores: Scores) -> float:
    """Return the mean excess, but not 0 if scores are tied: then float32 rounding alone would change p much."""
    rounding = float(np.finfo(np.float32).eps * np.abs(scores).max())
    return float(max(excesses.mean(), 1e-6 * np.ptp(scores), rounding, 1e-30))


def _normal_quantiles(log_probabilities: Scores) -> Scores:
    # A probability may round to 1, whose quantile is infinite.
    return np.asarray(ndtri_exp(np.minimum(log_probabilities, -np.finfo(np.float64).tiny)), dtype=np.float64)


# What each rule adds up: a function of the logarithm of the tail probability.
TAIL_RULES: dict[str, Callable[[Scores], Scores]] = {"fisher": lambda log_p: log_p, "stouffer": _normal_quantiles}


def joined_tails(tails: Iterable[TailProbability], scores: Iterable[Scores], rule: str) -> Scores:
    """Return the sum over the tails of what a rule makes of the tail probabilities of scores, shape (n,)."""
    term = TAIL_RULES[rule]
    joint: Scores = np.sum([term(tail.log_p(row)) for tail, row in zip(tails, scores, strict=True)], axis=0)
    return joint
