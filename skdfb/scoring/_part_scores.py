"""Scores of parts, batch by batch, on the device of the networks where the scorers can."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from skdfb._transfers import Download
from skdfb.scorers._composite import checked_scores, member_scores
from skdfb.scorers._fitted_tensors import LARGEST_COPY
from skdfb.scorers._views_on_cpu import ViewsOnCPU
from skdfb.scoring._joint_score import JointScore, Scores, Views
from skdfb.scoring._parts import Part
from skdfb.utils import supports_float64

__all__ = ["PartScores"]


class PartScores:
    """Scores the parts of batch after batch.

    A GPU computes the scores right after the networks, so that one number per image and part comes back, and the CPU
    does not wait. Scorers that cannot compute there get the views on the CPU.

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
        there = {part.name for part in self._parts if _scores_on(device, part.scorer)}
        started = {
            name: download.add(scorer.score_on_device(views[view]))
            for name, view, scorer in self._parts
            if name in there
        }
        left = {part.view: views[part.view] for part in self._parts if part.name not in there}
        finish_views = self._on_cpu.start(left, download)

        def finish() -> dict[str, Scores]:
            on_cpu, found = finish_views(), {}
            for name, view, scorer in self._parts:
                title = f"scorer of part {name!r}"
                if name in started:
                    found[name] = checked_scores(started[name](), len(views[view]), title)
                else:
                    found[name] = member_scores(scorer, on_cpu[view], title)
            return found

        return finish


def _scores_on(device: torch.device, scorer: Any) -> bool:
    """Tell whether a scorer can compute on an accelerator, and leaves its memory to the batches."""
    if device.type == "cpu" or not supports_float64(device) or not _computes_there(scorer):
        return False
    arrays = [value for value in getattr(scorer, "__dict__", {}).values() if isinstance(value, np.ndarray)]
    return sum(array.nbytes for array in arrays) <= LARGEST_COPY


def _computes_there(scorer: Any) -> bool:
    """Tell whether a scorer has ``score_on_device``, and its class no ``score_samples`` that was written after it."""
    for own in (getattr(scorer, "__dict__", {}), *map(vars, type(scorer).__mro__)):
        if "score_on_device" in own:
            return True
        if "score_samples" in own:  # it may compute something else than what it inherits
            return False
    return False
