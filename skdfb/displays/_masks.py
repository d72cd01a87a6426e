"""Images with their masks and segmentations."""

from typing import Any, Self

import numpy.typing as npt
from sklearn.utils._optional_dependencies import check_matplotlib_support

__all__ = ["MaskDisplay"]


class MaskDisplay:
    """Images in one row, and their foreground by one or more methods in the rows below.

    Build it with :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    images : ndarray of shape (n, H, W, 3) or (n, H, W)
        Images with pixel values of uint8 in 0..255 or floats in 0..1.
    maps : dict of str to ndarray of shape (n, H, W)
        Foreground by the name of the row: booleans, or probabilities in 0..1.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (1 + number of maps, n)
        The axes of the images and maps.
    figure_ : matplotlib Figure or SubFigure
        The figure that contains the axes.

    Raises
    ------
    TypeError
        If `images` is not an array of one of these shapes.
    ValueError
        If a map has another shape or holds integers.

    See Also
    --------
    ScoreHistogramDisplay : Histograms of scores.

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
            shape = getattr(self.images, "shape", None)
            given = f"a {type(self.images).__name__}" if shape is None else f"an array of shape {shape}"
            raise TypeError(
                f"Expected images as an array of shape (n, H, W) or (n, H, W, 3), got {given}. Read files first, for "
                "example with np.asarray(Image.open(path))."
            )
        for name, values in self.maps.items():
            expected = self.images.shape[:3]
            if values.shape != expected:
                raise ValueError(f"maps[{name!r}] has shape {values.shape}: expected {expected}, the size of images.")
            # Integers are most likely class indices, which would be plotted as probabilities.
            if values.dtype.kind in "ui":
                raise ValueError(
                    f"maps[{name!r}] holds integers: expected booleans or probabilities of the foreground; for masks "
                    "with class indices, pass masks < n_classes."
                )

    @classmethod
    def from_estimator(cls, estimator: Any, images: npt.NDArray[Any], *, fig: Any = None) -> Self:
        """Plot the foreground probability ``1 - p(background)`` from a detector's ``segment``.

        Parameters
        ----------
        estimator : DFBDetector
            Fitted detector.
        images : ndarray of shape (n, H, W, 3)
            Images to segment and plot.
        fig : matplotlib Figure or SubFigure, default=None
            Figure to plot in. None creates a new figure.

        Returns
        -------
        MaskDisplay
            The display with the plot.
        """
        # The last channel of `segment` is the background.
        return cls.from_predictions(images, {"foreground": 1 - estimator.segment(images)[..., -1]}, fig=fig)

    @classmethod
    def from_predictions(cls, images: npt.NDArray[Any], maps: dict[str, npt.NDArray[Any]], *, fig: Any = None) -> Self:
        """Plot given maps.

        Parameters
        ----------
        images : ndarray of shape (n, H, W, 3) or (n, H, W)
            Images with pixel values of uint8 in 0..255 or floats in 0..1.
        maps : dict of str to ndarray of shape (n, H, W)
            Foreground by the name of the row: booleans, or probabilities in 0..1.
        fig : matplotlib Figure or SubFigure, default=None
            Figure to plot in. None creates a new figure.

        Returns
        -------
        MaskDisplay
            The display with the plot.
        """
        return cls(images, maps).plot(fig=fig)

    def plot(self, *, fig: Any = None) -> Self:
        """Plot images and maps.

        Parameters
        ----------
        fig : matplotlib Figure or SubFigure, default=None
            Figure to plot in. None creates a new figure.

        Returns
        -------
        MaskDisplay
            The display itself, with the attributes ``axes_`` and ``figure_``.
        """
        check_matplotlib_support(type(self).__name__)
        # Imported here, since matplotlib is an optional dependency.
        import matplotlib.pyplot as plt

        n_rows, n_columns = 1 + len(self.maps), len(self.images)
        if fig is None:
            fig = plt.figure(figsize=(1.0 * n_columns + 1, 1.05 * n_rows), layout="constrained")
        axes = fig.subplots(n_rows, n_columns, squeeze=False)
        rows = {"image": self.images, **self.maps}
        for row, (name, pictures) in enumerate(rows.items()):
            for column, picture in enumerate(pictures):
                ax = axes[row, column]
                # imshow would stretch the range of grey images and maps; it ignores these limits for RGB images.
                brightest = 255 if picture.dtype == "uint8" else 1
                ax.imshow(picture, cmap="gray", vmin=0, vmax=brightest)
                ax.set(xticks=[], yticks=[])
            axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center")
        self.axes_, self.figure_ = axes, fig
        return self
