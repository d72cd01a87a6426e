"""Checks of X and y that the estimators share."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.utils.validation import validate_data
from torch import Tensor, equal
from torch.utils.data import DataLoader, Dataset

from skdfb.images._images import Images, as_images, is_sequence_of_images, spread_evenly
from skdfb.images._labels import encode_labels, label_array, shown
from skdfb.images._pixels import PixelFormat, tensor_to_array, value_bounds

__all__ = ["check_images", "check_labels", "labels_given"]

_N_COMPARED = 100  # training images that are read to find sets in which all images are the same


def check_images(estimator: Any, X: Any, *, reset: bool, lenient: bool = False) -> Images:
    """Check the images given to an estimator and make them readable.

    A 2-d ``X`` also passes scikit-learn's own checks.

    Parameters
    ----------
    estimator : estimator
        Has the parameter ``image_shape``.
    X : images
        See *Images* in the user guide for the accepted forms.
    reset : bool
        Whether this is ``fit``. Then the estimator keeps the number of features, the kind of pixels and, for a 2-d
        ``X`` without ``image_shape``, the range of the values. Images that are all the same are refused. Otherwise
        ``X`` is compared with what the estimator has kept.
    lenient : bool, default=False
        Whether to accept files that cannot be read; see :class:`LenientImages`.

    Returns
    -------
    images : Images
        The n images.

    Raises
    ------
    ValueError, TypeError
        If ``X`` is not in an accepted form, or differs in form from the images of ``fit``.
    """
    # 1. The form of X; 2. its pixels, in fit against each other, and later against those of fit.
    images = _readable(estimator, X, reset, lenient)
    formats = images.pixel_formats
    if reset:
        _check_sample(images, getattr(estimator, "value_range_", None))
        # Images of several kinds, and files, leave nothing that later images could be compared with.
        estimator.pixel_format_ = tuple(next(iter(formats))) if len(formats) == 1 else None
    else:
        _check_formats(formats, getattr(estimator, "pixel_format_", None))
    return images


def _readable(estimator: Any, X: Any, reset: bool, lenient: bool) -> Images:
    """Return ``X`` as images; keep or compare its form."""
    if reset:
        estimator.image_shape_ = estimator.image_shape  # set_params after fit must not change how images are read
    image_shape = estimator.image_shape_
    if isinstance(X, Iterator | DataLoader):
        raise TypeError(
            f"X is a {type(X).__name__}, which can be read only once or in batches: expected a list, an array or a "
            "dataset; pass list(X) or loader.dataset."
        )
    if isinstance(X, list | tuple) and len(X) == 0:
        raise ValueError("X has 0 images: expected at least 1.")
    if isinstance(X, Tensor):
        X = tensor_to_array(X)  # scikit-learn's checks do not take tensors that need a gradient or are on a GPU
    is_table = _is_table(X)
    if reset:
        vars(estimator).pop("value_range_", None)  # of an earlier fit
    # Only a fit on rows of numbers keeps their range.
    if not reset and image_shape is None and is_table != hasattr(estimator, "value_range_"):
        rows, images = "rows of numbers (2-d, without image_shape)", "images"
        raise ValueError(
            f"X holds {rows if is_table else images}, but fit was given {images if is_table else rows}: expected the "
            "form that fit was given."
        )
    if not is_table:
        return as_images(X, image_shape=image_shape, lenient=lenient)
    # scikit-learn's checks, which also set or compare n_features_in_ and feature_names_in_.
    X = validate_data(estimator, X, reset=reset, dtype="numeric", ensure_min_samples=2 if reset else 1)
    if image_shape is not None:
        return as_images(X, image_shape=image_shape)
    if reset:
        estimator.value_range_ = value_bounds(X, "X")
    return as_images(X, value_range=estimator.value_range_)


def _check_sample(images: Images, value_range: tuple[float, float] | None) -> None:
    """Refuse training images that are all the same, or all black because they were cast to integers.

    Images are read until it is clear that they differ: two of them, as a rule. A dataset may read slowly, or return
    other pixels each time, so no image is read twice.
    """
    indices = spread_evenly(len(images), _N_COMPARED)
    sample = (images.read(np.array([index]))[0] for index in indices)  # one by one: photographs are large
    first = next(sample)
    value = first[0, 0, 0]
    # Files may hold the integers 0 and 1: they are decoded here, so a cast by the caller is not the reason.
    is_dark = {format.numbers for format in images.pixel_formats} == {"integer"} and int(first.max()) <= 1
    is_constant = bool((first == value).all())
    is_equal = len(indices) > 1
    for pixels in sample:
        is_dark = is_dark and int(pixels.max()) <= 1
        is_constant = is_constant and bool((pixels == value).all())
        is_equal = is_equal and pixels.dtype == first.dtype and equal(pixels, first)
        if not (is_dark or is_constant or is_equal):
            return
    # First the more specific error. Sets that are all 0 come from a cast more often than from a bad file.
    if is_dark:
        raise ValueError(
            "X holds no integer above 1: expected integers in 0..255, where 0 and 1 are black. If these were floats in "
            "0..1, pass them as floats; for binary images, pass X.astype(bool)."
        )
    if is_constant or is_equal:
        which = " that" if len(images) == len(indices) else f", and the {len(indices)} that were compared"
        every = f" ({_described(value.item(), value_range)})" if is_constant else ""
        raise ValueError(
            f"X holds {len(images)} image{'(s)' if len(images) == 1 else 's'}{which} are all the same{every}: expected "
            "different images; check how they were read."
        )


def _described(pixel: float, value_range: tuple[float, float] | None) -> str:
    """Name the value that all pixels have; rows of numbers were scaled from ``value_range`` to 0..1."""
    if value_range is None:
        return f"every pixel is {pixel:g}"
    low, high = value_range
    return f"every value is {low + pixel * (high - low):g}"


def _check_formats(given: frozenset[PixelFormat], fitted: Any) -> None:
    """Refuse arrays of another kind than those of ``fit``: the same images have been read in two ways."""
    # Without a format in fit, as for files, there is nothing to compare with.
    others = [] if fitted is None else sorted(given - {PixelFormat(*fitted)})
    if not others:
        return
    other, fitted = others[0], PixelFormat(*fitted)
    # Other channels: the file may have been read in another mode. Other numbers: they only have to be converted.
    if other.channels != fitted.channels:
        remedy = (
            "np.repeat(X.reshape(*X.shape[:3], 1), 3, axis=-1)"
            if fitted.channels == 3
            else "X.mean(axis=-1, keepdims=True).astype(X.dtype)"
        )
        remedy = f"read them in the mode of the training images, or, to score them as they are, pass {remedy}"
    else:
        remedy = "np.round(X * 255).astype(np.uint8)" if fitted.numbers == "integer" else "X / 255"
        remedy = f"pass {remedy}"
    raise ValueError(f"X holds {other}, but fit was given {fitted}: expected the form that fit was given; {remedy}.")


def _is_table(X: Any) -> bool:
    """Tell whether scikit-learn checks ``X``: a 2-d array, a data frame, a sparse matrix, lists of numbers."""
    if isinstance(X, Images | Dataset | Image.Image | str | bytes | os.PathLike) or is_sequence_of_images(X):
        return False
    if hasattr(X, "ndim"):
        # Arrays of strings or objects hold paths or PIL images.
        is_list_of_images = X.ndim == 1 and getattr(X, "dtype", None) is not None and X.dtype.kind in "OUS"
        return X.ndim < 3 and not is_list_of_images
    return np.asarray(X).ndim < 3


def labels_given(X: Any, y: Any) -> Any:
    """Return ``y`` or, if it is None, the labels that a torch dataset brings.

    Parameters
    ----------
    X : images
        The n images. ``Images`` read the labels of their dataset once and keep them; a dataset itself is read anew at
        each call.
    y : array-like of shape (n,) or None
        Labels.

    Returns
    -------
    y : array-like of shape (n,) or None
        None if there are no labels.
    """
    return as_images(X).labels() if y is None and isinstance(X, Images | Dataset) else y


def check_labels(y: Any, images: Images) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
    """Check class labels and encode them.

    Parameters
    ----------
    y : array-like of shape (n,) or None
        None takes the labels of a torch dataset whose items are (image, label); see :func:`labels_given`.
    images : Images
        The n images.

    Returns
    -------
    classes : ndarray of shape (K,)
        Sorted labels; see :func:`encode_labels`.
    indices : ndarray of int of shape (n,)
        Which of the classes each image has.

    Raises
    ------
    ValueError
        If the lengths differ, a label is none (see :func:`label_array`), or there are fewer than two classes.
    """
    y = labels_given(images, y)
    if y is None:  # the first words are those that scikit-learn's estimator checks require
        raise ValueError(
            "This estimator requires y to be passed, but the target y is None: expected class labels, one per image."
        )
    y = label_array(y)
    if len(y) != len(images):
        raise ValueError(f"X has {len(images)} images and y has {len(y)} labels: expected one label per image.")
    classes, indices = encode_labels(y)
    if len(classes) < 2:
        raise ValueError(f"y has one class, {shown(classes.tolist()[0])}: expected at least 2 classes.")
    return classes, indices
