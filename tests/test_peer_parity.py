"""Our scorers against those of pytorch-ood 0.4.0, on the same features and the same head.

The peer is no dependency of this package: without it the whole file is skipped. To run it::

    pip install -e ".[test,peers]"        # or: pip install pytorch-ood==0.4.0
    pytest tests/test_peer_parity.py

The peer's scores are higher for OOD images, ours for in-distribution ones, so "equal" always means up to the sign, to
1e-4 of the range of the scores: the peer computes most of them in float32. `CASES` says how the scores of each pair are
related; `DIFFERENCES` holds the inputs on which two scorers of the same definition part, and where they do; `ABSENT`
names those of our scorers that the peer lacks.
"""

import functools
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.base import clone
from torch import nn
from torch.nn.functional import cross_entropy

from skdfb import DFBDetector, Trainer
from skdfb.scorers import (
    ASH,
    DICE,
    FDBD,
    GEN,
    KNN,
    MSP,
    NCI,
    ODIN,
    SCALE,
    SHE,
    ClassGaussianMixture,
    Energy,
    Entropy,
    GradNorm,
    KLMatching,
    Mahalanobis,
    MaxLogit,
    NNGuide,
    OpenMax,
    RankFeat,
    ReAct,
    RelativeMahalanobis,
    Representation,
    TemperatureScaled,
    ViM,
)
from tests.helpers import TinyBackbone
from tests.scorers.helpers import BUILT_IN

peers = pytest.importorskip("pytorch_ood.detector")

N_TRAIN, N_NEW, C, K, D = 600, 300, 32, 5, 12
TOLERANCE = 1e-4

# What the peer lacks, and what comes nearest there. (We lack its Gram, GradUncertainty, LTS, MCD, MCM,
# MahalanobisODIN, MultiMahalanobis, NACUE, PNML, VRA and WeightedEBO.)
ABSENT = {
    "BackgroundLogit": "needs a network with a background class",
    "CADRef": "CARef in two parts; there is NCI, with the weight of the predicted class",
    "CARef": "the relative error from a class mean; there is SHE, the product with it",
    "DML": "a cosine plus a norm; there is MaxLogit, their product",
    "KernelPCA": "the error outside a principal space of directions; there is ViM",
    "MaSF": "p-values of channel maxima over layers; there is Gram, over layers, too",
    "MaxCosine": "the cosine of DML",
    "MaxNorm": "the norm of DML",
    "NECO": "the share of the feature in a principal space; there is ViM",
    "Prototypes": "several directions a class; there is SHE, with one that is not normalised",
    "RAS": "the energy of features that keep only their order; there is ReAct, which clips them",
    "Residual": "ViM's second term alone, which is private there",
    "ScorerEnsemble": "puts other scorers together",
}

# ---------------------------------------------------------------------------------------------------------- the data


@dataclass(frozen=True)
class Data:
    """Training images with classes, and new images, half of them OOD, with the same head."""

    train: Representation
    y: torch.Tensor
    new: Representation

    @property
    def head(self) -> nn.Linear:
        """The head, as a module."""
        K, C = self.new.weight.shape
        head = nn.Linear(C, K)
        head.load_state_dict({"weight": self.new.weight, "bias": self.new.bias})
        return head.requires_grad_(False)

    @property
    def map_head(self) -> nn.Module:
        """The mean over the places, and the head."""
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), self.head)

    def correct(self) -> "Data":
        """Leave out the training images that are classified wrongly."""
        rows = self.train.logits.argmax(dim=1) == self.y
        return replace(self, train=self.train[rows], y=self.y[rows])

    def change(self, **columns: Any) -> "Data":
        """Change features, or the head, the same way everywhere; logits and maps follow."""
        functions = {"features": lambda h: h, "weight": lambda W: W, "bias": lambda b: b, **columns}

        def changed(representation: Representation) -> Representation:
            arrays = {
                name: np.ascontiguousarray(function(getattr(representation, name).numpy()))
                for name, function in functions.items()
            }
            return Representation.from_numpy(**arrays)

        return replace(self, train=changed(self.train), new=changed(self.new))


