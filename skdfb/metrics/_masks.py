"""Measures of masks: agreement with true masks, and the share of foreground."""

import numpy as np
import numpy.typing as npt

__all__ = ["foreground_fraction", "mask_iou"]


def mask_iou(masks: npt.ArrayLike, true_masks: npt.ArrayLike, *, background: int | None = None) -> float:
    r"""Mean over the images of the intersection over union (IoU) of predicted and true foreground.

    .. math:: \mathrm{IoU} = \frac{1}{n} \sum_i \frac{|A_i \cap B_i|}{|A_i \cup B_i|}

    with the predicted foreground :math:`A_i` and the true foreground :math:`B_i` of image i. Only foreground and
    background are compared; the class of a foreground pixel does not matter.

    Parameters
    ----------
    masks : array-like of shape (n, H, W)
        Booleans that are True on the foreground, or integers: class indices on the foreground and ``background`` on
        the background.
    true_masks : array-like of shape (n, H, W)
        True masks in the same form. One of the two arguments may hold booleans and the other integers.
    background : int, default=None
        Index of the background in masks of integers. It is K for K classes and the largest value in the masks.

    Returns
    -------
    float
        Mean IoU in [0, 1]; higher is better. The IoU of an image is 1 if neither of its masks has any foreground.

    Raises
    ------
    ValueError
        If shapes differ or are not (n, H, W), if masks are neither booleans nor integers in 0..background, or if masks
        hold integers and ``background`` is None.

    See Also
    --------
    foreground_fraction : The share of foreground in masks.
    sklearn.metrics.jaccard_score : The same measure for flat lists of labels.

    Examples
    --------
    >>> from skdfb.metrics import mask_iou
    >>> mask_iou([[[0, 3], [3, 3]]], [[[0, 0], [3, 3]]], background=3)  # three classes
    0.5
    """
    predicted = _foreground(masks, background, "masks")
    true = _foreground(true_masks, background, "true_masks")
    if predicted.shape != true.shape:
        raise ValueError(
            f"masks has shape {predicted.shape} and true_masks {true.shape}: expected the same shape; make masks of "
            "the size of true_masks, for example with mask_size=."
        )
    intersection = np.count_nonzero(predicted & true, axis=(1, 2))
    union = np.count_nonzero(predicted | true, axis=(1, 2))
    # `np.maximum` only avoids a warning for 0 / 0: such images get 1.
    return float(np.where(union == 0, 1.0, intersection / np.maximum(union, 1)).mean())


def foreground_fraction(masks: npt.ArrayLike, *, background: int | None = None) -> float:
    """Share of foreground pixels in masks.

    Parameters
    ----------
    masks : array-like of shape (n, H, W)
        Booleans that are True on the foreground, or integers: class indices on the foreground and ``background`` on
        the background.
    background : int, default=None
        Index of the background in masks of integers. It is K for K classes and the largest value in the masks.

    Returns
    -------
    float
        Share in [0, 1]. It is best if it is close to the share in the true masks.

    Raises
    ------
    ValueError
        If masks are neither booleans nor integers in 0..background of shape (n, H, W), or if they hold integers and
        ``background`` is None.

    See Also
    --------
    mask_iou : The agreement with true masks.

    Examples
    --------
    >>> from skdfb.metrics import foreground_fraction
    >>> foreground_fraction([[[0, 3], [3, 3]]], background=3)  # three classes
    0.25
    """
    return float(_foreground(masks, background, "masks").mean())


def _foreground(masks: npt.ArrayLike, background: int | None, name: str) -> npt.NDArray[np.bool_]:
    """Return booleans that are True on the foreground of masks (n, H, W)."""
    array = np.asarray(masks)
    if array.ndim != 3 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}: expected (n, H, W), with at least one pixel.")
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "iu":
        raise ValueError(
            f"{name} has dtype {array.dtype}: expected booleans or class indices; for probabilities, pass "
            f"{name} >= 0.5."
        )
    # The largest value is no substitute: all images may be foreground.
    if background is None:
        raise ValueError(
            f"{name} holds integers and background is None: expected the index of the background, which is the number "
            "of classes."
        )
    if array.min() < 0 or array.max() > background:
        raise ValueError(
            f"{name} has values in {array.min()}..{array.max()}: expected 0..{background}, where {background} is the "
            "background."
        )
    foreground: npt.NDArray[np.bool_] = array != background
    return foreground
