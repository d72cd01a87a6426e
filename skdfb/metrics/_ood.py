"""AUROC, AUPR and FPR at a fixed TPR, from scores of in-distribution and out-of-distribution images."""

import math
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

from skdfb.utils import check_scores

__all__ = ["aupr_score", "auroc_score", "fpr_at_tpr", "pairs_won_twice"]


def auroc_score(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike) -> float:
    r"""Area under the receiver operating characteristic curve (AUROC), ID against OOD.

    It is the probability that a random in-distribution (ID) image has a higher score than a random out-of-distribution
    (OOD) image. A tie counts one half.

    Parameters
    ----------
    id_scores : array-like of shape (n_id,)
        Scores of ID images; higher is more in-distribution. Infinite scores are allowed.
    ood_scores : array-like of shape (n_ood,)
        Scores of OOD images from the same scorer.

    Returns
    -------
    float
        Area in [0, 1]: 1 for perfect separation, 0.5 for chance.

    Raises
    ------
    ValueError
        If scores are empty, not 1-d, not numeric or hold NaN.

    See Also
    --------
    aupr_score : The area under the precision-recall curve.
    fpr_at_tpr : The error at one threshold.

    Notes
    -----
    .. math:: \mathrm{AUROC} = \frac{1}{n_{id} n_{ood}} \sum_{i, j}
        \left( [s_i > t_j] + \tfrac{1}{2} [s_i = t_j] \right)

    with ID scores :math:`s_i` and OOD scores :math:`t_j`. Negate scores from libraries whose scores are higher for OOD
    images (pytorch-ood, pyod, oodeel).

    Examples
    --------
    >>> from skdfb.metrics import auroc_score
    >>> auroc_score([3.0, 2.0, 1.0], [0.5, 2.0])
    0.75
    """
    id_sorted, ood_sorted = _sorted_scores(id_scores, ood_scores)
    return pairs_won_twice(id_sorted, ood_sorted) / (2 * id_sorted.size * ood_sorted.size)


def aupr_score(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike, *, positive: Literal["id", "ood"] = "id") -> float:
    r"""Area under the precision-recall curve (AUPR), computed as average precision.

    Parameters
    ----------
    id_scores : array-like of shape (n_id,)
        Scores of ID images; higher is more in-distribution. Infinite scores are allowed.
    ood_scores : array-like of shape (n_ood,)
        Scores of OOD images from the same scorer.
    positive : {"id", "ood"}, default="id"
        The positive class. With "ood" the scores are negated, so that OOD images rank first. Unlike AUROC, the result
        differs between the two and depends on the ratio of `n_id` to `n_ood`.

    Returns
    -------
    float
        Average precision in (0, 1]; chance is the share of the positive class among all images.

    Raises
    ------
    ValueError
        If scores are empty, not 1-d, not numeric or hold NaN, or `positive` is neither "id" nor "ood".

    See Also
    --------
    auroc_score : A measure that does not depend on the ratio of ID to OOD images.
    sklearn.metrics.average_precision_score : The same measure for labels and finite scores.

    Notes
    -----
    .. math:: \mathrm{AUPR} = \sum_n (R_n - R_{n-1}) P_n

    with precision :math:`P_n` and recall :math:`R_n` at the n-th highest distinct score. Images with equal scores are
    counted together; nothing is interpolated.

    Examples
    --------
    >>> from skdfb.metrics import aupr_score
    >>> aupr_score([3.0, 1.0], [2.0, 0.5])
    0.8333...
    >>> aupr_score([3.0, 1.0], [2.0, 0.5], positive="ood")
    0.8333...
    >>> aupr_score([3.0, 2.0, 1.0], [0.5], positive="ood")
    1.0
    """
    id_sorted, ood_sorted = _sorted_scores(id_scores, ood_scores)
    if positive not in ("id", "ood"):
        raise ValueError(f"positive={positive!r} is unknown: expected 'id' or 'ood'.")
    if positive == "id":
        positives, negatives = id_sorted, ood_sorted
    else:
        positives, negatives = -ood_sorted[::-1], -id_sorted[::-1]
    # Recall, and so the sum, changes only at scores of positives.
    thresholds = np.unique(positives)[::-1]
    true_positives = positives.size - np.searchsorted(positives, thresholds, "left")
    false_positives = negatives.size - np.searchsorted(negatives, thresholds, "left")
    precision = true_positives / (true_positives + false_positives)
    recall = true_positives / positives.size
    # For a perfect ranking, rounding can make the sum exceed 1 by one unit in the last place.
    return min(1.0, float(np.sum(np.diff(recall, prepend=0.0) * precision)))


def fpr_at_tpr(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike, *, tpr: float = 0.95) -> float:
    r"""Share of OOD images that are accepted if at least a share `tpr` of the ID images is accepted.

    ID is the positive class. With the default `tpr` this is the measure known as FPR95.

    Parameters
    ----------
    id_scores : array-like of shape (n_id,)
        Scores of ID images; higher is more in-distribution. Infinite scores are allowed.
    ood_scores : array-like of shape (n_ood,)
        Scores of OOD images from the same scorer.
    tpr : float, default=0.95
        Share of ID images to accept, in (0, 1]. It is used as the decimal number that it prints as: 0.95 of 20 images
        is 19.

    Returns
    -------
    float
        Share of OOD images at or above the threshold, in [0, 1]; lower is better.

    Raises
    ------
    ValueError
        If scores are empty, not 1-d, not numeric or hold NaN, or `tpr` is outside (0, 1].

    See Also
    --------
    auroc_score : A measure over all thresholds.

    Notes
    -----
    The threshold :math:`\tau` is the largest score at which at least `tpr` of the ID images are accepted. Nothing is
    interpolated. ID and OOD images whose score equals the threshold are accepted:

    .. math:: \mathrm{FPR} = \frac{1}{n_{ood}} \sum_j [t_j \ge \tau], \qquad
        \tau = \max \{ \tau : \tfrac{1}{n_{id}} \textstyle\sum_i [s_i \ge \tau] \ge \mathrm{tpr} \}

    Examples
    --------
    >>> from skdfb.metrics import fpr_at_tpr
    >>> fpr_at_tpr([4.0, 3.0, 2.0, 1.0], [2.5, 2.0, 0.0, -1.0], tpr=0.75)
    0.5
    >>> fpr_at_tpr([4.0, 3.0, 2.0, 1.0], [2.5, 2.0, 0.0, -1.0], tpr=0.5)
    0.0
    """
    id_sorted, ood_sorted = _sorted_scores(id_scores, ood_scores)
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr={tpr!r} is out of range: expected more than 0 and at most 1; for 95 % use tpr=0.95.")
    # As a decimal, not as a float: in floats, 0.55 * 100 is more than 55, and 56 images would be accepted.
    n_accepted = math.ceil(Fraction(str(tpr)) * id_sorted.size)
    threshold = id_sorted[-n_accepted]
    return float(np.mean(ood_sorted >= threshold))


def _sorted_scores(
    id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Check both arrays and return them in ascending order."""
    return (
        np.sort(check_scores(id_scores, "id_scores", allow_infinite=True)),
        np.sort(check_scores(ood_scores, "ood_scores", allow_infinite=True)),
    )


def pairs_won_twice(id_scores: npt.NDArray[np.float64], ood_sorted: npt.NDArray[np.float64]) -> int:
    """Return twice the number of (ID, OOD) pairs with the higher ID score, where a tie is half a pair."""
    # For each ID score, a lower OOD score is counted for both sides and a tie for one side: the count is exact.
    return sum(int(np.searchsorted(ood_sorted, id_scores, side).sum()) for side in ("left", "right"))
