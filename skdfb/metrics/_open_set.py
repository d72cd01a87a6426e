"""Measures of the open-set field, which count both wrong classes and unknown images that are accepted."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import f1_score

from skdfb.metrics._ood import pairs_won_twice
from skdfb.utils import check_scores

__all__ = ["open_set_f1_score", "oscr_score"]


def oscr_score(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike, correct: npt.ArrayLike) -> float:
    r"""Area under the open-set classification rate curve (OSCR).

    The curve has the correct classification rate over the false positive rate, for all thresholds. The area is the
    probability that a random in-distribution (ID) image is classified correctly *and* has a higher score than a random
    out-of-distribution (OOD) image. A tie counts one half.

    Parameters
    ----------
    id_scores : array-like of shape (n_id,)
        Scores of ID images; higher is more in-distribution. Infinite scores are allowed.
    ood_scores : array-like of shape (n_ood,)
        Scores of OOD images from the same scorer.
    correct : array-like of bool of shape (n_id,)
        Whether each ID image is classified correctly, regardless of its score: ``y_pred == y_true``, with the labels of
        ``detector.classify(X)`` and not those of ``predict_open_set``.

    Returns
    -------
    float
        Area in [0, 1]; higher is better. It is at most the accuracy and at most the AUROC.

    Raises
    ------
    ValueError
        If scores are empty, not 1-d, not numeric or hold NaN, or if `correct` is not one boolean per ID image.

    See Also
    --------
    auroc_score : The same area if all ID images are classified correctly.
    open_set_f1_score : A measure at one threshold.

    Notes
    -----
    With ID scores :math:`s_i`, OOD scores :math:`t_j` and :math:`c_i = 1` for ID images that are classified correctly,
    else 0, a threshold :math:`\tau` gives

    .. math:: \mathrm{CCR}(\tau) = \frac{1}{n_{id}} \sum_i c_i [s_i \ge \tau], \qquad
        \mathrm{FPR}(\tau) = \frac{1}{n_{ood}} \sum_j [t_j \ge \tau].

    The points of all thresholds are joined by straight lines, from (0, 0) to (1, accuracy). Images with equal scores
    pass the threshold together, so the order of ties does not matter, and the area is exactly

    .. math:: \mathrm{OSCR} = \frac{1}{n_{id} n_{ood}} \sum_{i, j} c_i
        \left( [s_i > t_j] + \tfrac{1}{2} [s_i = t_j] \right),

    the accuracy times the AUROC of the correctly classified images against OOD. Wang et al. call this sum OpenAUC.
    Public code that sorts the images without regard to ties can differ from it, the more of them there are.

    The papers take the score from the classifier, such as its largest probability. Any score can be used here.

    References
    ----------
    Dhamija et al., "Reducing Network Agnostophobia", NeurIPS 2018, :arxiv:`1811.04110`, has the curve; the area is
    used by Chen et al., "Adversarial Reciprocal Points Learning for Open Set Recognition", TPAMI 2022,
    :arxiv:`2103.00953`, and Vaze et al., "Open-Set Recognition: a Good Closed-Set Classifier is All You Need?", ICLR
    2022, :arxiv:`2110.06207`. Wang et al., "OpenAUC: Towards AUC-Oriented Open-Set Recognition", NeurIPS 2022,
    :arxiv:`2210.13458`.

    Examples
    --------
    >>> from skdfb.metrics import oscr_score
    >>> oscr_score([3.0, 2.0, 1.0, 2.5], [0.5, 2.0], [True, True, True, False])
    0.5625
    """
    id_array = check_scores(id_scores, "id_scores", allow_infinite=True)
    ood_sorted = np.sort(check_scores(ood_scores, "ood_scores", allow_infinite=True))
    hits = _checked_correct(correct, id_array.size)
    return pairs_won_twice(id_array[hits], ood_sorted) / (2 * id_array.size * ood_sorted.size)


def _checked_correct(correct: npt.ArrayLike, n_id: int) -> npt.NDArray[np.bool_]:
    array = np.asarray(correct)
    if array.ndim != 1:
        raise ValueError(f"correct has shape {array.shape}: expected a 1-d array with one boolean per image.")
    # Numbers may be labels that were passed by mistake.
    if array.dtype != bool:
        raise ValueError(
            f"correct has dtype {array.dtype}: expected a boolean per image, such as y_pred == y_true; convert 0 and 1 "
            "by astype(bool)."
        )
    if array.size != n_id:
        raise ValueError(
            f"correct has {array.size} values and id_scores {n_id}: expected one boolean per in-distribution image."
        )
    return array


def open_set_f1_score(y_true: npt.ArrayLike, y_pred: npt.ArrayLike, classes: npt.ArrayLike) -> float:
    r"""Macro F1 score of K known classes and one class of all unknown images.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        Labels of ID and OOD images together. Every label that is not one of `classes` is unknown: an image of an
        unknown class may have the label of its class.
    y_pred : array-like of shape (n,)
        Predicted labels, such as those of ``detector.predict_open_set(X)``. Every label that is not one of `classes`,
        such as -1 or "unknown", rejects the image as unknown.
    classes : array-like of shape (K,)
        Labels of the known classes, such as ``detector.classes_``.

    Returns
    -------
    float
        Mean of up to K + 1 F1 scores in [0, 1]; higher is better.

    Raises
    ------
    ValueError
        If an argument is empty or not 1-d, if `y_true` and `y_pred` differ in length, if a class stands twice, or if no
        label of `y_true` is one of the classes.

    See Also
    --------
    oscr_score : A measure over all thresholds.
    sklearn.metrics.f1_score : The same measure for labels in which all unknown ones are one label.

    Notes
    -----
    .. math:: F = \frac{1}{K + 1} \sum_{k=1}^{K+1}
        \frac{2 \mathrm{TP}_k}{2 \mathrm{TP}_k + \mathrm{FP}_k + \mathrm{FN}_k}

    The unknown class is class K + 1. A class that has no image and is never predicted is left out of the mean, as in
    scikit-learn.

    The score depends on the threshold and on the ratio of ID to OOD images, so compare detectors on the same images
    only.

    References
    ----------
    Yoshihashi et al., "Classification-Reconstruction Learning for Open-Set Recognition", CVPR 2019,
    :arxiv:`1812.04246`, average over the known classes and "unknown".

    Examples
    --------
    >>> from skdfb.metrics import open_set_f1_score
    >>> y_true = ["ant", "bee", "bee", "wasp", "fly"]  # two known classes, and two images of unknown ones
    >>> y_pred = ["ant", "bee", "unknown", "unknown", "ant"]
    >>> open_set_f1_score(y_true, y_pred, classes=["ant", "bee"])
    0.611...
    """
    known = _as_labels(classes, "classes")
    true, predicted = _as_labels(y_true, "y_true"), _as_labels(y_pred, "y_pred")
    if len(true) != len(predicted):
        raise ValueError(
            f"y_true has {len(true)} labels and y_pred has {len(predicted)}: expected one label per image in both."
        )
    indices = {label: k for k, label in enumerate(known)}
    if len(indices) < len(known):
        raise ValueError(f"classes={known}: expected each class once.")
    # A dict compares labels by value: NumPy could compare numbers and text as text.
    true_indices = [indices.get(label, len(known)) for label in true]
    if min(true_indices) == len(known):
        raise ValueError(
            f"None of the labels of y_true is one of classes={known}: expected images of these classes, with labels of "
            "the same type."
        )
    return float(f1_score(true_indices, [indices.get(label, len(known)) for label in predicted], average="macro"))


def _as_labels(labels: Any, name: str) -> list[Any]:
    """Return labels as Python objects."""
    # As objects, unless they are an array already: NumPy would turn the list [0, "unknown"] into text.
    array = np.asarray(labels, dtype=None if hasattr(labels, "dtype") else object)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}: expected a 1-d array with one label per image or class.")
    values: list[Any] = array.tolist()
    return values
