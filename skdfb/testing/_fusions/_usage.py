"""How the checks use a fusion, and the scores that they pass to it."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from skdfb.testing._shared._demands import Array
from skdfb.testing._shared._usage import ScoringUsage

# The names that a detector uses, and the only ones that Eq. 7 of the paper joins.
NAMES = ("foreground", "background")
_N_TRAIN = 200


@dataclass(frozen=True)
class Parts:
    """Scores of n images by the name of the part, which can be indexed by rows."""

    scores: Mapping[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(next(iter(self.scores.values())))

    def __getitem__(self, rows: Any) -> "Parts":
        return Parts({name: scores[rows] for name, scores in self.scores.items()})


def standard_scores(seed: int, n: int) -> Parts:
    """Return correlated standard normal scores of n in-distribution images."""
    first, other = np.random.default_rng([seed, n]).normal(size=(2, n))
    return Parts(dict(zip(NAMES, (first, 0.6 * first + 0.8 * other), strict=True)))


def scaled(standard: Parts) -> Parts:
    """Return the scores on different scales, as those of different scorers."""
    foreground, background = standard.scores.values()
    return Parts(dict(zip(NAMES, (10 + 2 * foreground, 100 + 30 * background), strict=True)))


class FusionUsage(ScoringUsage):
    """Fusions are fitted on the scores of in-distribution images, and combine those of other images."""

    result_method: ClassVar[str] = "combine"

    def training_data(self, instance: Any, seed: int = 0) -> Parts:
        """Return scores of 200 in-distribution images."""
        standard = standard_scores(seed, _N_TRAIN)
        # Other seeds have another spread, so that every learned scale is another.
        return scaled(Parts({name: (1 + seed) * scores for name, scores in standard.scores.items()}))

    def training_images(self, instance: Any) -> Parts:
        """Return the training data, which can be combined as they are."""
        return self.training_data(instance)

    def new_data(self, instance: Any, seed: int = 1, n: int = 60) -> Parts:
        """Return scores of n images, every other one with lower scores."""
        # Low scores reach the tails, where a fusion extrapolates.
        shift = np.where(np.arange(n) % 2, -4.0, 0.0)
        return scaled(Parts({name: scores + shift for name, scores in standard_scores(seed, n).scores.items()}))

    def contents(self, data: Parts) -> dict[str, bytes]:
        """Return the bytes of the scores of each part."""
        return {f"parts[{name!r}]": scores.tobytes() for name, scores in data.scores.items()}

    def fit(self, instance: Any, data: Parts, outputs: Mapping[str, str] | None = None) -> Any:
        """Fit as a detector does: output kinds are passed only to a `fit` that accepts them."""
        if not takes_outputs(instance):
            return instance.fit(data.scores)
        return instance.fit(data.scores, outputs=dict.fromkeys(data.scores, "logit") | dict(outputs or {}))

    def raw_result(self, fitted: Any, data: Parts) -> Array:
        """Return the joint scores."""
        return np.asarray(fitted.combine(data.scores))


def takes_outputs(fusion: Any) -> bool:
    """Tell whether `fit` accepts output kinds."""
    return "outputs" in inspect.signature(fusion.fit).parameters


USAGE = FusionUsage()
