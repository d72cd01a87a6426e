"""Images with their masks and segmentations."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_scalar
from sklearn.utils._optional_dependencies import check_matplotlib_support

from skdfb.displays._canvas import canvas_for
from skdfb.displays._detectors import check_sets, method_of
from skdfb.displays._pictures import (
    draw_picture,
    height_ratio,
    listed,
    n_images_of,
    read_pictures,
    rows_of,
    stretch_over,
)
from skdfb.displays._style import as_text

__all__ = ["MaskDisplay"]


class MaskDisplay:
    """Images in one row, and their foreground by one or more methods in the rows below.

    Build it with :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    images : images
        The n images, in any form that detectors take: an array, a folder, paths, PIL images, arrays of several sizes.
    maps : mapping of str to array-like of shape (n, H, W)
        Foreground by the name of the row: booleans, or probabilities in 0..1. Maps are stretched to the size of their
        image; a list may have maps of several sizes.

    Attributes
    ----------
    pictures : list of n ndarrays of shape (H, W, 3)
        The images, as plotted.
    maps : dict of str to list of n ndarrays of shape (H, W)
        The maps.
    axes_ : ndarray of matplotlib Axes of shape (1 + number of maps, n)
        The axes of the images and maps.
    figure_ : matplotlib Figure or SubFigure
        The figure that contains the axes.

    Raises
    ------
    TypeError
        If `images` is a 2-d array or holds no images, or `maps` is not a mapping or is empty.
    ValueError
        If an image cannot be read, or maps are not one per image, hold integers or values outside 0..1.

    See Also
    --------
    SegmentationDisplay : The classes of the foreground.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.displays import MaskDisplay
    >>> images = np.zeros((4, 16, 16, 3), dtype=np.uint8)
    >>> display = MaskDisplay.from_predictions(images, {"true mask": np.eye(16)[None].repeat(4, axis=0) > 0})
    >>> display.axes_.shape
    (2, 4)
    """

    def __init__(self, images: Any, maps: Mapping[str, npt.ArrayLike]) -> None:
        check_sets(maps, "maps")
        self.pictures = read_pictures(images)
        self.maps = {name: _checked(values, name, len(self.pictures)) for name, values in maps.items()}

    @classmethod
    def from_estimator(cls, estimator: Any, images: Any, *, max_images: int = 10, ax: Any = None) -> Self:
        """Plot the foreground probability ``1 - p(background)`` from a detector's ``segment``.

        Parameters
        ----------
        estimator : DFBDetector
            Fitted detector.
        images : images
            Images to segment and plot, in any form that ``segment`` accepts; also a single path or PIL image.
        max_images : int, default=10
            Only so many images are segmented and plotted, the first ones.
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. Axes are divided into panels. None creates a new figure.

        Returns
        -------
        MaskDisplay
            The display with the plot.
        """
        check_scalar(max_images, "max_images", Integral, min_val=1)
        segment, images = method_of(estimator, "segment"), listed(images)
        first = rows_of(images, list(range(min(max_images, n_images_of(images)))))
        pictures = read_pictures(first, estimator=estimator)
        # The last channel of `segment` is the background. Rounding may leave 1 by a little.
        foreground = np.clip(1 - segment(first)[..., -1], 0, 1)
        return cls(pictures, {"foreground": foreground}).plot(ax=ax)

    @classmethod
    def from_predictions(cls, images: Any, maps: Mapping[str, npt.ArrayLike], *, ax: Any = None) -> Self:
        """Plot given maps.

        Parameters
        ----------
        images : images
            The n images, in any form that detectors take.
        maps : mapping of str to array-like of shape (n, H, W)
            Foreground by the name of the row: booleans, or probabilities in 0..1.
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. Axes are divided into panels. None creates a new figure.

        Returns
        -------
        MaskDisplay
            The display with the plot.
        """
        return cls(images, maps).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Plot images and maps.

        Parameters
        ----------
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. Axes are divided into panels. None creates a new figure.

        Returns
        -------
        MaskDisplay
            The display itself, with the attributes ``axes_`` and ``figure_``.
        """
        check_matplotlib_support(type(self).__name__)
        n_rows, n_columns = 1 + len(self.maps), len(self.pictures)
        side = min(2.0, max(0.75, 6 / n_columns))
        names = [as_text(name) for name in ["image", *self.maps]]
        size = side * n_columns + 0.3 + 0.09 * max(map(len, names)), side * height_ratio(self.pictures) * n_rows + 0.1
        canvas = canvas_for(ax, size)
        axes = canvas.axes(n_rows, n_columns)
        for ax in axes.flat:
            ax.set_anchor("W")  # beside the names, whose space is measured before images get their form
        for column, picture in enumerate(self.pictures):
            draw_picture(axes[0, column], picture)
            for row, maps in enumerate(self.maps.values(), start=1):
                stretch_over(axes[row, column], maps[column], picture, cmap="gray", vmin=0, vmax=1)
        for ax, name in zip(axes[:, 0], names, strict=True):
            ax.set_ylabel(name, rotation=0, ha="right", va="center")
        self.axes_, self.figure_ = axes, canvas.figure
        return self


def _checked(maps: Any, name: str, n_images: int) -> list[npt.NDArray[Any]]:
    """Return the maps of a row, one array (H, W) per image."""
    arrays = [np.asarray(values) for values in maps]
    if len(arrays) != n_images or any(array.ndim != 2 or array.size == 0 for array in arrays):
        shape = getattr(maps, "shape", [array.shape for array in arrays][:3])
        raise ValueError(f"maps[{name!r}] has shape {shape}: expected ({n_images}, H, W), one map per image.")
    for array in arrays:
        # Integers are most likely class indices, which would be plotted as probabilities.
        if array.dtype.kind not in "bf":
            raise ValueError(
                f"maps[{name!r}] holds {'integers' if array.dtype.kind in 'ui' else array.dtype}: expected booleans or "
                "probabilities of the foreground; for masks with class indices, pass masks < n_classes."
            )
        if not (array.min() >= 0 and array.max() <= 1):  # not: NaN is refused, too
            raise ValueError(
                f"maps[{name!r}] has values in {array.min():g}..{array.max():g}: expected probabilities in 0..1."
            )
    return arrays
