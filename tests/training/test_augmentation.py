"""How a trainer calls an augmentation: the batches that it passes, and the checks of the returned ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from skdfb import Trainer
from skdfb.augmentation import AttentionBank, BackMix, Batch
from skdfb.networks import DenseClassifier
from skdfb.training import _run
from skdfb.training._sampling import shuffled_batches
from skdfb.training._settings import resolved_mixup
from skdfb.utils import spawn_seeds
from tests.helpers import TinyBackbone
from tests.training.problems import N_CLASSES, PLAIN, SIZE, easy_problem, equal, tiny_network, train, weights_of

SHORT = {"max_steps": 4, "batch_size": 16}


class Recorder:
    """An augmentation that changes nothing and keeps the batches."""

    def __init__(self):
        self.batches = []

    def augment(self, batch, generator):
        self.batches.append(batch)
        return batch


class AttentiveRecorder(Recorder):
    """A recorder that also uses attention maps and keeps its bank."""

    def __init__(self, map_size=4, momentum=1.0):
        super().__init__()
        self.map_size, self.momentum, self.banks = map_size, momentum, []

    def attention_bank(self, n_images):
        self.banks.append(AttentionBank(n_images, self.map_size, self.momentum))
        return self.banks[-1]


class Normalised(nn.Module):
    """A backbone whose batch statistics change in each forward pass in training mode."""

    def __init__(self):
        super().__init__()
        self.backbone, self.norm = TinyBackbone(), nn.BatchNorm2d(8)

    def forward(self, images):
        return self.norm(self.backbone(images))


def network_with_head(backbone=TinyBackbone, **options):
    """A network whose attention maps differ between the classes before any training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = DenseClassifier(backbone(**options), N_CLASSES, image_size=SIZE)
        nn.init.normal_(network.head.weight)
    return network


def train_with(augmentation, network=None, *, dense=False, images=None, **parameters):
    network = network or network_with_head()
    own, labels, masks = easy_problem()
    trainer = Trainer(**SHORT | PLAIN | {"augmentation": augmentation} | parameters)
    history = trainer.train(
        network, own if images is None else images, labels, masks if dense else None, device="cpu", random_state=0
    )
    return network, history


def expected_attention(network, images, labels):
    """Class activation maps in NumPy; images are normalised."""
    with torch.no_grad():
        features = network.feature_map(images).numpy()  # (n, C, h, w)
    weight, maps = network.head.weight.detach().numpy(), []
    for feature_map, label in zip(features, labels, strict=True):
        attention = np.maximum(sum(weight[label, c] * feature_map[c] for c in range(len(feature_map))), 0)
        spread = attention.max() - attention.min()
        maps.append((attention - attention.min()) / spread if spread else np.zeros_like(attention))
    return np.array(maps)


def first_indices():
    (seed,) = spawn_seeds(0, 1)
    return next(shuffled_batches(60, 16, 0, 1, seed))


# ------------------------------------------------------------ attention maps


@pytest.mark.parametrize("momentum", [1.0, 0.25])
def test_attention_is_that_of_the_network_before_the_step(momentum):
    recorder = AttentiveRecorder(momentum=momentum)
    network = network_with_head()
    untrained = network_with_head().eval()
    train_with(recorder, network)
    _, labels, _ = easy_problem()
    first = recorder.batches[0]
    expected = expected_attention(untrained, first.images, labels[first_indices()])
    expected = (1 - momentum) * 0.5 + momentum * expected
    np.testing.assert_allclose(first.attention_maps.numpy(), expected, atol=1e-5)
    (bank,) = recorder.banks
    assert bank.maps.shape == (60, 4, 4)
    updated = (bank.maps != 0.5).flatten(1).any(1)
    assert (
        48 <= updated.sum() < 60
    )  # an epoch has three batches and leaves out twelve images; the fourth batch has some of them
    later = recorder.batches[3]
    rows = [int((bank.maps == one).flatten(1).all(1).nonzero()[0, 0]) for one in later.attention_maps]
    assert len(set(rows)) == 16


def test_attention_is_learned_from_images_as_they_are():
    """Images are read larger for scaling, but attention maps are computed at the input size, before augmentation."""
    images = np.kron(easy_problem()[0], np.ones((1, 2, 2, 1), dtype=np.uint8))
    recorder = AttentiveRecorder()
    untrained = network_with_head().eval()
    train_with(recorder, images=images, scale_range=(1.0, 2.0), flip=True, mixup=0.5)
    first = recorder.batches[0]
    assert first.images.shape[-1] == 2 * SIZE
    smaller = torch.nn.functional.interpolate(first.images, (SIZE, SIZE), mode="bilinear", antialias=True)
    expected = expected_attention(untrained, smaller, easy_problem()[1][first_indices()])
    np.testing.assert_allclose(first.attention_maps.numpy(), expected, atol=1e-4)


