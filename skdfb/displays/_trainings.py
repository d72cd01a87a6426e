"""Loss and learning rate of trainings."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils._optional_dependencies import check_matplotlib_support

from skdfb.displays._canvas import canvas_for
from skdfb.displays._detectors import check_sets
from skdfb.displays._style import PALETTE, as_text
from skdfb.utils import check_scores

__all__ = ["TrainingDisplay"]

_LONG = 100  # steps from which the loss is smoothed
_WIDE = 20.0  # ratio of the smoothed losses from which their axis is logarithmic
_TITLES = {"classifier": "classifier", "dense": "dense network"}
_QUANTITIES = ("loss", "learning_rate")

Values = npt.NDArray[np.float64]


class TrainingDisplay:
    """Loss and learning rate per step, for each stage of a training.

    Build it with :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    history : mapping of str to mapping
        By the name of the stage, ``"loss"`` and ``"learning_rate"`` of each step, as in ``training_history_``.

    Attributes
    ----------
    history : dict of str to dict of str to ndarray of shape (n_steps,)
        The numbers by stage and quantity.
    smoothed : dict of str to ndarray of shape (n_steps,)
        By stage, means of the loss over a window of a twentieth of the steps, centred at the step; the loss itself if
        there are fewer than 100 steps.
    axes_ : ndarray of matplotlib Axes of shape (2, number of stages)
        The axes of losses and of learning rates.
    figure_ : matplotlib Figure or SubFigure
        The figure that contains the axes.

    Raises
    ------
    TypeError
        If `history` is not a mapping of mappings, or is empty.
    ValueError
        If loss and learning rate of a stage are missing or not numbers, or differ in length.

    See Also
    --------
    skdfb.Trainer : The settings of a training.

    Notes
    -----
    The axis of the loss is logarithmic if the smoothed loss falls by a factor of 20 or more. The losses of the two
    stages have different formulas and cannot be compared.

    Examples
    --------
    >>> from skdfb.displays import TrainingDisplay
    >>> stage = {"loss": [2.0, 1.5, 1.2], "learning_rate": [0.03, 0.02, 0.01]}
    >>> display = TrainingDisplay.from_predictions({"classifier": stage, "dense": stage})
    >>> display.axes_.shape
    (2, 2)
    """

    def __init__(self, history: Mapping[str, Mapping[str, npt.ArrayLike]]) -> None:
        check_sets(history, "history")
        self.history = {stage: _checked(values, stage) for stage, values in history.items()}
        self.smoothed = {stage: _smoothed(values["loss"]) for stage, values in self.history.items()}

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> Self:
        """Plot the training of a fitted detector.

        Parameters
        ----------
        estimator : DFBDetector
            Fitted detector with ``training_history_``.
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. Axes are divided into panels. None creates a new figure.

        Returns
        -------
        TrainingDisplay
            The display with the plot.
        """
        history = getattr(estimator, "training_history_", None)
        if not history:
            raise TypeError(
                f"estimator={estimator!r} has no training_history_: expected a fitted detector that trains networks."
            )
        return cls(history).plot(ax=ax)

    @classmethod
    def from_predictions(cls, history: Mapping[str, Mapping[str, npt.ArrayLike]], *, ax: Any = None) -> Self:
        """Plot a given history.

        Parameters
        ----------
        history : mapping of str to mapping
            By the name of the stage, ``"loss"`` and ``"learning_rate"`` of each step; also what
            :meth:`skdfb.Trainer.train` returns, as ``{"classifier": ...}``.
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. Axes are divided into panels. None creates a new figure.

        Returns
        -------
        TrainingDisplay
            The display with the plot.
        """
        return cls(history).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Plot losses and learning rates.

        Parameters
        ----------
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. Axes are divided into panels. None creates a new figure.

        Returns
        -------
        TrainingDisplay
            The display itself, with the attributes ``axes_`` and ``figure_``.
        """
        check_matplotlib_support(type(self).__name__)
        canvas = canvas_for(ax, (7, 4))
        axes = canvas.axes(2, len(self.history), heights=(2, 1), sharex="col")
        for column, (stage, values) in zip(axes.T, self.history.items(), strict=True):
            self._plot_loss(column[0], stage, values["loss"])
            column[0].set_title(as_text(_TITLES.get(stage, stage)), fontsize="medium")
            # The markers show a stage of one step.
            steps, marker = np.arange(1, len(values["loss"]) + 1), "o" if len(values["loss"]) == 1 else None
            column[1].plot(steps, values["learning_rate"], color=PALETTE[2], linewidth=1.5, marker=marker)
            column[1].set(xlabel="step", ylim=(0, None))
        axes[1, 0].set_ylabel("learning rate")
        self.axes_, self.figure_ = axes, canvas.figure
        return self

    def _plot_loss(self, ax: Any, stage: str, loss: Values) -> None:
        steps, smoothed = np.arange(1, len(loss) + 1), self.smoothed[stage]
        is_smoothed = len(loss) >= _LONG
        marker = "o" if len(loss) == 1 else None
        raw = {"alpha": 0.35, "linewidth": 0.7} if is_smoothed else {"linewidth": 1.5}
        ax.plot(steps, loss, color=PALETTE[5 if is_smoothed else 0], label="per step", marker=marker, **raw)
        if is_smoothed:
            ax.plot(steps, smoothed, color=PALETTE[0], linewidth=1.8, label="smoothed")
            ax.legend(fontsize="small")
        is_wide = loss.min() > 0 and smoothed.max() > _WIDE * smoothed.min()
        ax.set(yscale="log" if is_wide else "linear", ylabel="loss (log scale)" if is_wide else "loss")


def _checked(values: Any, stage: str) -> dict[str, Values]:
    """Return loss and learning rate of a stage."""
    if not isinstance(values, Mapping):
        raise TypeError(
            f"history[{stage!r}] is a {type(values).__name__}: expected a mapping with 'loss' and 'learning_rate'; for "
            "the history of one training, pass {'classifier': history}."
        )
    missing = [quantity for quantity in _QUANTITIES if quantity not in values]
    if missing:
        raise ValueError(f"history[{stage!r}] has the keys {list(values)}: expected 'loss' and 'learning_rate'.")
    checked = {name: check_scores(values[name], f"history[{stage!r}][{name!r}]") for name in _QUANTITIES}
    sizes = [len(array) for array in checked.values()]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"history[{stage!r}] has {sizes[0]} losses and {sizes[1]} learning rates: expected one of each per step."
        )
    return checked


def _smoothed(loss: Values) -> Values:
    """Return means over a window, which is cut off at the ends."""
    if len(loss) < _LONG:
        return loss
    half = len(loss) // 40
    sums = np.append(0.0, np.cumsum(loss))
    places = np.arange(len(loss))
    first, end = np.maximum(places - half, 0), np.minimum(places + half + 1, len(loss))
    means: Values = (sums[end] - sums[first]) / (end - first)
    return means
