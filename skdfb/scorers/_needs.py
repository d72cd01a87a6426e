"""What a scorer declares that it needs, read in one place."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from skdfb.scorers._protocol import InputPerturbingScorer, activations_needed

__all__ = ["NO_NEEDS", "ScorerNeeds", "needs_of"]


@dataclass(frozen=True)
class ScorerNeeds:
    """What a scorer needs of the network, beyond the features and logits of the images as they are.

    Falsy if it needs nothing more.

    Parameters
    ----------
    activations : tuple of {"feature_map", "layers"}, default=()
        See :class:`~skdfb.scorers.ForegroundScorer`.
    perturbation : float, default=0.0
        Magnitude of the input perturbation; see :class:`~skdfb.scorers.InputPerturbingScorer`.
    objective : callable, default=None
        The quantity that the perturbation raises, a function of the logits.
    """

    activations: tuple[str, ...] = ()
    perturbation: float = 0.0
    objective: Callable[[Tensor], Tensor] | None = None

    def __bool__(self) -> bool:
        return bool(self.activations or self.perturbation)

    def __str__(self) -> str:
        return "perturbed images" if self.perturbation else "activations"


NO_NEEDS = ScorerNeeds()


def needs_of(scorer: Any) -> ScorerNeeds:
    """Return what a scorer needs of the network beyond features and logits.

    Raises
    ------
    ValueError
        If it declares activations that do not exist.
    """
    activations = activations_needed(scorer)
    magnitude = float(scorer.input_perturbation) if isinstance(scorer, InputPerturbingScorer) else 0.0
    return ScorerNeeds(activations, magnitude, scorer.perturbation_objective if magnitude else None)
