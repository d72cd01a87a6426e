"""Images that are nearly the same, such as frames of one video, found by small fingerprints."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

__all__ = ["fingerprint", "near_duplicates"]

_SIDE = 8
_ENOUGH = 64  # pixels a side that are read
# Two images are nearly the same if their distance is below this share of the usual distance between two images. Frames
# of one video are at a few hundredths of it, the nearest two of a thousand different photographs at more than a tenth.
_SHARE = 0.1
_N_FOR_SCALE = 256  # images that tell the usual distance
_CHUNK = 256

Fingerprints = npt.NDArray[np.floating]


def fingerprint(pixels: npt.NDArray[Any]) -> Fingerprints:
    """Return what identifies an image: 8 x 8 means of its grey values, without brightness and contrast.

    Parameters
    ----------
    pixels : ndarray of shape (H, W, C)
        Numbers of any type; their range does not matter.

    Returns
    -------
    fingerprint : ndarray of float32 of shape (64,)
        With mean 0 and norm 1; zeros if all values are equal.
    """
    # Some of the pixels of a large image suffice.
    step = max(1, min(pixels.shape[:2]) // _ENOUGH)
    grey = torch.from_numpy(pixels[::step, ::step].astype(np.float32).mean(-1))
    cells = F.adaptive_avg_pool2d(grey[None], _SIDE).ravel()
    centred = cells - cells.mean()
    norm = float(centred.norm())
    # Rounding leaves a little contrast in an image that has none.
    flat = norm <= 1e-4 * float(cells.abs().max())
    found: Fingerprints = (torch.zeros_like(centred) if flat else centred / norm).numpy()
    return found


def near_duplicates(train: Fingerprints, held_out: Fingerprints) -> int:
    """Count held-out images that are nearly the same as a training image.

    Parameters
    ----------
    train : ndarray of shape (n, 64)
        Fingerprints of training images; a sample of them suffices to find videos, if it holds images of each.
    held_out : ndarray of shape (m, 64)
        Those of held-out images.

    Returns
    -------
    n_duplicates : int
        In 0..m. The scale is the median distance between a training and a held-out image, so images that share their
        layout, such as digits or objects in the middle, do not count as nearly the same.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.images import near_duplicates
    >>> rng = np.random.default_rng(0)
    >>> images = rng.normal(size=(20, 64))
    >>> near_duplicates(images[:10], images[10:])
    0
    >>> near_duplicates(images[:10], images[5:15] + 0.01)
    5
    """
    if len(train) == 0 or len(held_out) == 0:
        return 0
    some = [array[:: max(1, len(array) // _N_FOR_SCALE)][:_N_FOR_SCALE] for array in (train, held_out)]
    usual = float(np.median(_squared_distances(*some)))
    # In chunks: the matrix of all pairs may be large.
    nearest = [
        _squared_distances(train, held_out[start : start + _CHUNK]).min(0) for start in range(0, len(held_out), _CHUNK)
    ]
    return int((np.concatenate(nearest) < _SHARE**2 * usual).sum())


def _squared_distances(first: Fingerprints, second: Fingerprints) -> npt.NDArray[np.float64]:
    """Return the squared distances (n, m) of n and m rows."""
    # In float64: the difference of two numbers near 1 follows.
    first, second = first.astype(np.float64), second.astype(np.float64)
    distances: npt.NDArray[np.float64] = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * first @ second.T
    return np.maximum(distances, 0)
