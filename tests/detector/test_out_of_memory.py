"""A device whose memory is too short for a batch: smaller ones, the same result, one warning."""

import copy
import warnings
from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

import skdfb
from skdfb import CAMMaskGenerator, Trainer
from skdfb.augmentation import BackMix
from skdfb.exceptions import BatchSizeWarning
from skdfb.masks import AffinityMaskGenerator, DenseMaskGenerator, NormalizedCutMaskGenerator
from skdfb.networks import DenseClassifier
from skdfb.scorers import ODIN
from skdfb.utils import shallow_copy
from tests.detector.conftest import CLASSES, SIDE, make_detector, make_images, tiny_backbone
from tests.detector.test_checkpoints import assert_same, interrupt


class FailingGradient(torch.autograd.Function):
    """Does not fit where the gradient is computed."""

    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        check(len(gradient), "gradient")
        return gradient


class Tight(nn.Module):
    """A backbone on a device that holds ``Tight.limit`` images, fewer where gradients are computed."""

    limit: ClassVar = {"forward": 10**9, "gradient": 10**9}
    failures = 0

    def __init__(self):
        super().__init__()
        self.backbone = tiny_backbone(torch.float64)

    def forward(self, images):
        check(len(images), "forward")
        return FailingGradient.apply(self.backbone(images))


def check(n_images, where):
    if n_images > Tight.limit[where]:
        Tight.failures += 1
        raise torch.OutOfMemoryError(f"no memory for {n_images} images")


@pytest.fixture
def memory(monkeypatch):
    """Set how many images fit."""
    monkeypatch.setattr(Tight, "failures", 0)

    def set_limit(forward, gradient=10**9):
        monkeypatch.setattr(Tight, "limit", {"forward": forward, "gradient": gradient})

    return set_limit


def tight_detector(**changes):
    trainer = Trainer(max_steps=6, batch_size=16, learning_rate=0.2, schedule="step", mixup=0.1)
    return make_detector(backbone=Tight(), classifier_trainer=trainer, dense_trainer=trainer, batch_size=32, **changes)


@pytest.fixture(scope="module")
def ample(X, y):
    """Fitted where all fits."""
    return tight_detector().fit(X, y)


def weights(detector):
    return torch.cat([parameter.detach().flatten() for parameter in detector.dense_network_.parameters()])


@pytest.mark.parametrize(("forward", "gradient"), [(5, 3), (1, 1), (100, 7)])
def test_fit_gives_the_same(ample, X, y, X_new, memory, forward, gradient):
    expected = ample.score_samples(X_new)
    memory(forward, gradient)
    with pytest.warns(BatchSizeWarning) as told:
        detector = tight_detector().fit(X, y)
    assert_allclose(weights(detector), weights(ample), rtol=1e-9, atol=1e-12)
    assert_allclose(detector.score_samples(X_new), expected, rtol=1e-7, atol=1e-9)
    losses = (fitted.training_history_["dense"]["loss"] for fitted in (detector, ample))
    assert_allclose(*losses, rtol=1e-6)  # the engine hands them out as float32
    for stage in ("classifier", "dense"):
        assert sum(f"the training of the {stage} stage" in str(warning.message) for warning in told) == 1
    assert len(told) <= 4  # and those of the masks and of the scores
    assert detector.batch_size_ == (32 if forward == 100 else 4 if forward == 5 else 1)


def test_attention_gives_the_same(X, y, X_new, memory):
    trainer = Trainer(max_steps=6, batch_size=16, learning_rate=0.2, schedule="step", augmentation=BackMix())
    expected = tight_detector().set_params(classifier_trainer=trainer).fit(X, y)
    memory(5, 3)
    with pytest.warns(BatchSizeWarning) as told:
        detector = tight_detector().set_params(classifier_trainer=trainer).fit(X, y)
    assert_allclose(weights(detector), weights(expected), rtol=1e-9, atol=1e-12)
    assert sum("the training of the classifier stage" in str(warning.message) for warning in told) == 1


@pytest.mark.parametrize("method", ["score_samples", "predict_proba", "segment", "transform", "p_values"])
def test_scoring_gives_the_same(ample, X_new, memory, method):
    expected = getattr(ample, method)(X_new)
    detector = shallow_copy(ample, fitted_state=True)
    memory(5)
    with pytest.warns(BatchSizeWarning, match="32 images do not fit .*a forward pass took 3 at a time") as told:
        found = getattr(detector, method)(X_new)  # of 24 images 12, 6 and 3 at a time
    assert len(told) == 1
    assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


def test_what_was_found_is_kept(ample, X_new, memory, tmp_path):
    detector = shallow_copy(ample, fitted_state=True)
    memory(5)
    with pytest.warns(BatchSizeWarning):
        detector.predict(X_new)
    assert (detector.batch_size_, detector.batch_size) == (3, 32)
    tried = Tight.failures
    detector.predict(X_new)
    detector.save(tmp_path / "model")
    loaded = skdfb.load(tmp_path / "model", customs=[Tight])
    loaded.predict(X_new)
    assert Tight.failures == tried
    memory(100)
    loaded.set_params(batch_size=24).predict(X_new)  # asked for anew, as on a larger device
    assert loaded.batch_size_ == 24


