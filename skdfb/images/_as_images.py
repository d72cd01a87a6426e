"""From what users pass to readable images."""

import numbers
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from skdfb.exceptions import UnreadableImageError
from skdfb.images._containers import is_dataset, unwrapped
from skdfb.images._files import array_of, check_header, is_file
from skdfb.images._folders import Folder
from skdfb.images._images import ArrayImages, DatasetImages, Images, ItemImages, LenientImages, ScaledRows, scale_of
from skdfb.images._labels import shown
from skdfb.images._pixels import ACCEPTED_FORMS, layout_hint, tensor_to_array, value_bounds
from skdfb.images._scale import PixelScale, is_wide
from skdfb.images._unreadable import check_readable

__all__ = ["as_images", "checked_range", "is_sequence_of_images"]


def as_images(
    X: Any,
    *,
    image_shape: tuple[int, ...] | None = None,
    value_range: tuple[float, float] | None = None,
    image_range: tuple[float, float] | None = None,
    scale: PixelScale | None = None,
    n_channels: int = 3,
    lenient: bool = False,
    check_files: bool = True,
    name: str = "X",
) -> Images:
    """Check ``X`` and make it readable.

    Parameters
    ----------
    X : path of a folder, array, sequence, dataset or Images
        See *Images* in the user guide for the accepted forms.
    image_shape : tuple of int, default=None
        (H, W) or (H, W, C) of the images in the rows of a 2-d ``X``.
    value_range : tuple of (float, float), default=None
        For 2-d ``X`` without ``image_shape``: the values that become pixel 0 and pixel 1.
    image_range : tuple of (float, float), default=None
        The numbers that become 0 and 1, for floats and for integers of more than 8 bits. None learns the range of
        integers from these images, and takes floats to be in 0..1.
    scale : PixelScale, default=None
        How numbers become pixels, if it was learned from other images.
    n_channels : int, default=3
        Channels of the network.
    lenient : bool, default=False
        Whether to read files, PIL images and items of a dataset that cannot be read as one black pixel; see
        :class:`LenientImages`.
    check_files : bool, default=True
        Whether to read the header of each file, so that an error comes early; False where all are read next.
    name : str, default="X"
        The name of the argument in error messages.

    Returns
    -------
    images : Images
        The n images; ``X`` itself if it is an ``Images``.

    Raises
    ------
    ValueError, TypeError
        If ``X`` is not in an accepted form, is empty, has NaN, infinite or out-of-range pixels, or names a file that
        cannot be read as an image.
    OSError
        If ``X`` is the path of a folder that does not exist or cannot be read.
    """
    if isinstance(X, Images):
        return X
    if image_range is not None:
        scale = PixelScale(checked_range(image_range), given=True)
    X = unwrapped(X, name)
    if isinstance(X, Folder):
        return _from_sequence(X.paths, scale, n_channels, lenient, check_files, name, X.labels)
    # Images one by one, or one array: nested lists of numbers, data frames and arrays of paths become an array first.
    if is_sequence_of_images(X):
        return _from_sequence(X, scale, n_channels, lenient, check_files, name)
    if is_dataset(X):
        if len(X) == 0:
            raise ValueError(f"{name} has 0 images: expected at least 1.")
        images: Images = DatasetImages(X, scale, n_channels)
        return LenientImages(images) if lenient else images
    if isinstance(X, Tensor):
        X = tensor_to_array(X)
    array = _unmasked(X, name)
    if array.ndim == 1 and (array.dtype.kind in "OUS"):
        return _from_sequence(array, scale, n_channels, lenient, check_files, name)
    return _from_array(array, image_shape, value_range, scale, n_channels, name)


def checked_range(image_range: Any) -> tuple[float, float]:
    """Return ``image_range`` as two floats."""
    try:
        low, high = (float(value) for value in image_range)
    except (TypeError, ValueError):
        low, high = np.nan, np.nan
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(
            f"image_range={image_range!r}: expected (low, high), the numbers that become black and white, such as "
            "(0, 4095)."
        )
    return low, high


