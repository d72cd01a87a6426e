"""Whatever mode of torch the caller is in: results are the same, and the modes are as before, also after an error."""

import contextlib
import warnings

import numpy as np
import pytest
import torch

import skdfb
from skdfb import Trainer
from skdfb.detector import FeatureDetector
from skdfb.evaluation import class_accuracy, compare_scorers, evaluate
from skdfb.masks import AffinityMaskGenerator, CAMMaskGenerator, DenseMaskGenerator, NormalizedCutMaskGenerator
from skdfb.networks import DenseClassifier, attention_maps, refine_by_affinity
from skdfb.scorers import KNN, MSP, ODIN, Energy, Mahalanobis, Representation, ScorerEnsemble, ViM
from skdfb.scoring import JointScore
from tests.detector.conftest import make_detector, make_images, tiny_backbone
from tests.helpers import TinyBackbone

SCORERS = ViM(), Energy(), MSP(), KNN(n_neighbors=3), Mahalanobis(), ScorerEnsemble([ViM(), MSP()], random_state=0)
BACKBONE = tiny_backbone()  # built before a mode begins
INPUTS = torch.linspace(-1, 1, 3 * 768).view(3, 3, 16, 16)
TRAINER = Trainer(max_steps=2, batch_size=16)


@contextlib.contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def default_device():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def rounded_factors():
    """By the newer of torch's two ways to say so; reading it by the older way is an error."""
    torch.backends.fp32_precision = "tf32"
    try:
        yield
    finally:
        torch.backends.fp32_precision = "none"


def autocast_of_a_gpu():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is off where there is no GPU
        return torch.autocast("cuda", dtype=torch.float16)


MODES = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "autocast of a GPU": autocast_of_a_gpu,
    "inference mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "gradients": torch.enable_grad,
    "default dtype": default_dtype,
    "default device": default_device,
    "device as a context": lambda: torch.device("meta"),
    "deterministic": deterministic,
    "rounded factors": rounded_factors,
}

X, Y = make_images(48)
X_NEW, Y_NEW = make_images(12, seed=1)
ROWS = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32) + np.eye(6, dtype=np.float32)[np.arange(60) % 3]
CLASSES = np.arange(60) % 3
PARTS = [("foreground", "dense", ViM()), ("odin", "classifier", ODIN()), ("masf", "background", Energy()),
         ("layer", "dense.second", Mahalanobis(shrinkage="auto"))]  # fmt: skip


def detector(**changes):
    return make_detector(
        backbone=BACKBONE, classifier_trainer=TRAINER, dense_trainer=TRAINER, fusion=None, **{"alpha": 0.3} | changes
    )


@pytest.fixture(scope="module")
def fitted():
    return detector(scorer=ViM()).fit(X, Y)


@pytest.fixture(scope="module")
def network(fitted):
    return fitted.classifier_


def options(network):
    return {"input_sizes": [16, 24], "flip": True, "sigma": 1.0, "output_size": (16, 16)}


def representation(dtype=np.float32):
    return Representation.from_numpy(
        features=ROWS.astype(dtype), weight=np.eye(3, 6, dtype=dtype), bias=np.zeros(3, dtype=dtype)
    )


def weights_of(network: DenseClassifier):
    return list(network.state_dict().values())


def trained():
    network = DenseClassifier(tiny_backbone(), 3, image_size=16)
    with torch.no_grad():
        network.head.weight.copy_(torch.linspace(-0.1, 0.1, network.head.weight.numel()).view_as(network.head.weight))
        network.head.bias.zero_()
    return network


class Training:
    """A network that is built before the mode begins."""

    def __call__(self, fitted):
        network = trained()
        return lambda: (Trainer(max_steps=2, batch_size=8).train(network, X, Y, random_state=0), weights_of(network))


def scored(scorer):
    data = representation()
    return scorer.fit(data, CLASSES).score_samples(data)


def joint_scores():
    views = {"dense": representation()}
    joint = JointScore([("a", "dense", ViM()), ("b", "dense", KNN(n_neighbors=3))], alpha=0.2)
    joint.fit(views, CLASSES, held_out=(views, CLASSES))
    return (
        joint.offset_,
        joint.score_samples(views),
        joint.score_parts(views),
        joint.p_values(joint.score_samples(views)),
    )


def masks(generator):
    generator = generator.fit(X, Y)
    return generator.transform(X_NEW), generator.attention_maps(X_NEW), generator.classify(X_NEW)


