"""How good masks of the foreground are."""

import numpy as np
import numpy.typing as npt

__all__ = ["foreground_fraction", "mask_iou"]


def mask_iou(masks: npt.ArrayLike, true_masks: npt.ArrayLike, *, background: int | None = None) -> float:
    r"""Intersection over union of found and true foreground, the mean over the images.

    .. math:: \mathrm{IoU} = \frac{1}{n} \sum_i \frac{|A_i \cap B_i|}{|A_i \cup B_i|}

    with found foreground :math:`A_i` and true foreground :math:`B_i` of image i. Which class a pixel has does not
    count, only whether it is foreground.

    Parameters
    ----------
    masks : array-like of shape (n, H, W)
        Booleans, True on the foreground, or integers: class indices on the foreground and ``background`` elsewhere.
    true_masks : array-like of shape (n, H, W)
        Likewise; one of the two may hold booleans and the other integers.
    background : int, default=None
        Index of the background in masks of integers: K for K classes, the largest value of all.

    Returns
    -------
    float
        Mean IoU in [0, 1]; higher is better. Where neither mask has any foreground, an image counts 1.

    Raises
    ------
    ValueError
        If shapes differ or are not (n, H, W), masks are neither booleans nor integers in 0..background, or masks of
        integers come without ``background``.

    See Also
    --------
    foreground_fraction : How much of the images is foreground.
    sklearn.metrics.jaccard_score : The same figure of flat lists of labels.

    Examples
    --------
    >>> from skdfb.metrics import mask_iou
    >>> mask_iou([[[0, 3], [3, 3]]], [[[0, 0], [3, 3]]], background=3)  # three classes
    0.5
    """
    found = _foreground(masks, background, "masks")
    true = _foreground(true_masks, background, "true_masks")
    if found.shape != true.shape:
        raise ValueError(
            f"masks has shape {found.shape} and true_masks {true.shape}; one shape is wanted: make masks of the true "
            "masks' size, like by mask_size=."
        )
    intersection = np.count_nonzero(found & true, axis=(1, 2))
    union = np.count_nonzero(found | true, axis=(1, 2))
    return float(np.where(union == 0, 1.0, intersection / np.maximum(union, 1)).mean())


def foreground_fraction(masks: npt.ArrayLike, *, background: int | None = None) -> float:
    """Share of pixels that masks call foreground.

    Parameters
    ----------
    masks : array-like of shape (n, H, W)
        Booleans, True on the foreground, or integers: class indices on the foreground and ``background`` elsewhere.
    background : int, default=None
        Index of the background in masks of integers: K for K classes, the largest value of all.

    Returns
    -------
    float
        Share in [0, 1]. True and found foreground should have like shares; neither more nor less is better by itself.

    Raises
    ------
    ValueError
        If masks are neither booleans nor integers in 0..background of shape (n, H, W), or masks of integers come
        without ``background``.

    See Also
    --------
    mask_iou : Agreement with true masks.

    Examples
    --------
    >>> from skdfb.metrics import foreground_fraction
    >>> foreground_fraction([[[0, 3], [3, 3]]], background=3)  # three classes
    0.25
    """
    return float(_foreground(masks, background, "masks").mean())


def _foreground(masks: npt.ArrayLike, background: int | None, name: str) -> npt.NDArray[np.bool_]:
    """Return where masks (n, H, W) have foreground."""
    array = np.asarray(masks)
    if array.ndim != 3 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}; (n, H, W) is wanted, with at least one pixel.")
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "iu":
        raise ValueError(
            f"{name} has dtype {array.dtype}; booleans or class indices are wanted: of probabilities, pass {name} >= "
            "0.5."
        )
    if background is None:
        raise ValueError(
            f"{name} holds integers and background is None; name the index of the background, which is the number of "
            "classes."
        )
    if array.min() < 0 or array.max() > background:
        raise ValueError(f"{name} has values in {array.min()}..{array.max()}; 0..{background} (background) is wanted.")
    foreground: npt.NDArray[np.bool_] = array != background
    return foreground
