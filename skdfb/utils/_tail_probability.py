"""In-distribution tail probabilities of scores, beyond the largest and smallest score seen, too."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from skdfb.utils._scores import check_scores

__all__ = ["TailProbability"]

Scores = npt.NDArray[np.float64]

# The share of the scores, and the least number, that an exponential tail is fitted to.
_TAIL_SHARE, _TAIL_MINIMUM = 0.1, 10


@dataclass(frozen=True)
class TailProbability:
    r"""The probability that an in-distribution image scores no higher, learned from n scores of such images.

    Between the learned scores it is their distribution function, interpolated. Below the tenth part with the lowest
    scores (at least ten, at most all), an exponential tail goes on from there,

    .. math:: \log p(s) = \log p(t) - (t - s) / \beta,

    with t the largest score of that part and β the mean of :math:`t - s_i` over it. Above the highest score
    :math:`1 - p` falls off likewise, but to no less than half of what it is there: n images cannot tell that a score is
    more usual than that. So p rises with the score, images far below all that was seen keep their order, which ranks
    among the learned scores alone would lose, and images far above get no boundless credit.

    Attributes
    ----------
    scores : ndarray of shape (m,)
        The distinct learned scores from t on, ascending.
    log_probabilities : ndarray of shape (m,)
        Their logarithms of p.
    lower_scale, upper_scale : float
        The β of either tail.
    """

    scores: Scores
    log_probabilities: Scores
    lower_scale: float
    upper_scale: float

    @classmethod
    def fit(cls, scores: npt.ArrayLike) -> Self:
        """Learn from scores of in-distribution images, shape (n,), of which higher is more in-distribution."""
        row = np.sort(check_scores(scores, "scores"))
        n = len(row)
        size = min(n, max(_TAIL_MINIMUM, round(_TAIL_SHARE * n)))
        distinct, first = np.unique(row, return_index=True)
        no_higher = np.append(first[1:], n)  # how many scores are no higher than each distinct one
        body = distinct >= row[size - 1]
        return cls(
            scores=distinct[body],
            log_probabilities=np.log(no_higher[body] / (n + 1)),
            lower_scale=_scale(row[size - 1] - row[:size], row),
            upper_scale=_scale(row[n - size :] - row[n - size], row),
        )

    def log_p(self, scores: npt.NDArray[np.float64]) -> Scores:
        """Return the logarithm of the tail probability of each score, shape (n,), below 0."""
        lowest, highest = self.scores[0], self.scores[-1]
        below = (np.minimum(scores, lowest) - lowest) / self.lower_scale
        above = (np.maximum(scores, highest) - highest) / self.upper_scale
        inside = np.interp(scores, self.scores, self.log_probabilities)
        # 1 - p at the highest score, which falls to its half beyond it.
        rest = -np.expm1(self.log_probabilities[-1]) * (1 + np.exp(-above)) / 2
        log_p: Scores = np.where(scores > highest, np.log1p(-rest), inside + below)
        return log_p


def _scale(excesses: Scores, scores: Scores) -> float:
    """Return the mean excess, which must not vanish where scores are tied: those of a network waver in float32."""
    rounding = float(np.finfo(np.float32).eps * np.abs(scores).max())
    return float(max(excesses.mean(), 1e-6 * np.ptp(scores), rounding, 1e-30))
