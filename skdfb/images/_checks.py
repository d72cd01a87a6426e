"""Checks of X and y that the estimators share."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import validate_data
from torch import Tensor

from skdfb.images._as_images import as_images, checked_range, is_sequence_of_images
from skdfb.images._containers import is_dataset, unwrapped
from skdfb.images._folders import Folder
from skdfb.images._images import ArrayImages, Images
from skdfb.images._labels import encode_labels, label_array, shown
from skdfb.images._pixels import ACCEPTED_FORMS, PixelFormat, tensor_to_array, value_bounds
from skdfb.images._scale import BYTES, PixelScale
from skdfb.images._survey import survey

__all__ = ["IMAGES_BEFORE_RANGES", "check_images", "check_labels", "labels_given"]

# What estimators of older versions took: images of three channels, and integers in 0..255.
IMAGES_BEFORE_RANGES = {"image_range_": BYTES, "_image_range_is_given_": False, "_n_channels_": 3}


def check_images(
    estimator: Any,
    X: Any,
    *,
    reset: bool,
    lenient: bool = False,
    n_channels: int = 3,
    image_range: tuple[float, float] | None = None,
) -> Images:
    """Check the images given to an estimator and make them readable.

    A 2-d ``X`` also passes scikit-learn's own checks. In ``fit`` each image is read once, to find damaged files before
    the training.

    Parameters
    ----------
    estimator : estimator
        Has the parameter ``image_shape``.
    X : images
        See *Images* in the user guide for the accepted forms.
    reset : bool
        Whether this is ``fit``. Then the estimator keeps the number of features, the kind and the range of the pixels
        and, for a 2-d ``X`` without ``image_shape``, the range of the values. Images that are all the same are refused.
        Otherwise ``X`` is compared with what the estimator has kept.
    lenient : bool, default=False
        Whether to accept files that cannot be read; see :class:`LenientImages`.
    n_channels : int, default=3
        Channels of the network; read in ``fit`` and then kept.
    image_range : tuple of (float, float), default=None
        The numbers that become black and white, if the user knows them; read in ``fit`` and then kept.

    Returns
    -------
    images : Images
        The n images.

    Raises
    ------
    ValueError, TypeError
        If ``X`` is not in an accepted form, or differs in form from the images of ``fit``.
    """
    if reset:
        _check_own_form(X, n_channels, image_range)
        estimator._image_range_is_given_ = image_range is not None
        estimator.image_range_ = None if image_range is None else checked_range(image_range)
        estimator._n_channels_ = n_channels
    # 1. The form of X; 2. its pixels, in fit against each other, and later against those of fit.
    images = _readable(estimator, X, reset, lenient)
    formats = images.pixel_formats
    if reset:
        scale = survey(images, getattr(estimator, "n_jobs", None), getattr(estimator, "value_range_", None))
        # Without other integers in fit, later ones are compared with bytes.
        estimator.image_range_ = BYTES if scale is None or scale.range is None else scale.range
        # Images of several kinds, and files, leave nothing that later images could be compared with.
        estimator.pixel_format_ = tuple(next(iter(formats))) if len(formats) == 1 else None
    else:
        _check_formats(images, estimator)
    return images


def _check_own_form(X: Any, n_channels: int, image_range: Any) -> None:
    """Refuse what contradicts images that are readable already."""
    if not isinstance(X, Images):
        return
    if image_range is not None:
        raise ValueError(
            f"image_range={image_range!r} is given beside X as {type(X).__name__}, whose range is set: expected "
            "image_range=None; pass the images as they were before."
        )
    if X.n_channels != n_channels:
        raise ValueError(
            f"X has images of {X.n_channels} channels: expected {n_channels}, as many as the backbone takes."
        )


def _scale_of(estimator: Any) -> PixelScale | None:
    """Return how numbers become pixels; None in ``fit``, if it has to be learned."""
    former = IMAGES_BEFORE_RANGES | vars(estimator)
    image_range = former["image_range_"]
    return None if image_range is None else PixelScale(tuple(image_range), former["_image_range_is_given_"])


def _readable(estimator: Any, X: Any, reset: bool, lenient: bool) -> Images:
    """Return ``X`` as images; keep or compare its form."""
    if reset:
        estimator.image_shape_ = estimator.image_shape  # set_params after fit must not change how images are read
    image_shape = estimator.image_shape_
    X = unwrapped(X, "X")
    if isinstance(X, Iterator):
        raise TypeError(
            f"X is a {type(X).__name__}, which can be read only once: expected a list, an array or a dataset; pass "
            "list(X)."
        )
    if isinstance(X, list | tuple) and len(X) == 0:
        raise ValueError("X has 0 images: expected at least 1.")
    if isinstance(X, Tensor):
        X = tensor_to_array(X)  # scikit-learn's checks do not take tensors that need a gradient or are on a GPU
    several = isinstance(X, Images | Folder | list | tuple) or is_dataset(X)
    if not several and (X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim) == 0:
        raise TypeError(f"X is {shown(X)}: expected {ACCEPTED_FORMS}.")
    is_table = _is_table(X)
    if reset:
        vars(estimator).pop("value_range_", None)  # of an earlier fit
    # Only a fit on rows of numbers keeps their range. Images that were read here already fit.
    if not (reset or isinstance(X, Images)) and image_shape is None and is_table != hasattr(estimator, "value_range_"):
        rows, images = "rows of numbers (2-d, without image_shape)", "images"
        raise ValueError(
            f"X holds {rows if is_table else images}, but fit was given {images if is_table else rows}: expected the "
            "form that fit was given."
        )
    options: dict[str, Any] = {"n_channels": getattr(estimator, "_n_channels_", 3), "scale": _scale_of(estimator)}
    if not is_table:
        # In fit the survey reads each image, and names all files that are damaged.
        return as_images(X, image_shape=image_shape, lenient=lenient, check_files=not reset, **options)
    # scikit-learn's checks, which also set or compare n_features_in_ and feature_names_in_.
    X = validate_data(estimator, X, reset=reset, dtype="numeric", ensure_min_samples=2 if reset else 1)
    if image_shape is not None:
        return as_images(X, image_shape=image_shape, **options)
    if reset:
        estimator.value_range_ = value_bounds(X, "X")
    return as_images(X, value_range=estimator.value_range_, **options)


def _check_formats(images: Images, estimator: Any) -> None:
    """Refuse arrays of another kind than those of ``fit``: the same images have been read in two ways."""
    # Without a format in fit, as for files, there is nothing to compare with.
    if getattr(estimator, "pixel_format_", None) is None:
        return
    fitted, (low, high) = PixelFormat(*estimator.pixel_format_), getattr(estimator, "image_range_", BYTES)
    others, expected = sorted(images.pixel_formats - {fitted}), "expected the form that fit was given"
    if not others:
        # Bytes are 0..255 by their type, so nothing else shows that these were scaled in another way.
        if not isinstance(images, ArrayImages) or fitted not in images.pixel_formats:
            return
        if images.array.dtype == np.uint8 and high > BYTES[1]:
            raise ValueError(
                f"X holds integers of 8 bits, but fit was given integers in {low:g}..{high:g}: {expected}; if X is "
                f"in 0..255, pass np.round(X / 255 * {high - low:g} + {low:g}).astype(int)."
            )
        return
    other = others[0]
    # Other channels: the file may have been read in another mode. Other numbers: they only have to be converted.
    if other.channels != fitted.channels:
        remedy = (
            "np.repeat(X.reshape(*X.shape[:3], 1), 3, axis=-1)"
            if fitted.channels == 3
            else "X.mean(axis=-1, keepdims=True).astype(X.dtype)"
        )
        remedy = f"read them in the mode of the training images, or, to score them as they are, pass {remedy}"
    elif fitted.numbers == "float":
        remedy = "pass X / 255"
    elif (low, high) == BYTES:
        remedy = "pass np.round(X * 255).astype(np.uint8)"
    else:
        remedy = f"pass np.round(X * {high - low:g} + {low:g}).astype(int)"
    in_range = f" in {low:g}..{high:g}" if fitted.numbers == "integer" else ""
    raise ValueError(f"X holds {other}, but fit was given {fitted}{in_range}: {expected}; {remedy}.")


def _is_table(X: Any) -> bool:
    """Tell whether scikit-learn checks ``X``: a 2-d array, a data frame, a sparse matrix, lists of numbers."""
    if isinstance(X, Images | Folder) or is_sequence_of_images(X) or is_dataset(X):
        return False
    if hasattr(X, "ndim"):
        # Arrays of strings or objects hold paths or PIL images.
        is_list_of_images = X.ndim == 1 and getattr(X, "dtype", None) is not None and X.dtype.kind in "OUS"
        return X.ndim < 3 and not is_list_of_images
    return np.asarray(X).ndim < 3


def labels_given(X: Any, y: Any) -> Any:
    """Return ``y`` or, if it is None, the labels that a folder or a dataset brings.

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
    if y is None and not isinstance(X, Images):
        X = unwrapped(X, "X")
    if y is None and isinstance(X, Folder):
        return X.labels
    return as_images(X).labels() if y is None and (isinstance(X, Images) or is_dataset(X)) else y


def check_labels(y: Any, images: Images) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
    """Check class labels and encode them.

    Parameters
    ----------
    y : array-like of shape (n,) or None
        None takes the labels of a folder of class folders, or of a torch dataset whose items are (image, label); see
        :func:`labels_given`.
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
