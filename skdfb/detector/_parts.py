"""The parts of a score: foreground and background scorers, fitted and run together."""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from skdfb.detector._collect import ViewMap
from skdfb.detector._views import BACKGROUND, FOREGROUND, PLAIN
from skdfb.scorers import scorer_output
from skdfb.scorers._composite import Labelled, fitted_clone, member_scores
from skdfb.utils import numbered

__all__ = [
    "FOREGROUND_NETWORKS",
    "LabelledViews",
    "Part",
    "PartScorers",
    "Scores",
    "fit_fusion",
    "is_sequence",
    "learning_share",
    "lowered_by_rounding",
    "make_parts",
    "named_background_scorers",
    "number_to_hold_out",
]

Scores = npt.NDArray[np.float64]

_LEAST_TO_LEARN_FROM = 10  # images

# Name and view of the foreground parts, by the networks that the foreground is scored on.
FOREGROUND_NETWORKS = {
    "dense": {"foreground": FOREGROUND},
    "plain": {"foreground": PLAIN},
    "both": {"foreground_dense": FOREGROUND, "foreground_plain": PLAIN},
}


class LabelledViews(NamedTuple):
    """Views of the same images, with their class indices."""

    views: ViewMap
    labels: npt.NDArray[np.intp]

    def of(self, view: str) -> Labelled:
        """Return one view with its labels: the background is one class."""
        return self.views[view], np.zeros_like(self.labels) if view == BACKGROUND else self.labels

    def first(self, n: int) -> "LabelledViews":
        """Return the first n images."""
        return LabelledViews({view: part[:n] for view, part in self.views.items()}, self.labels[:n])


class Part(NamedTuple):
    """A scorer and the view that it is shown."""

    view: str
    scorer: Any

    @property
    def role(self) -> str:
        """The parameter of the detector that the scorer was given as."""
        return "background_scorer" if self.view == BACKGROUND else "scorer"


@dataclass(frozen=True)
class PartScorers:
    """The parts of a score by name, foreground first."""

    parts: Mapping[str, Part]

    def fitted_clone(self, train: LabelledViews, held_out: LabelledViews | None = None) -> Self:
        """Return clones fitted on training images, and on held-out ones where they learn from such.

        The background is one class, so background scorers are given zeros for labels.
        """
        return type(self)(
            {
                name: Part(view, fitted_clone(scorer, train.of(view), None if held_out is None else held_out.of(view)))
                for name, (view, scorer) in self.parts.items()
            }
        )

    def score(self, views: ViewMap) -> dict[str, Scores]:
        """Return each part's scores; higher is more in-distribution."""
        return {name: member_scores(part.scorer, views[part.view], part.role) for name, part in self.parts.items()}

    @property
    def views(self) -> list[str]:
        """The views that the parts are of, each once."""
        return list(dict.fromkeys(part.view for part in self.parts.values()))

    @property
    def foreground(self) -> Any:
        """The first foreground scorer: it speaks for all in what a scorer may ask for."""
        return next(part.scorer for part in self.parts.values() if part.view != BACKGROUND)

    @property
    def learning_foreground(self) -> Any:
        """The first foreground scorer, or None if it learns nothing, and so asks for nothing, of training images."""
        return self.foreground if getattr(self.foreground, "learns_from_images", True) else None

    @property
    def background(self) -> list[Any]:
        """The background scorers."""
        return [part.scorer for part in self.parts.values() if part.view == BACKGROUND]

    @property
    def groups(self) -> dict[str, list[str]]:
        """The names of the parts by ``"foreground"`` and ``"background"``."""
        groups: dict[str, list[str]] = {"foreground": [], "background": []}
        for name, part in self.parts.items():
            groups["background" if part.view == BACKGROUND else "foreground"].append(name)
        return groups

    @property
    def learn_from_held_out(self) -> bool:
        """Whether a scorer takes images that its network did not train on, by ``learns_from_held_out = True``."""
        return any(getattr(part.scorer, "learns_from_held_out", False) for part in self.parts.values())

    @property
    def outputs(self) -> dict[str, str]:
        """What kind of number each part is; see :func:`skdfb.scorers.scorer_output`."""
        return {name: scorer_output(part.scorer) for name, part in self.parts.items()}