def test_attention_maps_do_not_change_the_training():
    without, history = train_with(Recorder(), network_with_head(Normalised))
    with_maps, other_history = train_with(AttentiveRecorder(), network_with_head(Normalised))
    assert equal(weights_of(without), weights_of(with_maps))  # including batch statistics
    assert history == other_history
    plain, _ = train_with(None, network_with_head(Normalised))
    assert equal(weights_of(without), weights_of(plain))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_networks_of_other_precision(dtype):
    recorder = AttentiveRecorder()
    train_with(recorder, network_with_head(dtype=dtype))
    assert recorder.banks[0].maps.dtype == torch.float32
    assert torch.isfinite(recorder.banks[0].maps).all()


def test_mixed_precision():
    train_with(recorder := AttentiveRecorder(), precision="bf16-mixed")
    exact = AttentiveRecorder()
    train_with(exact)
    assert torch.allclose(recorder.batches[0].attention_maps, exact.batches[0].attention_maps, atol=0.1)


def test_the_dense_stage_hands_over_masks():
    recorder = AttentiveRecorder()
    train_with(recorder, tiny_network(N_CLASSES + 1), dense=True)
    assert recorder.banks == []
    assert all(batch.attention_maps is None and batch.masks is not None for batch in recorder.batches)


# ------------------------------------------------------------------ donors


class WithDonors(AttentiveRecorder):
    """A recorder that asks for donors."""

    needs_donors = True


def places_of(batch):
    """Places of a batch's images in the training set."""
    network = tiny_network()
    pixels = network.preprocessor(torch.from_numpy(easy_problem()[0]).movedim(-1, 1))
    return (batch.images[:, None] == pixels).flatten(2).all(2).int().argmax(1)


def test_donors_are_drawn_from_the_whole_set():
    train_with(recorder := WithDonors(), max_steps=30)
    plain = AttentiveRecorder()
    train_with(plain, max_steps=30)
    labels, drawn = torch.from_numpy(easy_problem()[1]), []
    for batch, other in zip(recorder.batches, plain.batches, strict=True):
        assert torch.equal(batch.images, other.images)  # the batches stay as they are without donors
        donors = batch.donors
        assert (donors.images.shape, donors.donors, donors.masks) == (batch.images.shape, None, None)
        places = places_of(donors)
        assert torch.equal(donors.targets.argmax(1), labels[places])
        drawn.append(places)
    # 480 independent draws from 60 images: each image about 8 times, with repetitions inside a batch.
    counts = torch.bincount(torch.cat(drawn), minlength=60)
    assert len(counts) == 60
    assert 0.5 < counts.double().var() / 8 < 1.6
    assert any(len(set(places.tolist())) < 16 for places in drawn)
    assert len({tuple(places.tolist()) for places in drawn}) == 30


def test_donors_have_the_attention_maps_of_their_last_step():
    train_with(recorder := WithDonors(momentum=1.0))
    last = torch.full((60, 4, 4), 0.5)
    for batch in recorder.batches:
        last[places_of(batch)] = batch.attention_maps
        assert torch.equal(batch.donors.attention_maps, last[places_of(batch.donors)])


def test_donors_of_the_dense_stage_have_masks():
    train_with(recorder := WithDonors(), tiny_network(N_CLASSES + 1), dense=True)
    masks = torch.from_numpy(easy_problem()[2]).long()
    for batch in recorder.batches:
        assert torch.equal(batch.donors.masks, masks[places_of(batch.donors)])
        assert batch.donors.attention_maps is None


def test_donors_are_read_lazily(tmp_path, monkeypatch):
    """At most two images for each image of a batch are read at a time, also from files."""
    paths = []
    for index, image in enumerate(easy_problem()[0]):
        Image.fromarray(image).save(path := tmp_path / f"{index:02}.png")
        paths.append(path)
    sizes, read = [], _run.read_batches

    def watched(images, batches, *args, **options):
        for indices, pixels in read(images, batches, *args, **options):
            sizes.append(len(pixels))
            yield indices, pixels

    monkeypatch.setattr(_run, "read_batches", watched)
    train_with(recorder := WithDonors(), images=paths, max_steps=4)
    train_with(again := WithDonors(), max_steps=4)
    for batch, other in zip(recorder.batches, again.batches, strict=True):
        assert torch.equal(batch.donors.images, other.donors.images)
    assert set(sizes) == {32}


# --------------------------------------------------------------- the order


@pytest.mark.parametrize("mixup", ["auto", 0.2, None])
def test_the_order_of_augmentations(monkeypatch, mixup):
    """As in the authors' code of BackMix: patches first, then scaling and mirrors. Mixup comes last, where it is on."""
    calls = []

    class First(BackMix):
        def augment(self, batch, generator):
            calls.append("augmentation")
            assert len({tuple(batch.images.shape[-2:]), (SIZE, SIZE)}) == 1
            return super().augment(batch, generator)

    for name in ("zoom_and_flip", "mixup"):
        function = getattr(_run, name)
        monkeypatch.setattr(
            _run, name, lambda batch, *args, name=name, f=function: calls.append(name) or f(batch, *args)
        )
    train_with(First(donors="training set"), max_steps=1, mixup=mixup, flip=True)
    # "auto" is off beside BackMix; numbers count.
    assert calls == ["augmentation", "zoom_and_flip"] + ["mixup"] * (mixup == 0.2)


