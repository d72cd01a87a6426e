"""AUROC, AUPR and FPR at a fixed TPR from the scores of in-distribution and of out-of-distribution images."""

import math
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

from skdfb.utils import check_scores


def auroc_score(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike) -> float:
    r"""Area under the receiver operating characteristic curve, ID against OOD.

    It is the chance that a random in-distribution (ID) image scores higher than a random out-of-distribution (OOD)
    image, where a tie counts one half.

    Parameters
    ----------
    id_scores : array-like of shape (n_id,)
        Scores of ID images; higher is more in-distribution. Infinite scores are ranked like any other.
    ood_scores : array-like of shape (n_ood,)
        Scores of OOD images, of the same score.

    Returns
    -------
    float
        Area in [0, 1]: 1 for perfect separation, 0.5 for chance.

    Raises
    ------
    ValueError
        If an argument is empty, not 1-d, not numeric or holds NaN.

    See Also
    --------
    aupr_score : Area under the precision-recall curve.
    fpr_at_tpr : The error at one threshold.

    Notes
    -----
    .. math:: \mathrm{AUROC} = \frac{1}{n_{id} n_{ood}} \sum_{i, j}
        \left( [s_i > t_j] + \tfrac{1}{2} [s_i = t_j] \right)

    with ID scores :math:`s_i` and OOD scores :math:`t_j`. Libraries whose scores are higher for OOD images
    (pytorch-ood, pyod, oodeel) call for the negated scores.

    Examples
    --------
    >>> from skdfb.metrics import auroc_score
    >>> auroc_score([3.0, 2.0, 1.0], [0.5, 2.0])
    0.75
    """
    id_sorted, ood_sorted = _sorted_scores(id_scores, ood_scores)
    # An OOD score below counts on both sides, a tie on one: twice the number of pairs won, in exact integers.
    pairs_won_twice = sum(int(np.searchsorted(ood_sorted, id_sorted, side).sum()) for side in ("left", "right"))
    return pairs_won_twice / (2 * id_sorted.size * ood_sorted.size)


def aupr_score(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike, *, positive: Literal["id", "ood"] = "id") -> float:
    r"""Area under the precision-recall curve, as average precision.

    Parameters
    ----------
    id_scores : array-like of shape (n_id,)
        Scores of ID images; higher is more in-distribution. Infinite scores are ranked like any other.
    ood_scores : array-like of shape (n_ood,)
        Scores of OOD images, of the same score.
    positive : {"id", "ood"}, default="id"
        The side to be found. With "ood" the scores are negated, so that OOD images come first. Unlike AUROC, the two
        differ, and both depend on the ratio of `n_id` to `n_ood`.

    Returns
    -------
    float
        Average precision in (0, 1]; chance is the share of the positive side among all images.

    Raises
    ------
    ValueError
        If scores are empty, not 1-d, not numeric or hold NaN, or `positive` is another word.

    See Also
    --------
    auroc_score : Does not depend on the ratio of ID to OOD images.
    sklearn.metrics.average_precision_score : The same figure from labels and finite scores.

    Notes
    -----
    .. math:: \mathrm{AUPR} = \sum_n (R_n - R_{n-1}) P_n

    with precision :math:`P_n` and recall :math:`R_n` at the n-th highest of the different scores. Images that tie
    enter together; nothing is interpolated.

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
        raise ValueError(f"positive={positive!r} is not a side: use 'id' or 'ood'.")
    if positive == "id":
        positives, negatives = id_sorted, ood_sorted
    else:
        positives, negatives = -ood_sorted[::-1], -id_sorted[::-1]
    thresholds = np.unique(positives)[::-1]
    true_positives = positives.size - np.searchsorted(positives, thresholds, "left")
    false_positives = negatives.size - np.searchsorted(negatives, thresholds, "left")
    precision = true_positives / (true_positives + false_positives)
    recall = true_positives / positives.size
    # Rounding may carry the sum of a perfect ranking beyond 1 by one unit in the last place.
    return min(1.0, float(np.sum(np.diff(recall, prepend=0.0) * precision)))


def fpr_at_tpr(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike, *, tpr: float = 0.95) -> float:
    r"""Share of OOD images accepted when at least `tpr` of the ID images are.

    ID is the positive side. At the default `tpr` this is the figure known as FPR95.

    Parameters
    ----------
    id_scores : array-like of shape (n_id,)
        Scores of ID images; higher is more in-distribution. Infinite scores are ranked like any other.
    ood_scores : array-like of shape (n_ood,)
        Scores of OOD images, of the same score.
    tpr : float, default=0.95
        Share of ID images to keep, in (0, 1]. It is read as the decimal it prints as: 0.95 of 20 images is 19.

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
    auroc_score : The figure over all thresholds.

    Notes
    -----
    The threshold :math:`\tau` is the largest score that keeps at least `tpr` of the ID images. Nothing is
    interpolated, and images that tie with the threshold are accepted on both sides:

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
        raise ValueError(f"tpr={tpr!r} must be greater than 0 and at most 1; for 95 % use tpr=0.95.")
    # The decimal, not the binary float: 0.55 * 100 in floats exceeds 55 and would ask for a 56th image.
    n_kept = math.ceil(Fraction(str(tpr)) * id_sorted.size)
    threshold = id_sorted[-n_kept]
    return float(np.mean(ood_sorted >= threshold))


def _sorted_scores(
    id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    return (
        np.sort(check_scores(id_scores, "id_scores", allow_infinite=True)),
        np.sort(check_scores(ood_scores, "ood_scores", allow_infinite=True)),
    )
