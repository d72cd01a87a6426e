"""Images that are decoded and resized once, for trainings that would otherwise read their files in each pass."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skdfb.images import BatchSize, Preprocessor, as_images, read_batches

__all__ = ["load_resized_images"]

_BATCH = 64  # images that are in memory at a time


def load_resized_images(
    X: Any,
    image_size: int,
    *,
    path: str | os.PathLike[str] | None = None,
    dtype: str = "uint8",
    image_range: tuple[float, float] | None = None,
    n_channels: int = 3,
    interpolation: str = "bicubic",
    n_jobs: int | None = None,
) -> npt.NDArray[Any]:
    """Decode and resize images once, into an array in memory or on the disk.

    A training reads each image many times. From files, most of that time is spent on decoding.

    Parameters
    ----------
    X : images
        The n images, in any of the accepted forms.
    image_size : int
        Side of the result in pixels: that of the network's input.
    path : path, default=None
        A new ``.npy`` file for the array, which is then mapped to memory; ``np.load(path, mmap_mode="r")`` opens it
        again. None keeps the array in memory.
    dtype : {"uint8", "float32"}, default="uint8"
        "uint8" rounds to 0..255; "float32" keeps deeper numbers, in 0..1.
    image_range : tuple of (float, float), default=None
        The numbers that are black and white, as in :meth:`skdfb.DFBDetector.fit`.
    n_channels : int, default=3
        Channels of the network.
    interpolation : {"bicubic", "bilinear"}, default="bicubic"
        As in the training of the backbone.
    n_jobs : int, default=None
        Threads that read; None is 1, -1 all processors.

    Returns
    -------
    images : ndarray of shape (n, image_size, image_size, n_channels)
        The resized images.

    Raises
    ------
    ValueError, TypeError
        If an image cannot be read, or a parameter is wrong.
    FileExistsError
        If there is a file at ``path``.

    Examples
    --------
    >>> from skdfb.datasets import load_digits_on_photos, load_resized_images
    >>> data = load_digits_on_photos(n_train=20, n_test=6, n_ood=6, random_state=0)
    >>> load_resized_images(data.images, 24).shape
    (20, 24, 24, 3)
    """
    if path is not None and Path(path).exists():
        raise FileExistsError(
            f"path={str(path)!r}: there is a file already; pass another path, or open it by np.load(path, "
            "mmap_mode='r')."
        )
    if dtype not in ("uint8", "float32"):
        raise ValueError(f"dtype={dtype!r}: expected 'uint8' or 'float32'.")
    images = as_images(X, image_range=image_range, n_channels=n_channels)
    preprocessor = Preprocessor(image_size, (0.0,) * n_channels, (1.0,) * n_channels, interpolation)
    batches = BatchSize(_BATCH).batches(len(images))
    shape = (len(images), image_size, image_size, n_channels)
    resized: npt.NDArray[Any] = (
        np.empty(shape, dtype) if path is None else np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    )
    for indices, pixels in read_batches(images, batches, preprocessor, n_jobs=n_jobs):
        values = preprocessor.resize(pixels).movedim(1, -1)  # (b, S, S, C) in 0..1
        resized[indices] = values.mul(255).round() if dtype == "uint8" else values
    return resized
