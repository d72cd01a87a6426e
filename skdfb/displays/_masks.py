"""Images beside their masks and segmentations."""

from typing import Any, Self

import numpy.typing as npt
from sklearn.utils._optional_dependencies import check_matplotlib_support

__all__ = ["MaskDisplay"]


class MaskDisplay:
    """Images in a row, and below each its foreground by one or more methods.

    Parameters
    ----------
    images : ndarray of shape (n, H, W, 3) or (n, H, W)
        uint8 in 0..255 or floats in 0..1.
    maps : dict of str to ndarray of shape (n, H, W)
        Foreground by the name of the row: booleans, or probabilities in 0..1.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (1 + number of maps, n)
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.displays import MaskDisplay
    >>> images = np.zeros((4, 16, 16, 3), dtype=np.uint8)
    >>> display = MaskDisplay.from_predictions(images, {"true mask": np.eye(16)[None].repeat(4, axis=0) > 0})
    >>> display.axes_.shape
    (2, 4)
    """

    def __init__(self, images: npt.NDArray[Any], maps: dict[str, npt.NDArray[Any]]) -> None:
        self.images = images
        self.maps = maps
        self._check()

    def _check(self) -> None:
        if not hasattr(self.images, "dtype") or self.images.ndim not in (3, 4):
            raise TypeError("images is no array (n, H, W[, 3]); read files first, like np.asarray(Image.open(path)).")
        for name, values in self.maps.items():
            if values.shape != self.images.shape[:3]:
                raise ValueError(f"maps[{name!r}] has shape {values.shape}; {self.images.shape[:3]} is wanted.")
            if values.dtype.kind in "ui":
                raise ValueError(
                    f"maps[{name!r}] holds integers; booleans or probabilities of the foreground are wanted: of masks "
                    "with class indices, pass masks < n_classes."
                )

    @classmethod
    def from_estimator(cls, estimator: Any, images: npt.NDArray[Any], *, fig: Any = None) -> Self:
        """Plot the foreground probability ``1 - p(background)`` of a detector's ``segment``.

        Parameters
        ----------
        estimator : DFBDetector
            Fitted.
        images : ndarray of shape (n, H, W, 3)
            What to show.
        fig : matplotlib Figure, default=None
            Where to plot; None makes a new one.

        Returns
        -------
        display : MaskDisplay
        """
        return cls.from_predictions(images, {"foreground": 1 - estimator.segment(images)[..., -1]}, fig=fig)

    @classmethod
    def from_predictions(cls, images: npt.NDArray[Any], maps: dict[str, npt.NDArray[Any]], *, fig: Any = None) -> Self:
        """Plot given maps; parameters as of the class, and ``fig`` as in :meth:`from_estimator`."""
        return cls(images, maps).plot(fig=fig)

    def plot(self, *, fig: Any = None) -> Self:
        """Plot images and maps.

        Parameters
        ----------
        fig : matplotlib Figure or SubFigure, default=None
            Where to plot; None makes a new one.

        Returns
        -------
        display : MaskDisplay
        """
        check_matplotlib_support(type(self).__name__)
        import matplotlib.pyplot as plt

        n_rows, n_columns = 1 + len(self.maps), len(self.images)
        if fig is None:
            fig = plt.figure(figsize=(1.0 * n_columns + 1, 1.05 * n_rows), layout="constrained")
        axes = fig.subplots(n_rows, n_columns, squeeze=False)
        rows = {"image": self.images, **self.maps}
        for row, (name, pictures) in enumerate(rows.items()):
            for column, picture in enumerate(pictures):
                ax = axes[row, column]
                brightest = 255 if picture.dtype == "uint8" else 1
                ax.imshow(picture, cmap="gray", vmin=0, vmax=brightest)  # the range is for pictures without colour
                ax.set(xticks=[], yticks=[])
            axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center")
        self.axes_, self.figure_ = axes, fig
        return self
