"""Why one image was rejected or accepted."""

import os
import textwrap
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.utils._optional_dependencies import check_matplotlib_support

from skdfb.displays._canvas import canvas_for
from skdfb.displays._detectors import method_of
from skdfb.displays._pictures import (
    Picture,
    draw_picture,
    listed,
    n_images_of,
    read_pictures,
    rows_of,
    stretch_over,
)
from skdfb.displays._segmentations import check_probabilities, draw_background
from skdfb.displays._style import PALETTE, as_text, text_color
from skdfb.exceptions import UnreadableImageError

__all__ = ["RejectionDisplay"]

_LEAST_P = 1e-6  # lower probabilities are plotted as this one
_WIDTH = 84  # characters of a line of the title
_JOINT, _SINGLE = "all parts together", "score"
_JOINT_COLOR, _PART_COLOR, _DECIDING_COLOR = PALETTE[0], PALETTE[5], PALETTE[3]

Segmentation = npt.NDArray[np.floating]


class RejectionDisplay:
    """One image, what the detector takes as its foreground, how unusual each part of its score is, and known images.

    Build it with :meth:`from_estimator` or :meth:`from_explanation`.

    Parameters
    ----------
    explanation : Explanation
        What ``detector.explain`` returns.
    index : int
        Place of the image in the explanation.
    picture : ndarray of shape (H, W, 3)
        The image.
    segmentation : ndarray of shape (h, w, K + 1), default=None
        Its class probabilities per pixel, the background last. None leaves the maps out.
    neighbor_pictures : mapping of int to ndarray of shape (H, W, 3), default=None
        The nearest known images that are plotted, by their place in ``explanation.neighbors[index]``.

    Attributes
    ----------
    p_values : dict of str to float
        What the bars show: the p-value of the joint score, under "all parts together", and the tail probability of each
        part, the lowest first. With a single part, only the p-value, under "score".
    axes_ : dict of str to matplotlib Axes or list of Axes
        The axes by what they show: "image", "foreground", "background", "parts" and, a list, "neighbors".
    figure_ : matplotlib Figure or SubFigure
        The figure that contains the axes.

    See Also
    --------
    SegmentationDisplay : The class maps of several images.
    ScoreHistogramDisplay : The joint scores of image sets.

    Notes
    -----
    The axis of the bars is logarithmic and reversed: the longer a bar, the more unusual is the image. The line is at
    ``alpha``. Only the bar of all parts together decides: the image is rejected if it reaches the line. The bars of
    parts are estimates, and one of them may reach the line although the parts together do not.

    Examples
    --------
    >>> import numpy as np
    >>> from types import SimpleNamespace
    >>> from skdfb.displays import RejectionDisplay
    >>> explanation = SimpleNamespace(  # as detector.explain(X) returns it
    ...     names=["image 0"],
    ...     alpha=0.05,
    ...     p_values=np.array([0.004]),
    ...     part_p_values={"foreground": np.array([0.2]), "background_logit": np.array([0.002])},
    ...     deciding_parts=["background_logit"],
    ...     neighbors=[["image 17"]],
    ...     neighbor_labels=[["daisy"]],
    ...     neighbor_distances=np.array([[0.3]]),
    ...     sentences=["rejected (p = 0.004): the background is unlike that of 99.8 % of the known images"],
    ... )
    >>> display = RejectionDisplay.from_explanation(explanation, image=np.zeros((16, 16, 3)))
    >>> display.p_values
    {'all parts together': 0.004, 'background_logit': 0.002, 'foreground': 0.2}
    """

    def __init__(
        self,
        explanation: Any,
        index: int,
        picture: Picture,
        segmentation: Segmentation | None = None,
        neighbor_pictures: dict[int, Picture] | None = None,
    ) -> None:
        self.explanation, self.index, self.picture = explanation, index, picture
        self.segmentation, self.neighbor_pictures = segmentation, dict(neighbor_pictures or {})
        parts = {name: float(values[index]) for name, values in explanation.part_p_values.items()}
        joint = float(explanation.p_values[index])
        # A single part is the joint score: one thing, one bar.
        if len(parts) == 1:
            self.p_values = {_SINGLE: joint}
        else:
            self.p_values = {_JOINT: joint} | dict(sorted(parts.items(), key=lambda item: item[1]))
        if np.isnan(list(self.p_values.values())).any():
            raise ValueError(
                f"{explanation.names[index]!r} has no scores, since it could not be read: {self.p_values}."
            )

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        index: int = 0,
        *,
        n_neighbors: int = 3,
        neighbor_images: str | os.PathLike[str] | Sequence[Any] | None = None,
        ax: Any = None,
    ) -> Self:
        """Explain one image by a fitted detector and plot the explanation.

        Parameters
        ----------
        estimator : DFBDetector or FrozenDetector
            Fitted detector with ``explain``. Without ``segment`` there are no maps.
        X : images
            Images, in any form that the detector accepts; also a single path or PIL image.
        index : int, default=0
            Place of the image in `X`. Only this image is passed to the detector.
        n_neighbors : int, default=3
            Number of nearest known images.
        neighbor_images : path or sequence of images, default=None
            The folder that was given to ``fit``, in which the nearest known images are looked up; or these images, in
            the order of the explanation, as paths, PIL images or arrays. None looks the paths up as they are. Those
            that are not found are left out.
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. Axes are divided into panels. None creates a new figure.

        Returns
        -------
        RejectionDisplay
            The display with the plot.
        """
        explain, X = method_of(estimator, "explain"), listed(X, "X")
        chosen = rows_of(X, [_checked_index(index, n_images_of(X), "X")])
        picture = read_pictures(chosen, estimator=estimator, name="X")[0]
        explanation = explain(chosen, n_neighbors=n_neighbors)
        segmentation = estimator.segment(chosen)[0] if hasattr(estimator, "segment") else None
        neighbors = _neighbor_pictures(explanation, 0, neighbor_images)
        return cls(explanation, 0, picture, segmentation, neighbors).plot(ax=ax)

    @classmethod
    def from_explanation(
        cls,
        explanation: Any,
        index: int = 0,
        *,
        image: Any = None,
        segmentation: Segmentation | None = None,
        neighbor_images: str | os.PathLike[str] | Sequence[Any] | None = None,
        ax: Any = None,
    ) -> Self:
        """Plot one image of a given explanation.

        Parameters
        ----------
        explanation : Explanation
            What ``detector.explain(X)`` returns.
        index : int, default=0
            Place of the image in the explanation.
        image : image, default=None
            This image: a path, a PIL image, or an array (H, W) or (H, W, 3). None reads the file that the explanation
            names.
        segmentation : ndarray of shape (h, w, K + 1), default=None
            Its class probabilities per pixel, ``detector.segment(X)[index]``. None leaves the maps out.
        neighbor_images : path or sequence of images, default=None
            The folder that was given to ``fit``, in which the nearest known images are looked up; or these images, in
            the order of the explanation. None looks the paths up as they are. Those that are not found are left out.
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. Axes are divided into panels. None creates a new figure.

        Returns
        -------
        RejectionDisplay
            The display with the plot.
        """
        index = _checked_index(index, len(explanation.names), "explanation")
        if image is None:
            image = explanation.names[index]
            if not os.path.isfile(image):
                raise ValueError(f"image is None, and {image!r} is not a file: expected the image that was explained.")
        picture = read_pictures(_one_image(image), name="image")[0]
        if segmentation is not None:
            segmentation = check_probabilities(np.asarray(segmentation)[None], "segmentation[None]")[0]
        neighbors = _neighbor_pictures(explanation, index, neighbor_images)
        return cls(explanation, index, picture, segmentation, neighbors).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Plot the image, its maps, the bars and the nearest known images.

        Parameters
        ----------
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. Axes are divided into panels. None creates a new figure.

        Returns
        -------
        RejectionDisplay
            The display itself, with the attributes ``axes_`` and ``figure_``.
        """
        check_matplotlib_support(type(self).__name__)
        maps = [] if self.segmentation is None else ["foreground", "background"]
        neighbors = [f"neighbor {place}" for place in self.neighbor_pictures]
        # Without maps there is space for the nearest images beside the image itself.
        rows = [["image", *maps], neighbors] if maps else [["image", *neighbors]]
        lines = textwrap.wrap(self._sentence(), _WIDTH)
        heights = [0.18 * len(lines), 2.2, 0.26 * len(self.p_values) + 0.6, *([1.9] if maps and neighbors else [])]
        canvas = canvas_for(ax, (7, sum(heights) + 0.2))
        title, *places = canvas.place.subgridspec(len(heights), 1, height_ratios=heights)
        n_columns = max(map(len, rows))
        tiles: dict[str, Any] = {}
        for row, place in zip(rows, (places[0], places[-1]), strict=False):
            grid = place.subgridspec(1, n_columns)
            tiles |= {name: canvas.figure.add_subplot(grid[column]) for column, name in enumerate(row)}
        # As axes, since a title could not make space for itself where these panels are a part of a figure.
        header = canvas.figure.add_subplot(title)
        header.set_axis_off()
        header.text(0.5, 0.5, "\n".join(lines), ha="center", va="center", in_layout=False)
        self._draw_image(canvas.figure, tiles, 24 if n_columns < 4 else 16)
        for name, (place, picture) in zip(neighbors, self.neighbor_pictures.items(), strict=True):
            draw_picture(tiles[name], picture)
            tiles[name].set_title(self._neighbor_title(place), fontsize="small")
        # In a grid of its own, so that its long names do not move the title.
        bars = canvas.figure.add_subplot(places[1].subgridspec(1, 1)[0])
        self._draw_bars(bars)
        self.axes_ = {name: tiles[name] for name in ("image", *maps)}
        self.axes_ |= {"parts": bars, "neighbors": [tiles[name] for name in neighbors]}
        self.figure_ = canvas.figure
        return self

    def _sentence(self) -> str:
        return str(self.explanation.sentences[self.index]).replace("$", r"\$")

    def _neighbor_title(self, place: int) -> str:
        label = self.explanation.neighbor_labels[self.index][place]
        distance = self.explanation.neighbor_distances[self.index][place]
        return f"known: {as_text(label, 20)}\ndistance {distance:.2f}"

    def _draw_image(self, figure: Any, tiles: dict[str, Any], most: int) -> None:
        """Draw the image and its maps."""
        from matplotlib.colors import to_rgba

        name = self.explanation.names[self.index]
        draw_picture(tiles["image"], self.picture)
        tiles["image"].set_title(as_text(os.path.basename(name) or name, most), fontsize="small")
        if self.segmentation is None:
            return
        # The background fades into the page.
        cover = np.zeros((*self.segmentation.shape[:2], 4))
        is_background = self.segmentation.argmax(axis=-1) == self.segmentation.shape[-1] - 1
        cover[is_background] = to_rgba(tiles["foreground"].get_facecolor(), 0.8)
        draw_picture(tiles["foreground"], self.picture)
        stretch_over(tiles["foreground"], cover, self.picture, interpolation="nearest")
        tiles["foreground"].set_title("foreground", fontsize="small")
        drawn = draw_background(tiles["background"], self.segmentation, self.picture)
        tiles["background"].set_title("background probability", fontsize="small")
        bar = figure.colorbar(drawn, ax=tiles["background"], fraction=0.05, ticks=[0, 0.5, 1])
        bar.ax.tick_params(labelsize="small")

    def _draw_bars(self, ax: Any) -> None:
        """Draw the probabilities, from 1 on the left to the most unusual on the right."""
        deciding, alpha = self.explanation.deciding_parts[self.index], self.explanation.alpha
        colors = {_JOINT: _JOINT_COLOR, _SINGLE: _JOINT_COLOR, deciding: _DECIDING_COLOR}
        lengths = {name: max(p, _LEAST_P) for name, p in self.p_values.items()}
        least = min([*lengths.values(), 0.01, *([] if alpha is None else [alpha])])
        for row, (name, p) in enumerate(lengths.items()):
            # From 1, where the axis begins.
            ax.barh(row, p - 1, left=1, height=0.7, color=colors.get(name, _PART_COLOR))
            text = f"{p:.2g}" if self.p_values[name] >= _LEAST_P else f"< {_LEAST_P:g}"
            # On a ground of its own, where the line at alpha would run through it.
            ground = {"facecolor": ax.get_facecolor(), "edgecolor": "none", "pad": 1}
            ax.annotate(text, (p, row), (3, 0), textcoords="offset points", va="center", fontsize="small", bbox=ground)
        if alpha is not None:
            ax.axvline(alpha, color=text_color(), linestyle="--", linewidth=1.2)
            ax.annotate(
                f"alpha = {alpha:g}",
                (alpha, 1),
                xycoords=ax.get_xaxis_transform(),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize="small",
            )
        ax.set(xscale="log", xlim=(1, least / 10), ylim=(len(lengths) - 0.4, -0.6))
        ax.set_yticks(range(len(lengths)), [as_text(name.replace("_", " ")) for name in lengths])
        for label, name in zip(ax.get_yticklabels(), lengths, strict=True):
            label.set_fontweight("bold" if name in (_JOINT, _SINGLE, deciding) else "normal")
        ax.set_xlabel("share of known images that are as unusual (longer bars: more unusual)", fontsize="small")


def _checked_index(index: Any, n_images: int, name: str) -> int:
    if not isinstance(index, Integral) or not 0 <= int(index) < n_images:
        raise ValueError(
            f"index={index!r}: expected an integer in 0..{n_images - 1}, since {name} has {n_images} images."
        )
    return int(index)


def _one_image(image: Any) -> Any:
    """Return a single image as one that is in a list."""
    if isinstance(image, str | os.PathLike | bytes | Image.Image):
        return [image]
    array = np.asarray(image)
    if array.ndim not in (2, 3):
        raise TypeError(f"image has shape {array.shape}: expected a path, a PIL image or an array (H, W) or (H, W, 3).")
    return (array if array.ndim == 3 else array[..., None])[None]


def _neighbor_pictures(explanation: Any, index: int, images: Any) -> dict[int, Picture]:
    """Return the nearest known images that can be plotted, by their place."""
    names = explanation.neighbors[index]
    if isinstance(images, str | os.PathLike):
        if not os.path.isdir(images):
            raise ValueError(
                f"neighbor_images={str(images)!r} is not a folder: expected that of fit, or a list of images."
            )
        names = [os.path.join(images, name) for name in names]
    elif images is not None:
        if len(images) > len(names):
            raise ValueError(
                f"neighbor_images has {len(images)} images: expected at most {len(names)}, those of {names}."
            )
        return {
            place: read_pictures(_one_image(image), name="neighbor_images")[0] for place, image in enumerate(images)
        }
    found = {}
    for place, name in enumerate(names):
        if os.path.isfile(name):
            # The images of the training may have changed since; the explanation is still true.
            try:
                found[place] = read_pictures([name])[0]
            except UnreadableImageError:
                continue
    return found
