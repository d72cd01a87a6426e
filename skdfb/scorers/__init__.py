"""Scores of images from what a network says of them: features, logits and the linear head.

A scorer takes a :class:`Representation` and returns one number an image; higher is more in-distribution.
No scorer takes a network, so all of them work on features from any source (see `Representation.from_numpy`).
"""

from skdfb._registry import register_classes
from skdfb.scorers._ash import ASH
from skdfb.scorers._background_logit import BackgroundLogit
from skdfb.scorers._cadref import CADRef
from skdfb.scorers._caref import CARef
from skdfb.scorers._class_gaussian_mixture import ClassGaussianMixture
from skdfb.scorers._dice import DICE
from skdfb.scorers._dml import DML
from skdfb.scorers._energy import Energy
from skdfb.scorers._entropy import Entropy
from skdfb.scorers._fdbd import FDBD
from skdfb.scorers._gen import GEN
from skdfb.scorers._grad_norm import GradNorm
from skdfb.scorers._kernel_pca import KernelPCA
from skdfb.scorers._kl_matching import KLMatching
from skdfb.scorers._knn import KNN
from skdfb.scorers._mahalanobis import Mahalanobis
from skdfb.scorers._masf import MaSF
from skdfb.scorers._max_cosine import MaxCosine
from skdfb.scorers._max_logit import MaxLogit
from skdfb.scorers._max_norm import MaxNorm
from skdfb.scorers._msp import MSP
from skdfb.scorers._nci import NCI
from skdfb.scorers._neco import NECO
from skdfb.scorers._nn_guide import NNGuide
from skdfb.scorers._odin import ODIN
from skdfb.scorers._open_max import OpenMax
from skdfb.scorers._protocol import (
    ForegroundScorer,
    InputPerturbingScorer,
    ScorerOutput,
    activations_needed,
    check_scorer,
    scorer_output,
)
from skdfb.scorers._prototypes import Prototypes
from skdfb.scorers._rank_feat import RankFeat
from skdfb.scorers._ras import RAS
from skdfb.scorers._react import ReAct
from skdfb.scorers._relative_mahalanobis import RelativeMahalanobis
from skdfb.scorers._representation import Representation
from skdfb.scorers._residual import Residual
from skdfb.scorers._scale import SCALE
from skdfb.scorers._scorer_ensemble import ScorerEnsemble
from skdfb.scorers._she import SHE
from skdfb.scorers._temperature_scaled import TemperatureScaled
from skdfb.scorers._vim import ViM

__all__ = [
    "ASH",
    "DICE",
    "DML",
    "FDBD",
    "GEN",
    "KNN",
    "MSP",
    "NCI",
    "NECO",
    "ODIN",
    "RAS",
    "SCALE",
    "SHE",
    "BackgroundLogit",
    "CADRef",
    "CARef",
    "ClassGaussianMixture",
    "Energy",
    "Entropy",
    "ForegroundScorer",
    "GradNorm",
    "InputPerturbingScorer",
    "KLMatching",
    "KernelPCA",
    "MaSF",
    "Mahalanobis",
    "MaxCosine",
    "MaxLogit",
    "MaxNorm",
    "NNGuide",
    "OpenMax",
    "Prototypes",
    "RankFeat",
    "ReAct",
    "RelativeMahalanobis",
    "Representation",
    "Residual",
    "ScorerEnsemble",
    "ScorerOutput",
    "TemperatureScaled",
    "ViM",
    "activations_needed",
    "check_scorer",
    "scorer_output",
]

register_classes(__name__)
