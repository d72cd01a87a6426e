"""Histograms of scores."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils._optional_dependencies import check_matplotlib_support

__all__ = ["ScoreHistogramDisplay"]


class ScoreHistogramDisplay:
    """Histograms of the scores of in-distribution and OOD images, with the threshold.

    Build it with :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    scores : mapping of str to ndarray
        Scores by the name of the image set; higher is more in-distribution.
    threshold : float or None
        Images below it are rejected.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

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
        """Score images by a fitted detector and plot.

        Parameters
        ----------
        estimator : estimator
            Anything with ``score_samples`` and, for the threshold, ``offset_``.
        images : mapping of str to images
            By the name of the set.
        ax : matplotlib Axes, default=None
            Where to plot; None makes a new figure.
        n_bins : int, default=40
            Number of bars over the whole range.

        Returns
        -------
        display : ScoreHistogramDisplay
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
        """Plot given scores; parameters as in :meth:`from_estimator`."""
        return cls(scores, threshold).plot(ax=ax, n_bins=n_bins)

    def plot(self, *, ax: Any = None, n_bins: int = 40) -> Self:
        """Plot the histograms.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to plot; None makes a new figure.
        n_bins : int, default=40
            Number of bars over the whole range.

        Returns
        -------
        display : ScoreHistogramDisplay
        """
        check_matplotlib_support(type(self).__name__)
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots(layout="constrained")
        everything = np.concatenate([np.asarray(values) for values in self.scores.values()])
        # A few far scores must not squeeze all others into one bar.
        low, high = np.quantile(everything, [0.005, 0.995])
        edges = np.linspace(low, high, n_bins + 1)
        for name, values in self.scores.items():
            clipped = np.clip(values, low, high)
            ax.hist(clipped, edges, histtype="stepfilled", alpha=0.35, density=True, label=name)
        if self.threshold is not None and np.isfinite(self.threshold):
            ax.axvline(self.threshold, color="black", linestyle="--", linewidth=1, label="threshold")
        ax.set(xlabel="score (higher is more in-distribution)", ylabel="density")
        ax.legend(fontsize="small")
        self.ax_, self.figure_ = ax, ax.figure
        return self