def is_sequence_of_images(X: Any) -> bool:
    """Tell whether ``X`` is a list of files, PIL images, tensors or arrays of several sizes, not of numbers."""
    if not isinstance(X, list | tuple) or len(X) == 0:
        return False
    # One of them decides: if others are of another type, the error names them.
    if any(is_file(item) or isinstance(item, Image.Image) for item in X):
        return True
    tensors = all(isinstance(item, Tensor) and item.ndim > 1 for item in X)
    arrays = all(isinstance(item, np.ndarray) and item.ndim > 1 for item in X)
    # Arrays of one size stack to a single array, which is faster to check and to read.
    return tensors or (arrays and len({item.shape for item in X}) > 1)


def _unmasked(X: Any, name: str) -> npt.NDArray[Any]:
    """Return ``X`` as an array; refuse masked pixels, since the array would lose the mask."""
    if isinstance(X, np.ma.MaskedArray) and X.dtype.names is None and np.ma.is_masked(X):
        raise ValueError(
            f"{name} is a masked array with {int(np.ma.getmaskarray(X).sum())} masked pixels: expected an array "
            f"without a mask; pass {name}.filled(0)."
        )
    try:
        return np.asarray(X)
    except ValueError as error:  # lists of unequal lengths
        raise ValueError(f"{name} cannot be made an array ({error}): expected {ACCEPTED_FORMS}.") from error


def _from_sequence(
    items: Sequence[Any] | npt.NDArray[Any],
    scale: PixelScale | None,
    n_channels: int,
    lenient: bool,
    check_files: bool,
    name: str,
    labels: list[str] | None = None,
) -> Images:
    # Wrong types are errors in the caller's code, also where unreadable images are accepted.
    if len(items) == 0:
        raise ValueError(f"{name} has 0 images: expected at least 1.")
    for index, item in enumerate(items):
        if not (is_file(item) or isinstance(item, np.ndarray | Tensor | Image.Image)):
            raise TypeError(f"{name}[{index}] has type {type(item).__name__}: expected {ACCEPTED_FORMS}.")
    _check_whole_paths(items, name)
    images = ItemImages(list(items), scale, n_channels, labels)
    if lenient:
        return LenientImages(images)
    # All that can be checked without decoding a file, so that an error comes early.
    arrays, errors = {}, []
    for index, item in enumerate(items):
        if is_file(item):
            try:
                if check_files:
                    check_header(item, index)
            except UnreadableImageError as error:
                errors.append(error)
        elif isinstance(item, np.ndarray | Tensor):
            arrays[f"{name}[{index}]"] = array_of(item, f"{name}[{index}]", n_channels)
    check_readable(errors, len(items))
    _check_values(arrays, scale)
    return images


def _check_whole_paths(items: Sequence[Any] | npt.NDArray[Any], name: str) -> None:
    """Refuse the characters of a path, which are what a cross-validation takes for its items."""
    if all(isinstance(item, str) and len(item) == 1 for item in items) and not any(map(os.path.isfile, items)):
        raise ValueError(
            f"{name} holds single characters, {shown(items[0])} first, as of a path in a cross-validation, which "
            "chooses among images by their place: expected paths; pass load_image_folder(path).paths and its labels."
        )


def _check_values(arrays: dict[str, npt.NDArray[Any]], scale: PixelScale | None) -> None:
    """Refuse arrays with values out of range; each is named by its key."""
    bounds = {name: value_bounds(array[None], name) for name, array in arrays.items() if array.dtype != np.uint8}
    if scale is None:
        scale = scale_of([pair for name, pair in bounds.items() if is_wide(arrays[name].dtype)])
    for name, (low, high) in bounds.items():
        scale.check(arrays[name].dtype, low, high, name)


