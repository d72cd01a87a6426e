"""How often a training, masks and scoring cross between the CPU and the device, and wait for it."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone

from skdfb import CAMMaskGenerator, Trainer
from skdfb.augmentation import BackMix
from skdfb.masks import AffinityMaskGenerator, DenseMaskGenerator, NormalizedCutMaskGenerator
from skdfb.networks import DenseClassifier
from skdfb.scorers import ASH, Energy, KernelPCA, Mahalanobis, Representation, ViM
from skdfb.testing._scorers._data import new_images, training_data
from skdfb.training import _run
from tests.detector.conftest import SIDE, make_detector, make_images, tiny_backbone
from tests.detector.test_early_checks import SHIPPED
from tests.devices.cases import SCORING, shipped_scorer
from tests.devices.pretend import Counts

DEVICE = "pretend"
X, Y = make_images(64)
MASKS = np.random.default_rng(0).integers(0, 4, (64, 16, 16)).astype(np.uint8)
# Images, their rows in the training set, and how they are zoomed.
PER_STEP = 3


def small_network(dense: bool = False) -> DenseClassifier:
    return DenseClassifier(tiny_backbone(), 3 + dense, image_size=SIDE)


def during(crossings: Counts, call: Callable[[], Any]) -> list[Counter[str]]:
    """Return uploads, downloads and waits of a call, by their places."""
    before = [Counter(counter) for counter in (crossings.uploads, crossings.downloads, crossings.waits)]
    call()
    after = (crossings.uploads, crossings.downloads, crossings.waits)
    return [now - then for now, then in zip(after, before, strict=True)]


def crossings_of_a_step(crossings: Counts, dense: bool, **changes: Any) -> tuple[dict[str, float], str]:
    """Return what crosses in one step more: of trainings with 20 and with 30 steps, the difference."""
    found = []
    for n_steps in (2, 6, 16):  # the first uploads what is kept from then on
        trainer = Trainer(max_steps=n_steps, batch_size=16, **changes)
        train = partial(trainer.train, small_network(dense), X, Y, MASKS if dense else None)
        found.append(during(crossings, partial(train, device=DEVICE, random_state=0)))
    more = [longer - shorter for shorter, longer in zip(*found[1:], strict=True)]
    names = ("uploads", "downloads", "waits")
    return {name: counter.total() / 10 for name, counter in zip(names, more, strict=True)}, repr(more)


@pytest.mark.parametrize(
    ("changes", "dense", "uploads"),
    [
        ({}, False, PER_STEP),
        ({}, True, PER_STEP + 1),  # masks
        ({"mixup": 0.1}, False, PER_STEP + 1),  # the order in which images are mixed
        ({"flip": False, "scale_range": None}, False, PER_STEP - 1),
        ({"scale_range": (0.2, 1.0)}, False, PER_STEP + 1),  # the order of the zoom factors
        ({"augmentation": BackMix()}, False, PER_STEP + 1),  # the places of the patches
        ({"augmentation": BackMix()}, True, PER_STEP + 2),
        ({"optimizer": "adamw"}, False, PER_STEP),
        ({"clip_grad_norm": 0.1}, False, PER_STEP),
        ({"precision": "bf16-mixed"}, False, PER_STEP),
    ],
)
def test_a_step(crossings: Counts, changes: dict[str, Any], dense: bool, uploads: int) -> None:
    """One upload per kind of data; nothing comes back, and nothing waits."""
    found, where = crossings_of_a_step(crossings, dense, **changes)
    assert found == {"uploads": uploads, "downloads": 0, "waits": 0}, where


def test_the_check_of_the_losses_is_the_only_wait(crossings: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_run, "_STEPS_BETWEEN_CHECKS", 10)
    waits = []
    for n_steps in (8, 10, 20, 30):
        crossings.waits.clear()
        trainer = Trainer(max_steps=n_steps, batch_size=4)
        trainer.train(small_network(), X, Y, device=DEVICE, random_state=0)
        waits.append(crossings.waits.total())
    assert np.diff(waits).tolist() == [0, 1, 1], crossings


def score(crossings: Counts, detector: Any, n_images: int) -> Counts:
    """Return what crosses when images are scored."""
    for counter in (crossings.uploads, crossings.downloads, crossings.waits):
        counter.clear()
    detector.score_samples(make_images(n_images, seed=1)[0])
    return crossings


@pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")
@pytest.mark.parametrize("name", SCORING)
def test_scoring(crossings: Counts, name: str) -> None:
    """One upload and one download per batch, whatever is scored."""
    detector = SCORING[name]().set_params(device=DEVICE, alpha=0.1, batch_size=8).fit(*make_images(120))
    score(crossings, detector, 8)  # uploads the statistics of the scorers
    few, many = ({} for _ in range(2))
    for n_batches, found in ((2, few), (12, many)):
        score(crossings, detector, 8 * n_batches)
        found |= {"uploads": crossings.uploads.total(), "downloads": crossings.downloads.total()}
        found["waits"] = crossings.waits.total()
    per_batch = {name: (many[name] - few[name]) / 10 for name in few}
    assert per_batch == {"uploads": 1, "downloads": 1, "waits": 0}, crossings
    # What does not grow with the images: the heads, and one look at each stage that networks may share.
    assert few["downloads"] <= 3
    assert few["waits"] <= 10


# They look up which classes or values occur, or decompose; the others send the class of each cluster.
WAITING = {"MaSF", "RAS", "RankFeat"}
SENDING = {"ClassGaussianMixture", "Prototypes"}
VARIANTS = {
    "ASH-p": ASH("p"),
    "ASH, maps": ASH("s", on_maps=True),
    "ASH-p, maps": ASH("p", on_maps=True),
    "ASH-b, maps": ASH("b", on_maps=True),
    "Energy at 100": Energy(temperature=100.0),
    "KernelPCA, Gaussian": KernelPCA("cosine-gaussian", n_random_features=64),
    "Mahalanobis, normalised": Mahalanobis("auto", normalize=True),
    "Mahalanobis, class-free": Mahalanobis(0.5, use_classes=False),
}


@pytest.mark.parametrize(
    "name", [*sorted(name for name in SHIPPED if hasattr(SHIPPED[name], "score_on_device")), *VARIANTS]
)
def test_a_scorer(crossings: Counts, name: str) -> None:
    """After the first batch it computes on the device alone, with the CPU's scores."""
    scorer = VARIANTS[name] if name in VARIANTS else shipped_scorer(name)
    images = training_data(scorer)
    scorer.fit(*images)
    there = new_images(scorer).to(DEVICE)
    first = scorer.score_on_device(there)
    np.testing.assert_array_equal(first.cpu(), scorer.score_samples(new_images(scorer)))
    for counter in (crossings.uploads, crossings.downloads, crossings.waits):
        counter.clear()
    again = scorer.score_on_device(there)
    assert torch.equal(again.cpu(), first.cpu())
    if name not in WAITING:
        n_uploads = 2 if name in SENDING else 0  # there are two batches
        assert (crossings.uploads.total(), crossings.waits.total()) == (n_uploads, 0), crossings


