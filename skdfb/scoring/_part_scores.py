"""Scores of parts, batch by batch, on the device of the networks where the scorers can."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skdfb._transfers import Download
from skdfb.scorers import Representation
from skdfb.scorers._composite import checked_scores
from skdfb.scorers._fitted_tensors import LARGEST_KEPT
from skdfb.scorers._protocol import computes_on_device
from skdfb.scorers._views_on_cpu import ViewsOnCPU
from skdfb.scoring._joint_score import JointScore, Scores, Views, scores_of
from skdfb.scoring._parts import Part
from skdfb.utils import supports_float64

__all__ = ["PartScores"]


class PartScores:
    """Scores the parts of batch after batch.

    A GPU scores right after the networks, and one number per image and part comes back. Scorers that cannot compute
    there get the views on the CPU.

    Parameters
    ----------
    joint_score : JointScore
        Fitted.
    """

    def __init__(self, joint_score: JointScore) -> None:
        self._parts = [Part(*part) for part in joint_score.parts_]
        self._on_cpu = ViewsOnCPU()

    def start(self, views: Views, download: Download) -> Callable[[], dict[str, Scores]]:
        """Start the scores of a batch.

        Parameters
        ----------
        views : mapping of str to Representation
            The n images by the name of the view.
        download : Download
            What the batch sends to the CPU.

        Returns
        -------
        finish : callable
            Returns what :meth:`JointScore.score_parts` returns.
        """
        device = next(iter(views.values())).device
        there = [part for part in self._parts if _scores_on(device, part.scorer)]
        started = {name: download.add(_scores_there(name, views[view], scorer)) for name, view, scorer in there}
        here = [part for part in self._parts if part.name not in started]
        finish_views = self._on_cpu.start({part.view: views[part.view] for part in here}, download)
        # Not the views themselves, whose maps would stay on the device while it computes the next batch.
        n_images = len(next(iter(views.values())))

        def finish() -> dict[str, Scores]:
            found = scores_of(here, finish_views())
            for name, scores in started.items():
                found[name] = checked_scores(scores(), n_images, f"scorer of part {name!r}")
            return {part.name: found[part.name] for part in self._parts}

        return finish


def _scores_on(device: torch.device, scorer: Any) -> bool:
    """Tell whether a scorer can compute on a device other than the CPU, and is small enough to be kept there."""
    if device.type == "cpu" or not supports_float64(device) or not computes_on_device(scorer):
        return False
    return _kept_bytes(scorer) <= LARGEST_KEPT


def _kept_bytes(scorer: Any) -> int:
    """Return the size of the fitted arrays of a scorer, and of one inside of it."""
    own = sum(value.nbytes for value in getattr(scorer, "__dict__", {}).values() if isinstance(value, np.ndarray))
    return own + (_kept_bytes(scorer.scorer_) if hasattr(scorer, "scorer_") else 0)


def _scores_there(name: str, representation: Representation, scorer: Any) -> Tensor:
    scores = scorer.score_on_device(representation)
    if not isinstance(scores, Tensor) or scores.device != representation.device:
        found = f"tensor on {scores.device}" if isinstance(scores, Tensor) else type(scores).__name__
        expected = f"expected a tensor on {representation.device}"
        raise TypeError(f"scorer of part {name!r}: score_on_device returned a {found}: {expected}.")
    return scores