# Each takes the fitted detector and returns a function, which is called in the mode.
CALLS = {
    **{
        name: lambda fitted, name=name: lambda: getattr(fitted, name)(X_NEW)
        for name in (
            "score_samples", "score_parts", "score_foreground", "score_background", "score_and_classify", "predict",
            "decision_function", "p_values", "predict_proba", "classify", "segment", "transform", "predict_open_set",
        )
    },
    "score": lambda fitted: lambda: fitted.score(X_NEW, Y_NEW),
    "represent": lambda fitted: lambda: [
        (part.features, part.logits)
        for part in fitted.represent(X_NEW, ["dense", "background", "dense.second"]).values()
    ],
    "represent, then a scorer": lambda fitted: lambda: Energy().fit(
        view := fitted.represent(X_NEW)["dense"]
    ).score_samples(view),
    "refit_scorer": lambda fitted: lambda: fitted.refit_scorer(Energy()).score_samples(X_NEW),
    "refit_scorer on images": lambda fitted: lambda: fitted.refit_scorer(PARTS, X, Y).score_samples(X_NEW),
    "represent_training_images": lambda fitted: lambda: [
        part.features
        for views, _ in fitted.represent_training_images(X, Y, JointScore(PARTS[:1] + PARTS[3:]))
        for part in views.values()
    ],
    "with_alpha": lambda fitted: lambda: fitted.with_alpha(0.4).predict(X_NEW),
    "fit": lambda fitted: lambda: (lambda new: (new.score_samples(X_NEW), weights_of(new.dense_network_)))(
        detector(scorer=ViM()).fit(X, Y)
    ),
    "save and load": lambda fitted: lambda: saved_and_loaded(fitted).score_samples(X_NEW),
    "FeatureDetector": lambda fitted: lambda: (lambda rows: (
        rows.score_samples(ROWS), rows.predict_proba(ROWS), rows.predict(ROWS), rows.p_values(ROWS), rows.weight_,
    ))(FeatureDetector(alpha=0.2, random_state=0).fit(ROWS, CLASSES)),
    "cam": lambda fitted: lambda: masks(
        CAMMaskGenerator(BACKBONE, image_size=16, trainer=TRAINER, random_state=0, device="cpu")
    ),
    "cam, fit_transform": lambda fitted: lambda: CAMMaskGenerator(fitted.classifier_, device="cpu").fit_transform(X, Y),
    "dense masks": lambda fitted: lambda: masks(
        DenseMaskGenerator(fitted.classifier_, dense_trainer=TRAINER, random_state=0, device="cpu")
    ),
    "affinity masks": lambda fitted: lambda: masks(
        AffinityMaskGenerator(CAMMaskGenerator(fitted.classifier_), device="cpu")
    ),
    "normalized cut": lambda fitted: lambda: masks(NormalizedCutMaskGenerator(BACKBONE, device="cpu")),
    **{
        f"scorer {scorer!r}": lambda fitted, scorer=scorer: lambda: scored(scorer)
        for scorer in SCORERS
    },
    "JointScore": lambda fitted: joint_scores,
    "Trainer": Training(),
    "attention_maps": lambda fitted: lambda: attention_maps(
        fitted.classifier_, INPUTS, None, **options(fitted)
    ),
    "refine_by_affinity": lambda fitted: lambda: refine_by_affinity(
        INPUTS[:, 0], INPUTS.cos(), dilations=(1, 2), n_iterations=3
    ),
    "evaluate": lambda fitted: lambda: evaluate(
        fitted, X_NEW, {"new": 255 - X_NEW}, n_bootstrap=10, random_state=0
    ).auroc,
    "compare_scorers": lambda fitted: lambda: compare_scorers(
        fitted, X_NEW, {"new": 255 - X_NEW}, X=X, y=Y, scorers=[Energy()]
    ).auroc,
    "class_accuracy": lambda fitted: lambda: list(class_accuracy(fitted, X_NEW, Y_NEW).values()),
}  # fmt: skip


def saved_and_loaded(fitted):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        skdfb.save(fitted, Path(folder) / "model")
        return skdfb.load(Path(folder) / "model", customs=[TinyBackbone])


def modes_now():
    return (
        torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda"), torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(), torch.get_default_dtype(), torch.get_default_device(),
        torch.are_deterministic_algorithms_enabled(), len(torch.overrides._get_current_function_mode_stack()),
    )  # fmt: skip


def numbers(result):
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, tuple | list):
        return [number for part in result for number in numbers(part)]
    return [result.detach().numpy() if isinstance(result, torch.Tensor) else np.asarray(result)]


@pytest.fixture(scope="module")
def plain(fitted):
    """The results without modes, each computed once."""
    known = {}
    return lambda call: known[call] if call in known else known.setdefault(call, numbers(CALLS[call](fitted)()))


@pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")
@pytest.mark.parametrize("call", CALLS)
def test_results_do_not_depend_on_the_mode(call, fitted, plain):
    expected, differing = plain(call), []
    for mode, context in MODES.items():
        compute = CALLS[call](fitted)
        with context():
            before = modes_now()
            found = numbers(compute())
            assert modes_now() == before, mode
        for one, other in zip(found, expected, strict=True):
            if one.dtype != other.dtype or not np.allclose(one, other, rtol=1e-6, atol=1e-6):
                differing.append(mode)
    assert not differing


@pytest.mark.parametrize("mode", MODES)
def test_modes_are_restored_after_an_error(mode, fitted):
    bad = [None, "nowhere.png"]
    calls = [
        lambda: fitted.score_samples(bad), lambda: fitted.segment(bad), lambda: detector().fit(X, Y[:-1]),
        lambda: CAMMaskGenerator(BACKBONE).fit(X, Y[:-1]), lambda: ViM().fit(representation(), None).fit(None),
        lambda: fitted.refit_scorer(Energy(), X[:-1]),
    ]  # fmt: skip
    for call in calls:
        with MODES[mode]():
            before = modes_now()
            with pytest.raises((ValueError, TypeError, OSError)):
                call()
            assert modes_now() == before
