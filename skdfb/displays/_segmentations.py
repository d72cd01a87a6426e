"""Images with their class maps and the probability of the background."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_scalar
from sklearn.utils._optional_dependencies import check_matplotlib_support

from skdfb.displays._canvas import canvas_for
from skdfb.displays._detectors import method_of
from skdfb.displays._pictures import (
    Picture,
    draw_picture,
    height_ratio,
    listed,
    n_images_of,
    read_pictures,
    rows_of,
    stretch_over,
)
from skdfb.displays._style import OTHERS, PALETTE, as_text, text_color

__all__ = ["SegmentationDisplay", "check_probabilities", "draw_background", "grey_backdrop"]

_IN_COLUMNS = 3  # up to so many images stand below each other; more stand side by side
_MOST_COLORED = 6
_TITLES = ("image", "class map", "background probability")


class SegmentationDisplay:
    """Images, the most probable class of their foreground per pixel, and the probability of the background.

    Build it with :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    images : images
        The n images, in any form that detectors take: an array, a folder, paths, PIL images.
    probabilities : ndarray of shape (n, H, W, K + 1)
        Class probabilities per pixel, the background last, as of ``detector.segment``. They are stretched to the size
        of their image.
    classes : sequence of length K, default=None
        The names of the classes; None numbers them.

    Attributes
    ----------
    pictures : list of n ndarrays of shape (H, W, 3)
        The images, as plotted.
    class_maps : ndarray of int of shape (n, H, W)
        The most probable class per pixel; K is the background.
    axes_ : ndarray of matplotlib Axes of shape (n, 3)
        The axes of each image, its class map and its background probability.
    figure_ : matplotlib Figure or SubFigure
        The figure that contains the axes.

    Raises
    ------
    TypeError, ValueError
        If these are no images, or the probabilities or names do not fit them.

    See Also
    --------
    MaskDisplay : The foreground by several methods.

    Notes
    -----
    The six classes that cover most of the foreground have colours, the others share one.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.displays import SegmentationDisplay
    >>> images = np.zeros((2, 16, 16, 3), dtype=np.uint8)
    >>> probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], size=(2, 8, 8))  # two classes and the background
    >>> display = SegmentationDisplay.from_predictions(images, probabilities, classes=["ant", "bee"])
    >>> display.axes_.shape
    (2, 3)
    """

    def __init__(
        self, images: Any, probabilities: npt.NDArray[np.floating], classes: Sequence[Any] | None = None
    ) -> None:
        self.probabilities = check_probabilities(probabilities)
        self.classes = _checked_classes(classes, self.probabilities.shape[-1] - 1)
        self.pictures = read_pictures(images)
        if len(self.pictures) != len(self.probabilities):
            raise ValueError(
                f"probabilities has shape {self.probabilities.shape} for {len(self.pictures)} images: expected one map "
                "per image."
            )
        self.class_maps = self.probabilities.argmax(axis=-1)

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, *, max_images: int = 10, ax: Any = None) -> Self:
        """Segment images with a fitted detector and plot them.

        Parameters
        ----------
        estimator : DFBDetector
            Fitted detector with ``segment``.
        X : images
            Images, in any form that ``segment`` accepts; also a single path or PIL image.
        max_images : int, default=10
            Only so many images are segmented and plotted, the first ones.
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. Axes are divided into panels. None creates a new figure.

        Returns
        -------
        SegmentationDisplay
            The display with the plot.
        """
        check_scalar(max_images, "max_images", Integral, min_val=1)
        segment, X = method_of(estimator, "segment"), listed(X, "X")
        first = rows_of(X, list(range(min(max_images, n_images_of(X)))))
        pictures = read_pictures(first, estimator=estimator, name="X")
        return cls(pictures, segment(first), getattr(estimator, "classes_", None)).plot(ax=ax)

    @classmethod
    def from_predictions(
        cls,
        images: Any,
        probabilities: npt.NDArray[np.floating],
        *,
        classes: Sequence[Any] | None = None,
        ax: Any = None,
    ) -> Self:
        """Plot given probabilities.

        Parameters
        ----------
        images : images
            The n images, in any form that detectors take: an array, a folder, paths, PIL images.
        probabilities : ndarray of shape (n, H, W, K + 1)
            Class probabilities per pixel, the background last.
        classes : sequence of length K, default=None
            The names of the classes; None numbers them.
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. Axes are divided into panels. None creates a new figure.

        Returns
        -------
        SegmentationDisplay
            The display with the plot.
        """
        return cls(images, probabilities, classes).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Plot the images and maps.

        Parameters
        ----------
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. Axes are divided into panels. None creates a new figure.

        Returns
        -------
        SegmentationDisplay
            The display itself, with the attributes ``axes_`` and ``figure_``.
        """
        check_matplotlib_support(type(self).__name__)
        stacked, n = len(self.pictures) <= _IN_COLUMNS, len(self.pictures)
        colors, handles = self._colors()
        side = 2.0 if stacked else min(1.1, max(0.5, 5 / n))
        n_rows, n_columns = (n, len(_TITLES)) if stacked else (len(_TITLES), n)
        # The legend has a row of its own: in seven columns if names are short.
        n_legend_columns = 7 if max((len(handle.get_label()) for handle in handles), default=0) <= 10 else 4
        heights = [side * height_ratio(self.pictures) * n_rows + 0.3, 0.22 * -(-len(handles) // n_legend_columns)]
        canvas = canvas_for(ax, (max(7, side * n_columns + 2), sum(heights) + 0.2))
        above, *below = canvas.place.subgridspec(2 if handles else 1, 1, height_ratios=heights[: 2 if handles else 1])
        axes: npt.NDArray[Any] = above.subgridspec(n_rows, n_columns).subplots(squeeze=False)
        axes = axes if stacked else axes.T
        _write_titles(axes[0], stacked)
        for ax in () if stacked else axes.flat:
            ax.set_anchor("W")  # beside the titles, whose space is measured before images get their form
        for index, row in enumerate(axes):
            background = self._draw(row, index, colors)
        # One bar for all: the maps share their limits.
        shape = {"fraction": 0.05, "aspect": 20 * n if stacked else 8, "ticks": [0, 0.5, 1] if stacked else [0, 1]}
        canvas.figure.colorbar(background, ax=axes[:, 2].tolist(), **shape).ax.tick_params(labelsize="small")
        if handles:
            ax = canvas.figure.add_subplot(below[0])
            ax.set_axis_off()
            n_legend_columns = min(n_legend_columns, len(handles))
            ax.legend(handles=handles, loc="upper center", ncols=n_legend_columns, fontsize="small", frameon=False)
        self.axes_, self.figure_ = axes, canvas.figure
        return self

    def _draw(self, axes: Any, index: int, colors: npt.NDArray[np.float64]) -> Any:
        """Draw an image and its maps; return the map of the background."""
        picture = self.pictures[index]
        draw_picture(axes[0], picture)
        axes[1].imshow(grey_backdrop(picture))
        stretch_over(axes[1], colors[self.class_maps[index]], picture, interpolation="nearest")
        return draw_background(axes[2], self.probabilities[index], picture)

    def _colors(self) -> tuple[npt.NDArray[np.float64], list[Any]]:
        """Return the colour (K + 1, 4) of each class and of the background, and the legend."""
        from matplotlib.colors import to_rgba
        from matplotlib.patches import Patch

        n_classes = self.probabilities.shape[-1] - 1
        areas = np.bincount(self.class_maps.ravel(), minlength=n_classes + 1)[:n_classes]
        largest = [int(index) for index in np.argsort(-areas, kind="stable")[:_MOST_COLORED] if areas[index]]
        n_others = int(np.count_nonzero(areas)) - len(largest)
        colors = np.tile(to_rgba(OTHERS, 0.65), (n_classes + 1, 1))
        colors[n_classes] = 0
        handles = []
        # In the order of the classes, not of the areas.
        for place, index in enumerate(sorted(largest)):
            colors[index] = to_rgba(PALETTE[place], 0.65)
            handles.append(Patch(facecolor=PALETTE[place], label=as_text(self.classes[index], 26)))
        if n_others:
            label = f"{n_others} other class{'es' if n_others > 1 else ''}"
            handles.append(Patch(facecolor=OTHERS, edgecolor=text_color(), linewidth=0.5, label=label))
        return colors, handles


def _write_titles(axes: Any, stacked: bool) -> None:
    """Write above the panels of the first image, or to their left."""
    for ax, title in zip(axes, _TITLES, strict=True):
        if stacked:
            ax.set_title(title, fontsize="medium")
        else:
            ax.set_ylabel(title.replace(" ", "\n"), rotation=0, ha="right", va="center")


def check_probabilities(probabilities: Any, name: str = "probabilities") -> npt.NDArray[np.floating]:
    """Return class probabilities per pixel as an array (n, H, W, K + 1).

    Raises
    ------
    ValueError
        If they have another shape, or are not in 0..1.
    """
    array = np.asarray(probabilities)
    if array.ndim != 4 or array.shape[-1] < 2 or array.size == 0 or array.dtype.kind != "f":
        raise ValueError(
            f"{name} has shape {array.shape} and dtype {array.dtype}: expected floats of shape (n, H, W, K + 1), class "
            "probabilities per pixel with the background last, as of segment."
        )
    if not (array.min() >= 0 and array.max() <= 1 + 1e-6):  # not: NaN is refused, too
        raise ValueError(
            f"{name} has values in {array.min():g}..{array.max():g}: expected probabilities in 0..1, without NaN."
        )
    return array


def draw_background(ax: Any, probabilities: npt.NDArray[np.floating], picture: Picture) -> Any:
    """Draw the probability of the background of one image."""
    return stretch_over(ax, probabilities[..., -1], picture, cmap="cividis", vmin=0, vmax=1)


def grey_backdrop(picture: Picture) -> Picture:
    """Return an image in grey of little contrast, on which colours can be told apart."""
    pixels = picture / 255 if picture.dtype == np.uint8 else picture
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    return np.repeat((0.15 + 0.7 * grey)[..., None], 3, axis=-1)


def _checked_classes(classes: Any, n_classes: int) -> list[Any]:
    names = list(range(n_classes)) if classes is None else list(classes)
    if len(names) != n_classes:
        raise ValueError(f"classes has {len(names)} names: expected {n_classes}, one per class of probabilities.")
    return names