@functools.cache
def make_data(seed: int, correlated: bool) -> Data:
    """Feature maps of 2 x 2 places after a ReLU; `correlated` ones vary in few directions, mostly."""
    rng = np.random.default_rng(seed)
    level = 1.5 if correlated else 0.6
    means = rng.normal(level, 0.3 if correlated else 0.5, size=(K, C))
    strange_means = rng.normal(level, 0.8, size=(N_NEW // 2, C))
    spread = np.eye(C)
    if correlated:
        rotation = np.linalg.qr(rng.normal(size=(C, C)))[0]
        spread = 1.5 * rotation * np.geomspace(1, 0.02, C) @ rotation.T

    def maps(centres: Any) -> Any:
        image = 0.6 * rng.normal(size=(len(centres), 1, 1, C))
        places = rng.normal(size=(len(centres), 2, 2, C))
        return np.maximum(np.moveaxis(centres[:, None, None] + (image + places) @ spread.T, -1, 1), 0)

    y = rng.choice(K, size=N_TRAIN, p=[0.1, 0.15, 0.2, 0.25, 0.3])
    train_maps = maps(means[y])
    new_maps = maps(np.concatenate([means[rng.choice(K, size=N_NEW - len(strange_means))], strange_means]))
    # A head that separates the classes, mostly; the largest logits are positive, as those of trained networks are.
    centres = np.stack([train_maps[y == k].mean(axis=(0, 2, 3)) for k in range(K)])
    weight = 0.7 * (centres - centres.mean(axis=0))
    bias = 2 - ((centres + centres.mean(axis=0)) / 2 * weight).sum(axis=1) + rng.normal(0.0, 0.2, size=K)

    def representation(feature_map: Any) -> Representation:
        arrays = {"features": feature_map.mean((2, 3)), "weight": weight, "bias": bias}
        return Representation.from_numpy(
            **{name: array.astype(np.float32) for name, array in arrays.items()},
            activations={"feature_map": feature_map.astype(np.float32)},
        )

    return Data(train=representation(train_maps), y=torch.from_numpy(y), new=representation(new_maps))


DATA = {"independent": (0, False), "other seed": (1, False), "correlated": (2, True)}


@pytest.fixture(params=DATA, scope="module")
def data(request: pytest.FixtureRequest) -> Data:
    return make_data(*DATA[request.param])


@pytest.fixture(scope="module")
def one_data() -> Data:
    return make_data(*DATA["independent"])


# ---------------------------------------------------------------------------------------------- how both sides score

Scores = Callable[[Data], Any]


def ours(scorer: Any, view: Callable[[Any], Any] = np.asarray) -> Scores:
    """Our scores of the new images; `view` maps them to the quantity that the peer gives."""
    return lambda data: view(clone(scorer).fit(data.train, data.y.numpy()).score_samples(data.new))


def peer(kind: str, make: Callable[[Data], Any], view: Callable[[Any], Any] = np.asarray) -> Scores:
    """The peer's scores of the new images, from what this kind of detector reads."""

    def scores(data: Data) -> Any:
        detector, method = make(data), "feature_maps" if kind == "pooled" else kind
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == "images":
                return view(detector.predict(INPUTS[kind](data.new)).numpy())
            getattr(detector, f"fit_{method}")(INPUTS[kind](data.train), data.y)
            return view(getattr(detector, f"predict_{method}")(INPUTS[kind](data.new)).numpy(force=True))

    return scores


# float64 goes to those detectors that keep it.
INPUTS: dict[str, Callable[[Representation], torch.Tensor]] = {
    "logits": lambda representation: representation.logits.double(),
    "features": lambda representation: representation.features,
    "feature_maps": lambda representation: representation.activations["feature_map"],
    "pooled": lambda representation: representation.features[:, :, None, None],  # maps of one place
    "images": lambda representation: representation.features.double(),  # of a network that is the head alone
}


def with_sharp_head(scores: Scores) -> Scores:
    """Scores of a network that is surer of itself."""
    return lambda data: scores(data.change(weight=lambda W: 8 * W, bias=lambda b: 8 * b))


def centred(scores: Any) -> Any:
    """Scores without the constant that they have in common."""
    return scores - scores.mean()


# ------------------------------------------------------------------------------------------------------ the relations

EQUAL, FACTOR, RANKING, DIFFERS = "equal up to sign", "equal up to a factor", "same ranking", "differs"


@dataclass(frozen=True)
class Case:
    """A scorer of ours and its counterpart.

    ours = -factor * peer, where the relation is FACTOR. With DIFFERS, `alike` is the pair made to follow one
    convention, which shows that `reason` tells the whole difference.
    """

    name: str
    ours: Scores
    peer: Scores
    relation: str = EQUAL
    reason: str = ""
    factor: Callable[[Data], float] = lambda data: 1.0
    alike: "Case | None" = None

    def scores(self, data: Data) -> tuple[Any, Any]:
        """Ours, and the peer's on the scale of ours but of opposite sign."""
        a, b = self.ours(data), self.factor(data) * self.peer(data)
        assert a.shape == b.shape == (N_NEW,)
        return a, b


def distance(a: Any, b: Any) -> float:
    """The largest difference up to sign, as a share of the range of the scores."""
    return float(np.abs(a + b).max() / np.ptp(a))


def n_images(data: Data) -> float:
    return len(data.train)


def ash(variant: str, percentile: int, kind: str) -> Case:
    return Case(
        f"ASH-{variant}, {kind}",
        ours(ASH(variant=variant, on_maps=kind == "feature_maps")),
        peer(kind, lambda d: peers.ASH(None, d.map_head, f"ash-{variant}", percentile / 100)),
        reason="the peer counts shares, and has 0.65 as its default for all three variants",
    )


def single_class(scores: Scores) -> Scores:
    """Scores after fitting on images that are all of class 0."""
    return lambda data: scores(replace(data, y=torch.zeros_like(data.y)))


def of_directions(scores: Scores) -> Scores:
    """Scores of features of norm 100, with which the 1e-6 that the peer adds to the diagonal does not show."""
    return lambda data: scores(data.change(features=lambda h: 100 * h / np.linalg.norm(h, axis=1, keepdims=True)))


def unshifted(scores: Scores) -> Scores:
    """Scores with the peer's Weibull distributions fitted to distances as they are; all other lines are the peer's."""
    libmr = peers.openmax.numpy.LibNotMR

    class Unshifted(libmr):
        # It is added to what the smallest distance is taken off.
        translation = property(lambda self: self.min_val, lambda self, value: None)

    def changed(data: Data) -> Any:
        with patch.object(peers.openmax.numpy, "LibNotMR", Unshifted):
            return scores(data)

    return changed


def peer_softmax_at_our_temperature(data: Data) -> Any:
    temperature = TemperatureScaled(MSP()).fit(data.train, data.y.numpy()).temperature_
    return peers.TemperatureScaling.score(data.new.logits.double(), temperature).numpy()


CASES = [
    Case("MSP", ours(MSP(), np.exp), peer("logits", lambda d: peers.MaxSoftmax(None))),
    Case(
        "MSP as it is",
        ours(MSP()),
        peer("logits", lambda d: peers.MaxSoftmax(None)),
        RANKING,
        "ours is the logarithm of the probability, which does not round to 1",
    ),
    Case("MaxLogit", ours(MaxLogit()), peer("logits", lambda d: peers.MaxLogit(None))),
    Case("Energy", ours(Energy()), peer("logits", lambda d: peers.EnergyBased(None))),
    Case("Energy, T = 2.5", ours(Energy(2.5)), peer("logits", lambda d: peers.EnergyBased(None, t=2.5))),
    Case("Entropy", ours(Entropy()), peer("logits", lambda d: peers.Entropy(None))),
    Case(
        "GEN",
        ours(GEN()),
        peer("logits", lambda d: peers.GEN(None)),
        FACTOR,
        "the paper sums the terms of the M classes, the peer takes their mean",
        factor=lambda d: K,
    ),
    Case(
        "GEN, M = 3",
        ours(GEN(gamma=0.5, n_top=3)),
        peer("logits", lambda d: peers.GEN(None, gamma=0.5, M=3)),
        FACTOR,
        "as above",
        factor=lambda d: 3,
    ),
    Case("KLMatching", ours(KLMatching()), peer("logits", lambda d: peers.KLMatching(None))),
    Case(
        "ODIN without perturbation",
        ours(ODIN(input_perturbation=0), np.exp),
        peer("images", lambda d: peers.ODIN(d.head.double(), eps=0)),
        reason="with perturbation: see test_odin_on_images",
    ),
    Case("ViM", ours(ViM(D)), peer("features", lambda d: peers.ViM(None, D, d.new.weight, d.new.bias))),
    Case(
        "Mahalanobis",
        ours(Mahalanobis()),
        peer("features", lambda d: peers.Mahalanobis(None)),
        FACTOR,
        "the peer takes half of the distance, as the authors' code does, by a covariance that is not divided by the "
        "number of images; the 1e-6 it adds to the diagonal does not show beside such sums",
        factor=lambda d: 2 * n_images(d),
    ),
    Case(
        "Mahalanobis of normalised features",
        ours(Mahalanobis(normalize=True)),
        of_directions(peer("features", lambda d: peers.Mahalanobis(None))),
        FACTOR,
        "as above; the peer is given normalised features",
        factor=lambda d: 2 * n_images(d),
    ),
    Case(
        "Mahalanobis without classes",
        ours(Mahalanobis(use_classes=False)),
        single_class(peer("features", lambda d: peers.Mahalanobis(None))),
        FACTOR,
        "as above; the peer is given one class",
        factor=lambda d: 2 * n_images(d),
    ),
    Case(
        "RelativeMahalanobis of normalised features",
        ours(RelativeMahalanobis(normalize=True)),
        of_directions(peer("features", lambda d: peers.RMD(None))),
        FACTOR,
        "neither covariance of the peer is divided by the number of images; it is given normalised features",
        factor=n_images,
    ),
    Case(
        "RelativeMahalanobis",
        ours(RelativeMahalanobis()),
        peer("features", lambda d: peers.RMD(None)),
        FACTOR,
        "both of the peer's covariances are not divided by the number of images",
        factor=n_images,
    ),
    Case("KNN", ours(KNN()), peer("features", lambda d: peers.KNN(None))),
    Case("NNGuide", ours(NNGuide()), peer("features", lambda d: peers.NNGuide(None, d.head))),
    Case(
        "ReAct",
        ours(ReAct()),
        peer("pooled", lambda d: peers.ReAct(None, d.map_head)),
        reason="given pooled features, the paper's penultimate layer; of whole maps the peer clips each place",
    ),
    *(
        ash(variant, percentile, kind)
        for variant, percentile in [("s", 90), ("b", 65), ("p", 60)]
        for kind in ("pooled", "feature_maps")
    ),
    Case("SCALE", ours(SCALE()), peer("pooled", lambda d: peers.SCALE(None, d.map_head, 0.85))),
    Case("DICE", ours(DICE()), peer("features", lambda d: peers.DICE(None, d.new.weight, d.new.bias, p=0.9))),
    Case("DICE, half", ours(DICE(0.5)), peer("features", lambda d: peers.DICE(None, d.new.weight, d.new.bias, p=0.5))),
    Case("SHE", ours(SHE()), peer("features", lambda d: peers.SHE(None, d.head))),
    Case("FDBD", ours(FDBD()), peer("features", lambda d: peers.fDBD(None, d.head))),
    Case(
        "NCI",
        ours(NCI(filter_strength=0.05)),
        peer("features", lambda d: peers.NCI(None, d.head, alpha=0.05)),
        reason="alpha is 1e-4 by default here, as in the authors' code, and 0 there",
    ),
    Case("RankFeat", ours(RankFeat()), peer("feature_maps", lambda d: peers.RankFeat(None, d.map_head))),
    Case(
        "GradNorm",
        ours(GradNorm(temperature=2)),
        peer("images", lambda d: peers.GradNorm(d.head.double(), lambda name: name == "weight", temperature=2)),
        reason="without param_filter the peer sums over all parameters of the network, the paper over this weight",
    ),
    Case(
        "ClassGaussianMixture",
        ours(ClassGaussianMixture(n_components=1), centred),
        peer("features", lambda d: peers.GMM(None), lambda scores: 2 * centred(scores)),
        DIFFERS,
        "GMM has a covariance for each class, its log-determinant and the share of each class; ours has several "
        "Gaussians a class, of one covariance, and takes the nearest class. They meet where there is one Gaussian, "
        "but for a constant",
        alike=Case(
            "one Gaussian",
            single_class(ours(ClassGaussianMixture(n_components=1), centred)),
            single_class(peer("features", lambda d: peers.GMM(None, reg=1e-9), lambda scores: 2 * centred(scores))),
        ),
    ),
    Case(
        "OpenMax",
        ours(OpenMax(alpha=3), np.expm1),
        peer("logits", lambda d: peers.OpenMax(None, tailsize=20, alpha=3)),
        DIFFERS,
        "the peer takes all training images, the paper those classified correctly; the peer shifts a tail to 10,000 "
        "and more before it fits, as libMR in the paper's code does, and ours fits the distances as they are",
        alike=Case(
            "unshifted, correct images",
            lambda data: ours(OpenMax(alpha=3), np.expm1)(data.correct()),
            lambda data: unshifted(peer("logits", lambda d: peers.OpenMax(None, tailsize=20, alpha=3)))(data.correct()),
        ),
    ),
    Case(
        "TemperatureScaled",
        with_sharp_head(ours(TemperatureScaled(MSP()), np.exp)),
        with_sharp_head(peer("logits", lambda d: peers.TemperatureScaling(None))),
        DIFFERS,
        "the peer's 50 steps of L-BFGS from T = 1 stop on the way to the optimum, as its docstring says; "
        "see test_learned_temperature",
        alike=Case(
            "at our temperature",
            with_sharp_head(ours(TemperatureScaled(MSP()), np.exp)),
            with_sharp_head(peer_softmax_at_our_temperature),
        ),
    ),
]


def assert_related(case: Case, data: Data) -> None:
    a, b = case.scores(data)
    # Ranks as well: the range may be that of a few far images. Two neighbours that change places cost 5e-7.
    assert spearmanr(a, -b).statistic > 1 - 1e-5
    if case.relation != RANKING:
        assert distance(a, b) < TOLERANCE


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_parity(case: Case, data: Data) -> None:
    assert case.reason or case.relation == EQUAL
    if case.relation != DIFFERS:
        assert_related(case, data)
        return
    assert distance(*case.scores(data)) > 100 * TOLERANCE
    assert_related(case.alike, data)


def test_each_scorer_of_both_is_compared() -> None:
    compared = {re.match(r"\w+", case.name).group() for case in CASES}
    known = {scorer.__name__ for scorer in BUILT_IN} | {"TemperatureScaled", "ScorerEnsemble"}
    theirs = {name.lower() for name in dir(peers)}
    assert {name for name in known if name.lower() in theirs} <= compared <= known
    assert set(ABSENT) <= known - compared
    assert not [name for name in ABSENT if hasattr(peers, name)]


# ------------------------------------------------------------------------------------------ with a network, or a search


@pytest.mark.parametrize(("temperature", "magnitude"), [(1000.0, 0.0014), (2.0, 0.02)], ids=["default", "strong"])
def test_odin_on_images(temperature: float, magnitude: float) -> None:
    """End to end: the same network, the same pixels; each side perturbs them by itself."""
    K, std = 3, [0.229, 0.224, 0.225]
    rng = np.random.default_rng(0)
    X, y = rng.random((60, 16, 16, 3)), np.arange(60) % K
    X[np.arange(60), :, :, y] += 1
    X /= 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = TinyBackbone(dtype=torch.float64)
    trainer = Trainer(max_steps=10, batch_size=16, learning_rate=0.2)
    detector = DFBDetector(
        backbone,
        scorer=ODIN(temperature, magnitude),
        classifier_trainer=trainer,
        dense_trainer=trainer,
        alpha=0.2,  # for which few held-out images suffice
        calibration_fraction=0.35,
        device="cpu",
        random_state=0,
    ).fit(X, y)

    def logits(pixels: torch.Tensor) -> torch.Tensor:
        return detector.dense_network_(pixels)[:, :K]  # without the background's

    pixels = torch.from_numpy(np.moveaxis((X - [0.485, 0.456, 0.406]) / std, -1, 1).copy())
    theirs = peers.ODIN(logits, eps=magnitude, temperature=temperature, norm_std=std).predict(pixels)
    plain = peers.ODIN(logits, eps=0, temperature=temperature).predict(pixels)
    scores = np.exp(detector.score_foreground(X))
    step = (theirs - plain).abs().max().item()  # what the perturbation does
    assert step > 10 * TOLERANCE * np.ptp(scores)
    np.testing.assert_allclose(scores, -theirs.numpy(), rtol=0, atol=TOLERANCE * step)


def loss_of(data: Data, temperature: float) -> float:
    return float(cross_entropy(data.train.logits.double() / temperature, data.y))


def test_learned_temperature(one_data: Data) -> None:
    """The peer's temperature moves towards ours when it is fitted again and again from where it stopped."""
    data = one_data.change(weight=lambda W: 8 * W, bias=lambda b: 8 * b)
    temperature = TemperatureScaled(MSP()).fit(data.train, data.y.numpy()).temperature_
    detector = peers.TemperatureScaling(None)
    first, *_, last = (detector.fit_logits(data.train.logits.double(), data.y).t.item() for _ in range(10))
    assert abs(first - temperature) > 0.2
    assert abs(last - temperature) < abs(first - temperature) / 2
    assert loss_of(data, temperature) < loss_of(data, last) < loss_of(data, first)
    assert loss_of(data, temperature) < min(loss_of(data, 0.999 * temperature), loss_of(data, 1.001 * temperature))


def test_learned_temperature_of_an_unsure_head(one_data: Data) -> None:
    """The best T is far below 1: the peer's steps pass 0 and end below it, which turns the ranking round."""
    temperature = TemperatureScaled(MSP()).fit(one_data.train, one_data.y.numpy()).temperature_
    theirs = peers.TemperatureScaling(None).fit_logits(one_data.train.logits.double(), one_data.y).t.item()
    assert 0 < temperature < 0.5
    assert loss_of(one_data, temperature) < loss_of(one_data, theirs) / 2


# -------------------------------------------------------------------------- where the same definition leaves room


def mahalanobis_of_a_dead_feature(data: Data) -> None:
    """A feature that is 0 in training.

    The pseudo-inverse leaves it out. The peer's 1e-6 on the diagonal gives it a variance of 1e-6, which overrules all
    others as soon as it is not 0.
    """
    dead = data.change(features=lambda h: h * (np.arange(C) > 0))
    alive = replace(dead, new=data.new)
    mahalanobis, theirs = ours(Mahalanobis()), peer("features", lambda d: peers.Mahalanobis(None))
    np.testing.assert_allclose(mahalanobis(alive), mahalanobis(dead), rtol=1e-6)
    np.testing.assert_allclose(
        theirs(alive) - theirs(dead), data.new.features[:, 0].double() ** 2 / 2 / 1e-6, rtol=1e-3, atol=1
    )


def vim_without_a_residual(data: Data) -> None:
    """D = C leaves no residual, and alpha is infinite: we refuse, the peer's scores are NaN."""
    with pytest.raises(ValueError, match="n_components"):
        ours(ViM(C))(data)
    assert np.isnan(peer("features", lambda d: peers.ViM(None, C, d.new.weight, d.new.bias))(data)).all()


def dice_that_drops_nothing(data: Data) -> None:
    """The share p = 0 of weights: ours keeps all, the peer drops the smallest, which is not above the threshold."""
    energy, theirs = ours(Energy())(data), peers.DICE(None, data.new.weight, data.new.bias, p=0.0)
    np.testing.assert_allclose(ours(DICE(0.0))(data), energy, rtol=1e-6)
    theirs.fit_features(data.train.features, data.y)
    assert (theirs.masked_w == 0).sum() == 1


def ash_b_of_sparse_features(data: Data) -> None:
    """Fewer activations that are not 0 than are to be left.

    The peer, as the authors' code does, raises zeros as well, whichever the search returns; ours leaves zeros, so that
    no score depends on the order of the features.
    """

    def sparse(h: Any) -> Any:
        return np.where(h > np.sort(h, axis=1)[:, [C - 6]], h, 0)  # 5 are left of 11

    order = np.arange(C)[::-1]
    plain = data.change(features=sparse)
    turned = data.change(features=lambda h: sparse(h)[:, order], weight=lambda W: W[:, order])
    scores, theirs = ours(ASH("b")), peer("pooled", lambda d: peers.ASH(None, d.map_head, "ash-b", 0.65))
    np.testing.assert_allclose(scores(turned), scores(plain), rtol=1e-6)
    assert np.abs(theirs(turned) - theirs(plain)).max() > 0.1
    # The sum is shared among 11 there, of which 6 were 0.
    shaped = peers.ASH.variants["ash-b"](plain.new.features[:, :, None, None], 0.65)
    assert ((shaped != 0).sum(dim=1) == 11).all()


def she_without_a_correct_image(data: Data) -> None:
    """No training image of class 0 is classified correctly: the peer stops, ours takes all images of the class."""
    wrong = data.change(bias=lambda b: b - 100.0 * (np.arange(K) == 0))
    with pytest.raises(ValueError, match="No correct predictions for class 0"):
        peer("features", lambda d: peers.SHE(None, d.head))(wrong)
    scorer = SHE().fit(wrong.train, wrong.y.numpy())
    np.testing.assert_allclose(scorer.patterns_[0], wrong.train.features[wrong.y == 0].double().mean(dim=0), rtol=1e-6)


def fdbd_of_equal_weights(data: Data) -> None:
    """Two classes of one weight have no boundary: the peer divides by 0, ours counts the other boundaries."""
    twins = data.change(weight=lambda W: W[[0, 0, 2, 3, 4]])
    assert np.isinf(peer("features", lambda d: peers.fDBD(None, d.head))(twins)).any()
    assert np.isfinite(ours(FDBD())(twins)).all()


def fdbd_at_the_mean(data: Data) -> None:
    """An image right at the mean, where fDBD divides by 0: the peer divides by 1e-8, ours says 0. NCI: NaN and 0."""
    around = data.change(features=lambda h: np.ones_like(h) + 2 * (np.arange(len(h)) % 2)[:, None])  # 1, 3, 1, 3, ..
    at_mean = replace(around, new=data.change(features=lambda h: np.full_like(h, 2)).new)
    assert (ours(FDBD())(at_mean) == 0).all()
    assert (ours(NCI(0))(at_mean) == 0).all()
    assert (peer("features", lambda d: peers.fDBD(None, d.head))(at_mean) < -1e4).all()
    assert np.isnan(peer("features", lambda d: peers.NCI(None, d.head))(at_mean)).all()


def rank_feat_of_one_place(data: Data) -> None:
    """All of a map of one place is its rank-1 part: the peer scores the bias alone, we refuse."""
    theirs = peer("pooled", lambda d: peers.RankFeat(None, d.map_head))(data)
    np.testing.assert_allclose(theirs, -torch.logsumexp(data.new.bias, 0), atol=1e-5)
    maps = {"feature_map": data.new.features[:, :, None, None]}
    with pytest.raises(ValueError, match="one place"):
        RankFeat().fit(data.train).score_samples(replace(data.new, activations=maps))


def features_of_zeros(data: Data) -> None:
    """The factor of SCALE and ASH-S is 0 over 0: NaN there, finite here, where the score is that of the bias."""
    zeros = data.change(features=np.zeros_like)
    bias_alone = np.full(N_NEW, float(torch.logsumexp(data.new.bias.double(), 0)))
    for scorer, make in [
        (SCALE(), lambda d: peers.SCALE(None, d.map_head)),
        (ASH("s"), lambda d: peers.ASH(None, d.map_head, "ash-s")),
    ]:
        assert np.isnan(peer("pooled", make)(zeros)).all()
        np.testing.assert_allclose(ours(scorer)(zeros), bias_alone, rtol=1e-6)


def sure_images(data: Data) -> None:
    """Margins of 30 and more between the largest logits.

    The peer's probabilities round to 1, or are clipped at 1e-7, so that nothing but rounding tells such images apart;
    ours are computed from logarithms.
    """
    margins = np.linspace(30, 60, N_NEW)
    logits = torch.from_numpy(margins[:, None] * (np.arange(K) == 0)).float()
    sure = replace(data, new=replace(data.new, logits=logits))
    for scorer, detector in [
        (MSP(), peers.MaxSoftmax(None)),
        (Entropy(), peers.Entropy(None)),
        (GEN(), peers.GEN(None)),
    ]:
        assert np.ptp(detector.predict_logits(logits).numpy()) < 1e-7
        assert (np.diff(ours(scorer)(sure)) > 0).all()


DIFFERENCES = [
    mahalanobis_of_a_dead_feature,
    vim_without_a_residual,
    dice_that_drops_nothing,
    ash_b_of_sparse_features,
    she_without_a_correct_image,
    fdbd_of_equal_weights,
    fdbd_at_the_mean,
    rank_feat_of_one_place,
    features_of_zeros,
    sure_images,
]


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.__name__)
def test_difference(difference: Callable[[Data], None], one_data: Data) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        difference(one_data)
