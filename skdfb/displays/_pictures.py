"""Images for drawing, from all that a user passes."""

import os
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.utils.validation import _num_samples
from torch import Tensor
from torch.utils.data import Dataset, Subset

from skdfb.images import Images, as_images
from skdfb.images._containers import unwrapped
from skdfb.images._scale import PixelScale

__all__ = [
    "Picture",
    "draw_picture",
    "height_ratio",
    "listed",
    "n_images_of",
    "read_pictures",
    "rows_of",
    "stretch_over",
]

Picture = npt.NDArray[Any]  # (H, W, 3), uint8 or floats in 0..1

_LONGEST_SIDE = 512  # more pixels than a panel has


def listed(images: Any, name: str = "images") -> Any:
    """Return several images in a form that has a length; one image alone becomes a list of one.

    Raises
    ------
    TypeError
        If it is a 2-d array.
    """
    is_file = isinstance(images, str | os.PathLike) and not os.path.isdir(images)
    if is_file or isinstance(images, bytes | Image.Image):
        return [images]
    images = unwrapped(images, name)
    # Those of a folder.
    return getattr(images, "paths", images)


def n_images_of(images: Any) -> int:
    """Return the number of listed images."""
    return int(_num_samples(images))


def rows_of(images: Any, indices: list[int]) -> Any:
    """Return some of the listed images, in the same form."""
    if isinstance(images, Images):
        return images.subset(np.array(indices))
    if isinstance(images, Dataset):
        return Subset(images, indices)
    if hasattr(images, "iloc"):
        return images.iloc[indices]
    return images[indices] if hasattr(images, "shape") else [images[index] for index in indices]


def read_pictures(images: Any, *, estimator: Any = None, name: str = "images") -> list[Picture]:
    """Read images, at a size that suffices for a figure.

    Parameters
    ----------
    images : images
        In any form that detectors take.
    estimator : estimator, default=None
        Detector that says how it reads numbers: its ``image_shape_`` and ``image_range_``.
    name : str, default="images"
        The name of the argument in error messages.

    Returns
    -------
    pictures : list of n ndarrays of shape (H, W, 3)
        As uint8 in 0..255 or floats in 0..1.

    Raises
    ------
    TypeError, ValueError
        If these are no images, or one of them cannot be read.
    """
    images = listed(images, name)
    shape = getattr(estimator, "image_shape_", None)
    if isinstance(images, np.ndarray | Tensor) and images.ndim == 2 and shape is None:
        raise TypeError(
            f"{name} is an array of shape {tuple(images.shape)}: expected images as an array of shape (n, H, W) or "
            "(n, H, W, 3), or a sequence of paths or images."
        )
    readable = as_images(
        images, image_shape=shape, scale=_scale_of(estimator), n_channels=_n_channels(estimator), name=name
    )
    return [_as_picture(readable.read_one(index, _LONGEST_SIDE)) for index in range(len(readable))]


def _n_channels(estimator: Any) -> int:
    return int(getattr(estimator, "_n_channels_", 3))


def _scale_of(estimator: Any) -> PixelScale | None:
    """Return how the detector makes pixels of numbers; None if it is not known."""
    image_range = getattr(estimator, "image_range_", None)
    given = bool(getattr(estimator, "_image_range_is_given_", False))
    return None if image_range is None else PixelScale(tuple(image_range), given)


def _as_picture(pixels: Tensor) -> Picture:
    """Return pixels (C, H, W) as (H, W, 3); images of other channels than colours become grey."""
    picture = np.moveaxis(pixels.numpy(), 0, -1)
    if picture.shape[-1] != 3:
        picture = np.repeat(picture.mean(axis=-1, keepdims=True).astype(picture.dtype), 3, axis=-1)
    if picture.dtype != np.uint8:
        picture = np.clip(picture, 0, 1)
    step = -(-max(picture.shape[:2]) // _LONGEST_SIDE)
    return picture if step == 1 else _smaller(picture, step)


def _smaller(picture: Picture, step: int) -> Picture:
    """Return the means of squares of ``step`` pixels."""
    height, width = picture.shape[0] // step, picture.shape[1] // step
    if min(height, width) == 0:
        return picture
    blocks = picture[: height * step, : width * step].reshape(height, step, width, step, 3)
    means: Picture = blocks.mean(axis=(1, 3)).astype(picture.dtype)
    return means


def draw_picture(ax: Any, picture: Picture) -> None:
    """Draw an image without ticks."""
    ax.imshow(picture)
    ax.set(xticks=[], yticks=[])


def height_ratio(pictures: list[Picture]) -> float:
    """Return the height of panels for these images, as a share of their width."""
    ratios = [picture.shape[0] / picture.shape[1] for picture in pictures]
    return float(np.clip(max(ratios), 0.4, 2.0))


def stretch_over(ax: Any, values: npt.NDArray[Any], picture: Picture, **options: Any) -> Any:
    """Draw a map without ticks, stretched to the form of its image: networks see images as squares."""
    height, width = picture.shape[:2]
    drawn = ax.imshow(values, extent=(-0.5, width - 0.5, height - 0.5, -0.5), **options)
    ax.set(xticks=[], yticks=[])
    return drawn
