"""Training images that a detector remembers, to name the nearest ones to a new image."""

import os
from dataclasses import dataclass
from pathlib import PurePath
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from skdfb.images import Images, spread_evenly

__all__ = ["ReferenceImages", "image_names"]

_MOST_PER_CLASS, _MOST = 50, 10_000


@dataclass(frozen=True, eq=False)
class ReferenceImages:
    """Some of the images that trained a detector: at most 50 of each class, and at most 10,000 in all.

    Parameters
    ----------
    features : ndarray of float16 of shape (m, C)
        Pooled features of whole images, each of Euclidean norm 1.
    labels : ndarray of int of shape (m,)
        Index of the class of each image.
    names : list of str
        Where ``fit`` was given files: the path of each below the folder that all of them have in common, so that a
        saved model names no other folders. Else like ``"image 17"``, with the place in X.
    """

    features: npt.NDArray[np.float16]
    labels: npt.NDArray[np.intp]
    names: list[str]

    @classmethod
    def choose(
        cls, features: Tensor, labels: npt.NDArray[np.intp], images: Images, places: npt.NDArray[np.intp]
    ) -> Self:
        """Keep some of the training images.

        Parameters
        ----------
        features : Tensor of shape (n, C)
            Features of the training images.
        labels : ndarray of int of shape (n,)
            Their classes.
        images : Images
            All images of ``fit``.
        places : ndarray of int of shape (n,)
            Where the training images are among them.
        """
        rows = _chosen(labels)
        kept = F.normalize(features[torch.from_numpy(rows)].double(), dim=1)
        names = _names_below_common_folder(images, places[rows])
        return cls(kept.numpy().astype(np.float16), labels[rows].astype(np.intp), names)

    def nearest(self, features: Tensor, n_neighbors: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
        """Return cosine distances (n, k) to the nearest images, ascending, and their rows; k is at most m."""
        known = torch.from_numpy(self.features.astype(np.float32))
        similarities = (F.normalize(features.float(), dim=1) @ known.T).numpy()
        # Rounding to 16 bits changes the norm a little, so that a similarity may be above 1.
        distances = np.clip(1 - similarities.astype(np.float64), 0, 2)
        rows = np.argsort(distances, axis=1, kind="stable")[:, :n_neighbors]
        return np.take_along_axis(distances, rows, axis=1), rows


def _chosen(labels: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return which images to keep: the same share of each class, spread evenly over its images."""
    sizes = np.unique(labels, return_counts=True)[1]
    most = max(1, min(_MOST_PER_CLASS, _MOST // len(sizes)))
    of_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])
    rows = np.sort(np.concatenate([own[spread_evenly(len(own), most)] for own in of_class]))
    return rows[spread_evenly(len(rows), _MOST)]


def image_names(images: Images) -> list[str]:
    """Return the path of each image, or names like "image 0"."""
    names = images.names
    return [f"image {place}" for place in range(len(images))] if names is None else names


def _names_below_common_folder(images: Images, places: npt.NDArray[np.intp]) -> list[str]:
    """Return names of the images at ``places``, without the folders that all images have in common."""
    paths = images.names
    if paths is None:
        return [f"image {place}" for place in places]
    # Absolute paths first: "../a.png" and "b.png" have a folder in common that neither of them names.
    absolute = [os.path.abspath(path) for path in paths]
    try:
        folder = os.path.commonpath([os.path.dirname(path) for path in absolute])
    except ValueError:  # on Windows: files on several drives
        return [PurePath(absolute[place]).name for place in places]
    return [PurePath(os.path.relpath(absolute[place], folder)).as_posix() for place in places]