def make_parts(scorer: Any, background_scorer: Any, foreground_network: str) -> PartScorers:
    """Return the parts of a foreground scorer on one or both networks, and of one or several background scorers."""
    foreground = {name: Part(view, scorer) for name, view in FOREGROUND_NETWORKS[foreground_network].items()}
    background = named_background_scorers(background_scorer).items()
    return PartScorers(foreground | {name: Part(BACKGROUND, member) for name, member in background})


def named_background_scorers(background_scorer: Any) -> dict[str, Any]:
    """Return background scorers by the name of their part.

    A single one is ``"background"``. Of several, each is named after its class, like ``"background_mahalanobis"``, or
    as its tuple (name, scorer) says; names that come twice are numbered.
    """
    if not is_sequence(background_scorer):
        return {"background": background_scorer}
    pairs = [member if isinstance(member, tuple) else ("", member) for member in background_scorer]
    names = [_part_name(name or _snake_case(type(scorer).__name__)) for name, scorer in pairs]
    return {name: scorer for name, (_, scorer) in zip(numbered(names, "_"), pairs, strict=True)}


def is_sequence(background_scorer: Any) -> bool:
    """Tell whether several background scorers are given, or one."""
    return isinstance(background_scorer, Sequence)


def _part_name(name: str) -> str:
    return name if name.startswith("background") else f"background_{name}"


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def lowered_by_rounding(held_out: Scores) -> Scores:
    """Return held-out scores lowered by what rounding may do to a score, a millionth of it or of their usual spread.

    One of them becomes the threshold. Scored again, in a batch of another size, its image may score lower by a few
    bits, and must not be rejected for that. The promise holds all the more.
    """
    spread = float(np.subtract(*np.quantile(held_out, [0.75, 0.25])))  # no outlier's doing
    lowered: Scores = held_out - 1e-6 * np.maximum(np.abs(held_out), spread)
    return lowered


def learning_share(n_held_out: int, n_needed: int) -> int:
    """Return how many of the held-out images fusion and scorers may learn from; the others set the threshold.

    It is half of them. Where too few would be left of the ``n_needed`` for a threshold, they learn from the rest,
    if that is enough to learn from.
    """
    if n_held_out < 2:
        raise ValueError(
            f"{n_held_out} image is held out, but fusion or scorer learn from held-out images, and the threshold is set"
            " on others: at least 2 are wanted; give more images or a larger calibration_fraction."
        )
    half = n_held_out // 2
    if n_held_out - half >= n_needed:
        return half
    return max(n_held_out - n_needed, min(half, _LEAST_TO_LEARN_FROM))


def number_to_hold_out(n_needed: int) -> int:
    """Return the least number of held-out images that leave ``n_needed`` for a threshold beside those learned from."""
    return next(n for n in count(max(2, n_needed)) if n - learning_share(n, n_needed) >= n_needed)


def fit_fusion(fusion: Any, parts: Mapping[str, Scores], outputs: Mapping[str, str], share: int) -> tuple[Any, Scores]:
    """Fit a clone of a fusion on held-out scores, and return it with the joint scores that may set the threshold.

    The fusion gets the first ``share`` scores, and only the others are returned: what fitted the fusion must not set
    the threshold. So the scores must be in random order. A fusion that learns nothing gets all.
    """
    fusion = clone(fusion, safe=False)
    learns = share and getattr(fusion, "learns_from_scores", True)
    fitting = {name: scores[:share] if learns else scores for name, scores in parts.items()}
    takes_outputs = "outputs" in inspect.signature(fusion.fit).parameters
    fusion.fit(fitting, **({"outputs": dict(outputs)} if takes_outputs else {}))
    joint = fusion.combine({name: scores[share:] for name, scores in parts.items()})
    return fusion, np.asarray(joint, dtype=np.float64)