def test_perturbed_images(ample, X, y, X_new, memory):
    """ODIN's gradient takes more memory than the pass before it."""
    detector = ample.refit_scorer(ODIN(), X, y)
    expected = detector.score_samples(X_new)
    memory(100, 4)
    with pytest.warns(BatchSizeWarning):
        assert_allclose(detector.score_samples(X_new), expected, rtol=1e-7, atol=1e-9)


def test_without_labels(X, memory):
    memory(9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BatchSizeWarning)
        assert tight_detector().fit(X).batch_size_ == 8


def test_affinity_searches_once(X, y, memory):
    """Neither the generator inside it nor the refinement begins anew with each batch."""
    network = DenseClassifier(Tight(), CLASSES, image_size=SIDE)
    generator = AffinityMaskGenerator(CAMMaskGenerator(network, device="cpu"), batch_size=16, device="cpu").fit(X, y)
    memory(5)
    with pytest.warns(BatchSizeWarning) as told:
        generator.attention_maps(X, y)
    assert len(told) == 1
    assert Tight.failures == 2  # 16 and 8 images


@pytest.mark.parametrize(
    "generator", [CAMMaskGenerator, DenseMaskGenerator, AffinityMaskGenerator, NormalizedCutMaskGenerator]
)
def test_masks_are_the_same(X, y, memory, generator):
    def made():
        network = DenseClassifier(Tight(), CLASSES, image_size=SIDE)
        with torch.no_grad():
            network.head.weight.copy_(torch.linspace(-1, 1, network.head.weight.numel()).view_as(network.head.weight))
        if generator is AffinityMaskGenerator:
            return generator(CAMMaskGenerator(network, device="cpu"), device="cpu")
        if generator is NormalizedCutMaskGenerator:
            return generator(network, device="cpu")
        few = {"dense_trainer": Trainer(max_steps=2)} if generator is DenseMaskGenerator else {}
        return generator(network, device="cpu", random_state=0, **few)

    expected = made().fit_transform(X, y)
    memory(5, 2)
    with pytest.warns(BatchSizeWarning):
        found = made().fit_transform(X, y)
    assert np.mean(found != expected) < 1e-3  # a pixel at the threshold may fall to either side


def test_one_image_that_does_not_fit(ample, X_new, memory):
    memory(0)
    with pytest.raises(torch.OutOfMemoryError, match="no memory for 1 images") as raised:
        shallow_copy(ample, fitted_state=True).predict(X_new)
    assert "lower image_size" in raised.value.__notes__[0]


def test_a_fit_that_does_not_fit(X, y, memory):
    memory(100, 0)
    detector = tight_detector()
    before = copy.deepcopy(vars(detector))
    with pytest.raises(torch.OutOfMemoryError, match="no memory for 1 images"):
        detector.fit(X, y)
    assert vars(detector).keys() == before.keys()


def test_other_errors_are_not_taken_for_it(ample, X_new, monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Tight, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        shallow_copy(ample, fitted_state=True).predict(X_new)


class Normalised(Tight):
    """Whether it fits is found out when its batch statistics have been changed."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(8, dtype=torch.float64)

    def forward(self, images):
        maps = self.norm(self.backbone(images))
        check(len(images), "forward")
        return FailingGradient.apply(maps)


def test_batch_normalisation_is_told_of(memory):
    X, y = make_images()
    network = DenseClassifier(Normalised(), CLASSES, image_size=SIDE)
    memory(100, 4)
    with pytest.warns(BatchSizeWarning, match="16 images .*took 4 at a time.*but batch normalisation used smaller"):
        Trainer(max_steps=2, batch_size=16).train(network, X, y, device="cpu", random_state=0)
    # Attempts that failed leave no trace: two steps of four pieces.
    assert network.feature_map.backbone.norm.num_batches_tracked == 8


def test_goes_on_as_it_was_after_a_crash(memory, tmp_path, monkeypatch):
    """With the size of the pieces that it had found; batch statistics would tell."""
    X, y = make_images()
    trainer = Trainer(max_steps=6, batch_size=16, learning_rate=0.1, checkpoint_every=2)
    trainers = {"classifier_trainer": trainer, "dense_trainer": trainer}
    memory(100, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BatchSizeWarning)
        whole = make_detector(backbone=Normalised(), **trainers).fit(X, y)
        folder = {"checkpoint_dir": tmp_path}
        with monkeypatch.context() as patched:
            interrupt(patched, 5)
            with pytest.raises(KeyboardInterrupt):
                make_detector(backbone=Normalised(), **trainers, **folder).fit(X, y)
        resumed = make_detector(backbone=Normalised(), **trainers, **folder).fit(X, y)
    assert_same(resumed, whole)


def test_a_size_that_does_not_fit_is_not_a_size_that_is_refused(memory):
    network = DenseClassifier(Tight(), CLASSES, image_size=SIDE)
    memory(0)
    with pytest.raises(torch.OutOfMemoryError):
        network.accepts_size(SIDE)
