"""Checks of X and y that the estimators share."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.utils import assert_all_finite, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from skdfb.images._images import Images, as_images, dataset_labels, is_sequence_of_images, spread_evenly
from skdfb.images._pixels import PixelFormat, tensor_to_array, value_bounds

__all__ = ["check_images", "check_labels", "labels_given"]

_N_LOOKED_AT = 100  # images of a training set, spread evenly


def check_images(estimator: Any, X: Any, *, reset: bool, lenient: bool = False) -> Images:
    """Check the images given to an estimator and make them readable.

    A table (2-d ``X``) also passes scikit-learn's own checks. With ``reset``, which is during ``fit``, the number of
    features, the kind of pixels and, where the estimator has no ``image_shape``, the range of the values are
    remembered. Who asks for ``lenient`` ones gets images some of which may be unreadable, and has to look which.
    """
    images = _readable(estimator, X, reset, lenient)
    formats = images.pixel_formats
    if reset:
        _check_bright(images, formats)
        estimator.pixel_format_ = tuple(next(iter(formats))) if len(formats) == 1 else None
    else:
        _check_formats(formats, getattr(estimator, "pixel_format_", None))
    return images


def _readable(estimator: Any, X: Any, reset: bool, lenient: bool) -> Images:
    if reset:
        estimator.image_shape_ = estimator.image_shape  # set_params after fit must not change how images are read
    image_shape = estimator.image_shape_
    if isinstance(X, Iterator | DataLoader):
        raise TypeError(
            f"X is a {type(X).__name__}, which can be read only once or in batches; pass a list, an array or a "
            "dataset, like list(X) or loader.dataset."
        )
    if isinstance(X, list | tuple) and len(X) == 0:
        raise ValueError("X has 0 images; at least 1 is wanted.")
    if isinstance(X, Tensor):
        X = tensor_to_array(X)
    is_table = _is_table(X)
    if reset:
        vars(estimator).pop("value_range_", None)  # of an earlier fit
    if not reset and image_shape is None and is_table != hasattr(estimator, "value_range_"):
        rows, images = "rows of numbers (2-d, without image_shape)", "images"
        raise ValueError(
            f"X holds {rows if is_table else images}, but fit was given {images if is_table else rows}; "
            "the same form is wanted."
        )
    if not is_table:
        return as_images(X, image_shape=image_shape, lenient=lenient)
    X = validate_data(estimator, X, reset=reset, dtype="numeric", ensure_min_samples=2 if reset else 1)
    if image_shape is not None:
        return as_images(X, image_shape=image_shape)
    if reset:
        estimator.value_range_ = value_bounds(X, "X")
    return as_images(X, value_range=estimator.value_range_)


def _check_bright(images: Images, formats: frozenset[PixelFormat]) -> None:
    """Refuse training images that are floats in 0..1, or binary images, cast to integers: all would be black."""
    if {format.numbers for format in formats} != {"integer"}:
        return
    if all(int(pixels.max()) <= 1 for pixels in images.read(spread_evenly(len(images), _N_LOOKED_AT))):
        raise ValueError(
            "X holds no integer above 1, which is black where pixels are integers in 0..255. If these were floats in "
            "0..1, pass them as floats; of binary images, pass X.astype(bool)."
        )


def _check_formats(given: frozenset[PixelFormat], seen: Any) -> None:
    """Refuse arrays of another kind than the arrays of ``fit``: the same images come by two ways, one of them wrong."""
    others = [] if seen is None else sorted(given - {PixelFormat(*seen)})
    if not others:
        return
    other, seen = others[0], PixelFormat(*seen)
    if other.channels != seen.channels:
        remedy = (
            "np.repeat(X.reshape(*X.shape[:3], 1), 3, axis=-1)"
            if seen.channels == 3
            else "X.mean(axis=-1, keepdims=True).astype(X.dtype)"
        )
        remedy = f"read them in the mode of the training images, or, to score them as they are, pass {remedy}"
    else:
        remedy = "np.round(X * 255).astype(np.uint8)" if seen.numbers == "integer" else "X / 255"
        remedy = f"pass {remedy}"
    raise ValueError(f"X holds {other}, but fit was given {seen}; the same form is wanted: {remedy}.")


def _is_table(X: Any) -> bool:
    """Tell whether ``X`` is for scikit-learn to check: a 2-d array, a data frame, a sparse matrix, lists of numbers."""
    if isinstance(X, Images | Dataset | Image.Image | str | bytes | os.PathLike) or is_sequence_of_images(X):
        return False
    if hasattr(X, "ndim"):
        is_list_of_images = X.ndim == 1 and getattr(X, "dtype", None) is not None and X.dtype.kind in "OUS"
        return X.ndim < 3 and not is_list_of_images
    return np.asarray(X).ndim < 3


def labels_given(X: Any, y: Any) -> Any:
    """Return ``y``, or, where it is None, the labels that a torch dataset ``X`` brings; None if there are none."""
    return dataset_labels(X) if y is None and isinstance(X, Dataset) else y


def check_labels(y: Any, images: Images, X: Any) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
    """Check class labels and encode them.

    Parameters
    ----------
    y : array-like of shape (n,) or None
        None takes the labels of a torch dataset ``X`` whose items are (image, label).
    images : Images
        The n images.
    X : any
        What the user gave as images.

    Returns
    -------
    classes : ndarray of shape (K,)
        Sorted labels.
    indices : ndarray of int of shape (n,)

    Raises
    ------
    ValueError
        If the lengths differ, labels are continuous, or there are fewer than two classes.
    """
    y = labels_given(X, y)
    if y is None:
        raise ValueError(
            "This estimator requires y to be passed, but the target y is None; class labels, one for each image, are "
            "wanted."
        )
    y = column_or_1d(y, warn=True)
    if len(y) != len(images):
        raise ValueError(f"X has {len(images)} images and y has {len(y)} labels; one label for each image is wanted.")
    assert_all_finite(y, input_name="y")
    check_classification_targets(y)
    classes, indices = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"y has one class, {classes.tolist()[0]!r}; at least 2 classes are wanted.")
    return classes, indices