def _from_array(
    array: npt.NDArray[Any],
    image_shape: tuple[int, ...] | None,
    value_range: tuple[float, float] | None,
    scale: PixelScale | None,
    n_channels: int,
    name: str,
) -> Images:
    """Check shape, dtype and values of an array, and bring it to (n, H, W, C)."""
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name} has dtype {array.dtype}: expected {ACCEPTED_FORMS}.")
    # NumPy's minimum of an empty array, later, would raise an error that does not name the argument.
    if array.ndim == 0 or 0 in array.shape:
        raise ValueError(f"{name} has shape {array.shape}, so no pixels: expected {ACCEPTED_FORMS}.")
    if array.ndim == 2:
        if image_shape is None:
            bounds = value_range if value_range is not None else value_bounds(array, name)
            return ScaledRows(array, bounds, n_channels)
        array = array.reshape(len(array), *_checked_shape(image_shape, array.shape[1], n_channels, name))
    elif array.ndim == 3 and array.shape[-1] in (3, 4, n_channels) and array.shape[-1] > 1:
        # It could also be n grey images 3 or 4 pixels wide. That is rare, and a wrong guess would go unnoticed.
        raise ValueError(
            f"{name} has shape {array.shape}, which looks like a single colour image: expected {ACCEPTED_FORMS}. For "
            f"one image pass {name}[None]; for grey images {array.shape[-1]} pixels wide pass {name}[..., None]."
        )
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in ((1, 3) if n_channels in (1, 3) else (n_channels,)):
        raise ValueError(
            f"{name} has shape {array.shape}: expected {ACCEPTED_FORMS}, of {n_channels} channels."
            + layout_hint(array.shape, n_channels, name)
        )
    return _checked_array(array, scale, n_channels, name)


def _checked_array(array: npt.NDArray[Any], scale: PixelScale | None, n_channels: int, name: str) -> ArrayImages:
    """Check the values of an array (n, H, W, c)."""
    if array.shape[-1] > n_channels:  # colour for a network of one channel
        if not (array == array[..., :1]).all():
            raise ValueError(
                f"{name} has shape {array.shape}: expected one channel, as many as the network takes; pass "
                f"{name}.mean(axis=-1, keepdims=True).astype({name}.dtype)."
            )
        array = array[..., :1]
    if array.dtype == np.uint8 and (scale is None or not scale.given):  # any value is a pixel: nothing to read
        return ArrayImages(array, scale or PixelScale(), n_channels)
    low, high = value_bounds(array, name)
    if scale is None:
        scale = scale_of([(low, high)] if is_wide(array.dtype) else [])
    scale.check(array.dtype, low, high, name)
    # uint8 saves memory, and can be told from floats when it is read.
    small = array.dtype.kind == "b" or (is_wide(array.dtype) and scale.range == (0, 255))
    return ArrayImages(scale.to_unit(array) if small else array, scale, n_channels)


def _checked_shape(image_shape: Any, n_features: int, n_channels: int, name: str) -> tuple[int, ...]:
    """Return ``image_shape`` as (H, W, C)."""
    is_listed = isinstance(image_shape, Sequence | np.ndarray) and not isinstance(image_shape, str)
    shape = tuple(image_shape) if is_listed else ()
    # NumPy's integers are accepted, floats such as 16.0 are not.
    whole = all(isinstance(side, numbers.Integral) and int(side) > 0 for side in shape)
    if len(shape) not in (2, 3) or not whole or (len(shape) == 3 and shape[2] not in (1, 3, n_channels)):
        raise ValueError(
            f"image_shape={image_shape!r}: expected (H, W), (H, W, 1) or (H, W, {n_channels}), integers above 0."
        )
    shape = tuple(int(side) for side in shape)
    n_values = int(np.prod(shape))
    if n_values != n_features:
        raise ValueError(
            f"{name} has {n_features} features: expected {n_values}, the values of an image of image_shape={shape}; "
            "give the image_shape of these rows."
        )
    return (*shape, 1) if len(shape) == 2 else shape