@pytest.mark.parametrize(
    ("augmentation", "mixup", "expected"),
    [
        (BackMix(), "auto", 0.0),
        (BackMix(), 0.3, 0.3),
        (BackMix(), None, 0.0),
        (None, "auto", 0.1),
        (Recorder(), "auto", 0.1),
    ],
)
def test_mixup_beside_back_mix(augmentation, mixup, expected):
    trainer = Trainer(augmentation=augmentation, mixup=mixup)
    assert resolved_mixup(trainer, dense=False, n_images=20_000) == expected
    assert resolved_mixup(trainer, dense=True, n_images=20_000) == 0.0


def test_small_sets_are_not_mixed():
    assert resolved_mixup(Trainer(), dense=False, n_images=19_999) == 0.0
    assert resolved_mixup(Trainer(mixup=0.2), dense=False, n_images=19_999) == 0.2


# -------------------------------------------------------- returned batches


def test_the_returned_batch_is_used_for_training():
    class Black:
        def augment(self, batch, generator):
            return replace(batch, images=torch.zeros_like(batch.images), targets=torch.ones_like(batch.targets) / 3)

    network, history = train_with(Black(), tiny_network())
    assert history["loss"] == pytest.approx([np.log(3)] * 4)  # nothing to learn
    assert float(network.head.weight.detach().abs().max()) < 1e-6


def test_its_random_numbers_follow_from_seed_and_step():
    class Drawing(Recorder):
        def augment(self, batch, generator):
            self.batches.append(torch.rand(2, generator=generator))
            return batch

    first, again = Drawing(), Drawing()
    for drawing in (first, again):
        train_with(drawing)
    assert torch.equal(torch.stack(first.batches), torch.stack(again.batches))
    assert len({float(drawn[0]) for drawn in first.batches}) == 4


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda batch: batch.images, r"augmentation returned a Tensor: expected a Batch of images \(16, 3, ...\)"),
        (
            lambda batch: batch[:7],
            r"a Batch of images \(7, 3, ...\) .*: expected a Batch of images \(16, 3, ...\)",
        ),
        (
            lambda batch: replace(batch, images=batch.images[:, :1]),
            r"images \(16, 1, ...\) .* images and channels",
        ),
        (lambda batch: replace(batch, images=batch.images.double()), r"of torch.float64 .* of torch.float32"),
        (lambda batch: replace(batch, targets=batch.targets.argmax(1)), r"targets \(16,\) of torch.int64"),
        (lambda batch: replace(batch, masks=None), r"and no masks: expected .* and masks \(16, ...\)"),
    ],
)
def test_a_batch_of_another_form_is_refused(returned, message):
    class Wrong:
        def augment(self, batch, generator):
            return returned(batch)

    with pytest.raises(ValueError, match=message):
        train_with(Wrong(), tiny_network(N_CLASSES + 1), dense=True)


@pytest.mark.parametrize("bank", [None, AttentionBank(7)])
def test_a_bank_of_another_form_is_refused(bank):
    class Wrong(Recorder):
        def attention_bank(self, n_images):
            return bank

    with pytest.raises(ValueError, match=r"augmentation.attention_bank\(60\) returned .*: expected .* of 60"):
        train_with(Wrong())


@pytest.mark.parametrize(
    ("augmentation", "message"),
    [
        ("backmix", "mine: The 'augmentation' parameter of Trainer must be an object implementing 'augment'"),
        (BackMix(patch_size=2), "mine: The 'patch_size' parameter of BackMix must be a float in"),
        (BackMix, r"mine: augmentation is the class BackMix: expected an instance; pass BackMix\(\)"),
    ],
)
def test_it_is_checked_before_training(augmentation, message):
    with pytest.raises(ValueError, match=message):
        Trainer(augmentation=augmentation).validate("mine")


# ----------------------------------------------------------------- BackMix


@pytest.mark.parametrize("donors", ["batch", "training set"])
@pytest.mark.parametrize("dense", [False, True])
def test_back_mix_trains(dense, donors):
    trainer = Trainer(max_steps=80, batch_size=32, learning_rate=0.05, augmentation=BackMix(donors=donors))
    network, history = train(trainer, dense=dense)
    assert np.mean(history["loss"][-10:]) < 0.7 * np.mean(history["loss"][:10])
    other, other_history = train(trainer, dense=dense)
    assert equal(weights_of(network), weights_of(other))
    assert history == other_history
    plain, _ = train(Trainer(**trainer.get_params(deep=False) | {"augmentation": None}), dense=dense)
    assert not equal(weights_of(network), weights_of(plain))


def test_back_mix_in_a_grid():
    trainer = Trainer(augmentation=BackMix()).set_params(augmentation__patch_size=0.5)
    assert trainer.augmentation.patch_size == 0.5


def test_an_augmentation_gets_batches():
    train_with(recorder := Recorder())
    assert len(recorder.batches) == 4
    assert all(isinstance(batch, Batch) and batch.images.shape == (16, 3, SIZE, SIZE) for batch in recorder.batches)
    assert all(batch.attention_maps is None and batch.masks is None for batch in recorder.batches)
