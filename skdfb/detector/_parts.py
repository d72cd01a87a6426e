"""The parts of a score: a foreground scorer and a background scorer, fitted and run together."""

import inspect
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from skdfb.detector._collect import RepresentationPair
from skdfb.scorers import scorer_output
from skdfb.scorers._composite import Labelled, fitted_clone, member_scores

__all__ = ["LabelledPair", "PartScorers", "Scores", "fit_fusion", "learning_share"]

Scores = npt.NDArray[np.float64]
Parts = dict[str, Scores]


class LabelledPair(NamedTuple):
    """Foreground and background representation of the same images, with their class indices."""

    pair: RepresentationPair
    labels: npt.NDArray[np.intp]

    def part(self, place: int) -> Labelled:
        """Return foreground (0) or background (1) with its labels: the background is one class."""
        return self.pair[place], self.labels if place == 0 else np.zeros_like(self.labels)

    def first(self, n: int) -> "LabelledPair":
        """Return the first n images."""
        foreground, background = self.pair
        return LabelledPair((foreground[:n], background[:n]), self.labels[:n])


@dataclass(frozen=True)
class PartScorers:
    """The scorers by the name of their part, in the order of a :data:`RepresentationPair`."""

    foreground: Any
    background: Any

    def fitted_clone(self, train: LabelledPair, held_out: LabelledPair | None = None) -> Self:
        """Return clones fitted on training images, and on held-out ones where they learn from such.

        The background is one class, so background scorers are given zeros for labels.
        """
        fitted = [
            fitted_clone(scorer, train.part(place), None if held_out is None else held_out.part(place))
            for place, scorer in enumerate((self.foreground, self.background))
        ]
        return type(self)(*fitted)

    def score(self, pair: RepresentationPair) -> Parts:
        """Return each part's scores; higher is more in-distribution."""
        foreground, background = pair
        return {
            "foreground": member_scores(self.foreground, foreground, "scorer"),
            "background": member_scores(self.background, background, "background_scorer"),
        }

    @property
    def learn_from_held_out(self) -> bool:
        """Whether a scorer takes images that its network did not train on, by ``learns_from_held_out = True``."""
        return any(getattr(scorer, "learns_from_held_out", False) for scorer in (self.foreground, self.background))

    @property
    def outputs(self) -> dict[str, str]:
        """What kind of number each part is; see :func:`skdfb.scorers.scorer_output`."""
        return {"foreground": scorer_output(self.foreground), "background": scorer_output(self.background)}


def learning_share(fusion: Any, scorers: PartScorers, n_held_out: int) -> int:
    """Return how many of the held-out images fusion and scorers may learn from; the others set the threshold."""
    learns = getattr(fusion, "learns_from_scores", True) or scorers.learn_from_held_out
    return n_held_out // 2 if learns else 0


def fit_fusion(fusion: Any, parts: Parts, outputs: dict[str, str], share: int) -> tuple[Any, Scores]:
    """Fit a clone of a fusion on held-out scores, and return it with the joint scores that may set the threshold.

    The fusion gets the first ``share`` scores, and only the others are returned: what fitted the fusion must not set
    the threshold. So the scores must be in random order. A fusion that learns nothing gets all.
    """
    fusion = clone(fusion, safe=False)
    learns = share and getattr(fusion, "learns_from_scores", True)
    fitting = {name: scores[:share] if learns else scores for name, scores in parts.items()}
    takes_outputs = "outputs" in inspect.signature(fusion.fit).parameters
    fusion.fit(fitting, **({"outputs": outputs} if takes_outputs else {}))
    joint = fusion.combine({name: scores[share:] for name, scores in parts.items()})
    return fusion, np.asarray(joint, dtype=np.float64)
