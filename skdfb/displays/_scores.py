"""Histograms of scores."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils._optional_dependencies import check_matplotlib_support

__all__ = ["ScoreHistogramDisplay"]


class ScoreHistogramDisplay:
    """Histograms of the scores of in-distribution and OOD images, with the threshold of a detector.

    Build it with :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    scores : mapping of str to ndarray of shape (n,)
        Scores by the name of the image set; higher is more in-distribution.
    threshold : float or None
        Images with lower scores are rejected. No line is plotted if it is None or infinite.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes with the histograms.
    figure_ : matplotlib Figure
        The figure that contains the axes.

    See Also
    --------
    MaskDisplay : Images with their masks.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.displays import ScoreHistogramDisplay
    >>> rng = np.random.default_rng(0)
    >>> display = ScoreHistogramDisplay.from_predictions({"known": rng.normal(3, 1, 99), "noise": rng.normal(0, 1, 99)})
    >>> display.ax_.get_xlabel()
    'score (higher is more in-distribution)'
    """

    def __init__(self, scores: Mapping[str, npt.NDArray[np.floating]], threshold: float | None) -> None:
        self.scores = scores
        self.threshold = threshold

    @classmethod
    def from_estimator(cls, estimator: Any, images: Mapping[str, Any], *, ax: Any = None, n_bins: int = 40) -> Self:
        """Score images with a fitted detector and plot the histograms.

        Parameters
        ----------
        estimator : estimator
            Fitted estimator with ``score_samples`` and, for the threshold, ``offset_``.
        images : mapping of str to images
            Images by the name of the set, in a form that ``score_samples`` accepts.
        ax : matplotlib Axes, default=None
            Axes to plot in. None creates a new figure.
        n_bins : int, default=40
            Number of bins.

        Returns
        -------
        ScoreHistogramDisplay
            The display with the plot.
        """
        scores = {name: estimator.score_samples(X) for name, X in images.items()}
        return cls.from_predictions(scores, threshold=getattr(estimator, "offset_", None), ax=ax, n_bins=n_bins)

    @classmethod
    def from_predictions(
        cls,
        scores: Mapping[str, npt.NDArray[np.floating]],
        *,
        threshold: float | None = None,
        ax: Any = None,
        n_bins: int = 40,
    ) -> Self:
        """Plot the histograms of given scores.

        Parameters
        ----------
        scores : mapping of str to ndarray of shape (n,)
            Scores by the name of the image set; higher is more in-distribution.
        threshold : float, default=None
            Images with lower scores are rejected. No line is plotted if it is None or infinite.
        ax : matplotlib Axes, default=None
            Axes to plot in. None creates a new figure.
        n_bins : int, default=40
            Number of bins.

        Returns
        -------
        ScoreHistogramDisplay
            The display with the plot.
        """
        return cls(scores, threshold).plot(ax=ax, n_bins=n_bins)

    def plot(self, *, ax: Any = None, n_bins: int = 40) -> Self:
        """Plot the histograms.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot in. None creates a new figure.
        n_bins : int, default=40
            Number of bins. The same bins are used for all sets.

        Returns
        -------
        ScoreHistogramDisplay
            The display itself, with the attributes ``ax_`` and ``figure_``.
        """
        check_matplotlib_support(type(self).__name__)
        # Imported here, since matplotlib is an optional dependency.
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots(layout="constrained")
        everything = np.concatenate([np.asarray(values) for values in self.scores.values()])
        # A few extreme scores must not make the bins so wide that all other scores are in one bin.
        low, high = np.quantile(everything, [0.005, 0.995])
        edges = np.linspace(low, high, n_bins + 1)
        for name, values in self.scores.items():
            # Extreme scores are counted in the first and the last bin.
            clipped = np.clip(values, low, high)
            ax.hist(clipped, edges, histtype="stepfilled", alpha=0.35, density=True, label=name)
        # An infinite threshold, which rejects nothing, has no place on the axis.
        if self.threshold is not None and np.isfinite(self.threshold):
            ax.axvline(self.threshold, color="black", linestyle="--", linewidth=1, label="threshold")
        ax.set(xlabel="score (higher is more in-distribution)", ylabel="density")
        ax.legend(fontsize="small")
        self.ax_, self.figure_ = ax, ax.figure
        return self