def test_no_images(crossings: Counts) -> None:
    scorer = ViM().fit(*training_data(ViM()))
    assert scorer.score_on_device(new_images(scorer).to(DEVICE)[:0]).device.type == DEVICE


@pytest.mark.parametrize(("found", "message"), [(np.zeros, "ndarray"), (torch.zeros, "tensor on cpu")])
def test_a_scorer_that_answers_elsewhere_is_named(crossings: Counts, found: Any, message: str) -> None:
    class Elsewhere:
        fit = Energy().fit

        def score_samples(self, representation: Representation) -> Any:
            return np.arange(len(representation))

        def score_on_device(self, representation: Representation) -> Any:
            return found(len(representation))

    detector = make_detector(scorer=Elsewhere(), device=DEVICE, alpha=0.1).fit(X, Y)
    with pytest.raises(TypeError, match=f"'foreground': score_on_device returned a {message}: expected a tensor on"):
        detector.score_samples(X)


MASKS_OF: dict[str, tuple[Any, list[int]]] = {
    # Images and their classes; masks come back.
    "CAM": (CAMMaskGenerator, [2, 1, 0]),
    # It waits to see whether all numbers are finite.
    "normalised cut": (NormalizedCutMaskGenerator, [2, 1, 1]),
    # The maps come back, and are sent again with the images, whose colours refine them.
    "affinity": (lambda network, **options: AffinityMaskGenerator(CAMMaskGenerator(network), **options), [5, 2, 0]),
    # It waits to see in which images all pixels, or none, are foreground.
    "dense": (partial(DenseMaskGenerator, dense_trainer=Trainer(max_steps=1)), [2, 1, 1]),
}


@pytest.mark.parametrize("name", MASKS_OF)
def test_masks(crossings: Counts, name: str) -> None:
    make, expected = MASKS_OF[name]
    found = []
    for n_batches in (1, 2, 12):
        images, labels = make_images(8 * n_batches)
        generator = make(small_network(), device=DEVICE, batch_size=8).fit(images, labels)
        if name == "dense":  # after a single step it would fail in each batch
            generator._network_maps = lambda inputs, targets, **_: (inputs.mean(1).sigmoid(), targets)
        found.append(during(crossings, partial(generator.transform, images, labels)))
    per_batch = [(many - few).total() / 10 for few, many in zip(*found[1:], strict=True)]
    assert per_batch == expected, found[-1]


@pytest.mark.parametrize("method", ["iter_scores", "explain"])
def test_scores_with_classes(crossings: Counts, method: str) -> None:
    """The logits of the classes are a second copy."""
    detector = make_detector(device=DEVICE, alpha=0.1, batch_size=8).fit(*make_images(120))
    list(detector.iter_scores(make_images(8)[0]))
    found = []
    for n_batches in (2, 12):
        images = make_images(8 * n_batches, seed=1)[0]
        found.append(during(crossings, lambda images=images: list(getattr(detector, method)(images))))  # type: ignore[misc]
    assert [(many - few).total() / 10 for few, many in zip(*found, strict=True)] == [1, 2, 0], crossings


def test_nothing_is_left_on_the_device(crossings: Counts) -> None:
    """Results are arrays; parameters of a fitted scorer are on the CPU."""
    detector = clone(make_detector()).set_params(device=DEVICE).fit(X, Y)
    assert isinstance(detector.score_samples(X), np.ndarray)
    for _, _, scorer in detector.joint_score_.parts:
        tensors = [value for value in vars(scorer).values() if isinstance(value, torch.Tensor)]
        assert all(tensor.device.type == "cpu" for tensor in tensors)
