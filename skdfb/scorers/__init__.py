"""Scores of images from what a network says of them: features, logits and the linear head.

A scorer takes a :class:`Representation` and returns one number an image; higher is more in-distribution.
No scorer takes a network, so all of them work on features from any source (see `Representation.from_numpy`).
"""

from skdfb.scorers._background_logit import BackgroundLogit
from skdfb.scorers._energy import Energy
from skdfb.scorers._max_logit import MaxLogit
from skdfb.scorers._msp import MSP
from skdfb.scorers._odin import ODIN
from skdfb.scorers._protocol import (
    ForegroundScorer,
    InputPerturbingScorer,
    ScorerOutput,
    activations_needed,
    check_scorer,
    scorer_output,
)
from skdfb.scorers._representation import Representation
from skdfb.scorers._vim import ViM

__all__ = [
    "MSP",
    "ODIN",
    "BackgroundLogit",
    "Energy",
    "ForegroundScorer",
    "InputPerturbingScorer",
    "MaxLogit",
    "Representation",
    "ScorerOutput",
    "ViM",
    "activations_needed",
    "check_scorer",
    "scorer_output",
]
