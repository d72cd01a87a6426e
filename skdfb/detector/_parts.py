"""The parts of a score: a foreground scorer and a background scorer, fitted and run together."""

import inspect
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import clone

from skdfb.detector._collect import RepresentationPair
from skdfb.scorers import Representation, scorer_output

__all__ = ["PartScorers", "Scores", "checked_scores", "fit_fusion", "fitted_scorer", "fusion_share"]

Scores = npt.NDArray[np.float64]
Parts = dict[str, Scores]


@dataclass(frozen=True)
class PartScorers:
    """The scorers by the name of their part, in the order of a :data:`RepresentationPair`."""

    foreground: Any
    background: Any

    def fitted_clone(self, pair: RepresentationPair, labels: npt.NDArray[np.intp]) -> Self:
        """Return clones fitted on the representations of training images."""
        foreground, background = pair
        return type(self)(
            fitted_scorer(self.foreground, foreground, labels), fitted_scorer(self.background, background, labels)
        )

    def score(self, pair: RepresentationPair) -> Parts:
        """Return each part's scores; higher is more in-distribution."""
        foreground, background = pair
        return {
            "foreground": checked_scores(self.foreground, foreground, "scorer"),
            "background": checked_scores(self.background, background, "background_scorer"),
        }

    @property
    def outputs(self) -> dict[str, str]:
        """What kind of number each part is; see :func:`skdfb.scorers.scorer_output`."""
        return {"foreground": scorer_output(self.foreground), "background": scorer_output(self.background)}


def fitted_scorer(scorer: Any, representation: Representation, labels: npt.NDArray[np.intp]) -> Any:
    """Return a fitted clone; anybody's ``fit`` need not return the scorer itself."""
    fitted = clone(scorer, safe=False)
    fitted.fit(representation, labels)
    return fitted


def checked_scores(scorer: Any, representation: Any, name: str) -> Scores:
    """Score, and check what came: the scorer may be anybody's."""
    values = scorer.score_samples(representation)
    values = values.detach().cpu() if isinstance(values, torch.Tensor) else values
    scores = np.asarray(values, dtype=np.float64)
    if scores.shape != (len(representation),):
        raise ValueError(
            f"{name}.score_samples returned shape {scores.shape} for {len(representation)} images; (n,) is wanted."
        )
    if np.isnan(scores).any():
        raise ValueError(f"{name}.score_samples returned NaN for {int(np.isnan(scores).sum())} images.")
    return scores


def fusion_share(fusion: Any, n_held_out: int) -> int:
    """Return how many of the held-out images a fusion is fitted on; the others set the threshold."""
    return n_held_out // 2 if getattr(fusion, "learns_from_scores", True) else 0


def fit_fusion(fusion: Any, parts: Parts, outputs: dict[str, str]) -> tuple[Any, Scores]:
    """Fit a clone of a fusion on held-out scores, and return it with the joint scores that may set the threshold.

    A fusion that learns from scores gets the first half of them, and only the second half is returned: what fitted the
    fusion must not set the threshold. So the scores must be in random order. ``learns_from_scores = False`` on a fusion
    says that it learns nothing.
    """
    fusion = clone(fusion, safe=False)
    split = fusion_share(fusion, len(parts["foreground"]))
    fitting = {name: scores[:split] if split else scores for name, scores in parts.items()}
    takes_outputs = "outputs" in inspect.signature(fusion.fit).parameters
    fusion.fit(fitting, **({"outputs": outputs} if takes_outputs else {}))
    joint = fusion.combine({name: scores[split:] for name, scores in parts.items()})
    return fusion, np.asarray(joint, dtype=np.float64)
