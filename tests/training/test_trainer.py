"""Trainer: the changes that it makes to a network, and the things that it must not change."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.base import clone
from torch import nn

from skdfb.exceptions import TrainingDivergedError
from skdfb.networks import DenseClassifier
from skdfb.training import Trainer
from skdfb.training._sampling import shuffled_batches
from skdfb.utils import spawn_seeds
from tests.helpers import TinyBackbone
from tests.training.problems import (
    N_CLASSES,
    PLAIN,
    SIZE,
    easy_problem,
    equal,
    tiny_network,
    train,
    weights_of,
)
from tests.training.test_augmentation import AttentiveRecorder, train_with

SHORT = {"max_steps": 4, "batch_size": 16}


# ------------------------------------------------------------- learning


@pytest.mark.parametrize("dense", [False, True])
def test_an_easy_problem_is_learned(dense):
    trainer = Trainer(max_steps=80, batch_size=32, learning_rate=0.05, scale_range=(1.0, 1.2), mixup=None)
    network, history = train(trainer, dense=dense)
    assert np.mean(history["loss"][-10:]) < 0.6 * np.mean(history["loss"][:10])
    images, labels, _ = easy_problem()
    with torch.no_grad():
        inputs = network.preprocessor(torch.from_numpy(images).movedim(-1, 1))
        predicted = network(inputs)[:, :N_CLASSES].argmax(1).numpy()
    assert (predicted == labels).mean() > 0.8


def test_zero_head_starts_from_uniform_probabilities():
    _, history = train(Trainer(**SHORT))
    assert history["loss"][0] == pytest.approx(np.log(N_CLASSES), abs=1e-6)
    _, history = train(Trainer(**SHORT, classification_weight=0.5), dense=True)
    assert history["loss"][0] == pytest.approx(np.log(N_CLASSES + 1) + 0.5 * np.log(N_CLASSES), abs=1e-6)


# ------------------------------------------------- against bare PyTorch


def bare_inputs(images, indices):
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = (images[indices] / 255 - mean) / std
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2)).float()


def bare_optimizer(network, name):
    if name == "sgd":
        return torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.8, weight_decay=0.01)
    return torch.optim.AdamW(network.parameters(), lr=0.02, weight_decay=0.01)


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_updates_are_those_of_a_bare_loop(optimizer, dense, clip):
    images, labels, masks = easy_problem()
    expected = tiny_network(N_CLASSES + dense)
    optimiser = bare_optimizer(expected, optimizer)
    (seed,) = spawn_seeds(3, 1)
    losses = []
    for indices in shuffled_batches(60, 16, 0, 8, seed):
        logit_map = expected.logit_map(bare_inputs(images, indices))
        target = torch.from_numpy(labels[indices])
        loss = F.cross_entropy(logit_map.mean((2, 3))[:, :N_CLASSES], target)
        if dense:
            pixels = F.interpolate(logit_map, (SIZE, SIZE), mode="bilinear", align_corners=False)
            loss = loss + F.cross_entropy(pixels, torch.from_numpy(masks[indices].astype(np.int64)))
        optimiser.zero_grad()
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(expected.parameters(), clip)
        optimiser.step()
        losses.append(loss.item())

    trainer = Trainer(
        max_steps=8,
        batch_size=16,
        learning_rate=0.02,
        optimizer=optimizer,
        momentum=0.8,
        weight_decay=0.01,
        clip_grad_norm=clip,
        **PLAIN,
    )
    network, history = train(trainer, dense=dense, seed=3)
    np.testing.assert_allclose(history["loss"], losses, atol=1e-6)
    # AdamW divides by the size of the gradient, so rounding of a gradient near 0 matters
    tolerance = 1e-6 if optimizer == "sgd" else 1e-4
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, expected.state_dict()[name], atol=tolerance, rtol=0)


def test_gradient_clipping_has_an_effect():
    free, _ = train(Trainer(**SHORT, **PLAIN))
    clipped, _ = train(Trainer(**SHORT, **PLAIN, clip_grad_norm=1e-3))
    start = tiny_network()
    moved = [
        sum((value - start.state_dict()[name]).norm() for name, value in network.state_dict().items())
        for network in (free, clipped)
    ]
    assert moved[1] < 0.1 * moved[0]


# -------------------------------------------------------- reproducibility


@pytest.mark.parametrize("dense", [False, True])
def test_same_seed_same_weights(dense):
    trainer = Trainer(**SHORT)
    first, again, other = (weights_of(train(trainer, dense=dense, seed=seed)[0]) for seed in (0, 0, 1))
    assert equal(first, again)
    assert not equal(first, other)


class DroppingBackbone(TinyBackbone):
    def forward(self, images):
        return F.dropout(super().forward(images), 0.5, self.training)


def test_dropout_follows_the_seed_alone():
    images, labels, _ = easy_problem()
    results = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(0)
        network = DenseClassifier(DroppingBackbone(), N_CLASSES, image_size=SIZE)
        torch.manual_seed(noise)  # the caller's random state must not matter
        Trainer(**SHORT).train(network, images, labels, device="cpu", random_state=seed)
        results.append(weights_of(network))
    assert equal(results[0], results[1])
    assert not equal(results[0], results[2])


def test_random_states_are_untouched():
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002  # the test compares the global state
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    train(Trainer(**SHORT))
    with pytest.raises(TrainingDivergedError):
        train(Trainer(max_steps=20, learning_rate=1e25))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


def test_random_state_none_differs_each_time():
    first, second = (weights_of(train(Trainer(**SHORT), seed=None)[0]) for _ in range(2))
    assert not equal(first, second)


def test_trainings_of_several_precisions_are_independent():
    recipes = {
        "float32": (Trainer(**SHORT), torch.float32),
        "bf16": (Trainer(**SHORT, precision="bf16-mixed"), torch.float32),
        "float64": (Trainer(**SHORT), torch.float64),
    }
    orders = (["float32", "bf16", "float64"], ["float64", "float32", "bf16"], ["bf16", "float64", "float32"])
    results = []
    for order in orders:
        networks = {name: train(recipes[name][0], dense=True, dtype=recipes[name][1])[0] for name in order}
        results.append({name: weights_of(networks[name]) for name in recipes})
    for name in recipes:
        assert equal(results[0][name], results[1][name])
        assert equal(results[0][name], results[2][name])
    assert results[0]["bf16"]["head.weight"].dtype == torch.float32  # the weights stay
    assert results[0]["float64"]["head.weight"].dtype == torch.float64
    assert not equal(results[0]["float32"], results[0]["bf16"])
    # bfloat16 keeps 8 bits
    difference = (results[0]["bf16"]["head.weight"] - results[0]["float32"]["head.weight"]).abs().max()
    assert 0 < difference < 0.05 * results[0]["float32"]["head.weight"].abs().max()
    assert torch.get_default_dtype() == torch.float32
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_networks_of_half_precision_train_in_it(dtype):
    network, history = train(Trainer(**SHORT), dense=True, dtype=dtype)
    assert network.dtype == dtype
    assert history["loss"][0] == pytest.approx(np.log(4) + np.log(3), rel=0.01)


@pytest.mark.parametrize("dense", [False, True])
def test_readers_in_threads_change_nothing(dense):
    images, labels, masks = easy_problem()
    results = []
    for n_jobs in (None, 2):
        network = tiny_network(N_CLASSES + dense)
        Trainer(**SHORT).train(
            network, images, labels, masks if dense else None, device="cpu", random_state=0, n_jobs=n_jobs
        )
        results.append(weights_of(network))
    assert equal(*results)


# ------------------------------------------------------------------ data


def test_batch_larger_than_the_set():
    _, history = train(Trainer(max_steps=2, batch_size=128), n=10)
    whole, _ = train(Trainer(max_steps=2, batch_size=10), n=10)
    assert len(history["loss"]) == 2
    assert equal(weights_of(whole), weights_of(train(Trainer(max_steps=2, batch_size=128), n=10)[0]))


@pytest.mark.parametrize("kind", ["floats", "torch dataset", "list of arrays"])
def test_other_forms_of_images(kind):
    images, labels, _ = easy_problem(20)
    forms = {
        "floats": images.astype(np.float64) / 255,
        "torch dataset": torch.utils.data.TensorDataset(torch.from_numpy(images).movedim(-1, 1)),
        "list of arrays": [images[0, :12], *images[1:]],
    }
    network = tiny_network()
    history = Trainer(**SHORT, **PLAIN).train(network, forms[kind], labels, device="cpu", random_state=0)
    expected = Trainer(**SHORT, **PLAIN).train(tiny_network(), images, labels, device="cpu", random_state=0)
    np.testing.assert_allclose(history["loss"], expected["loss"], atol=0.1 if kind == "list of arrays" else 1e-6)


@pytest.mark.parametrize(("n_classes", "dtype"), [(255, np.uint8), (300, np.uint16), (300, np.int64)])
def test_masks_of_many_classes(n_classes, dtype):
    images, _, _ = easy_problem(8)
    labels = np.linspace(0, n_classes - 1, 8).astype(int)
    masks = np.full((8, SIZE, SIZE), n_classes, dtype=dtype)  # background, the highest index there is
    network = tiny_network(n_classes + 1)
    trainer = Trainer(max_steps=12, batch_size=8, learning_rate=0.1, classification_weight=0.0)
    history = trainer.train(network, images, labels, masks, device="cpu", random_state=0)
    assert history["loss"][0] == pytest.approx(np.log(n_classes + 1), abs=1e-4)
    with torch.no_grad():
        inputs = network.preprocessor(torch.from_numpy(images).movedim(-1, 1))
        assert (network(inputs).argmax(1) == n_classes).all()


def test_large_images_are_read_large_for_enlarging():
    """The scale of 1.25 of the classifier keeps detail that an image reduced to the input size has lost."""
    rng = np.random.default_rng(0)
    stripes = np.tile((np.arange(20) % 2 * 255).astype(np.uint8), (20, 1))  # one pixel wide at 20 pixels
    images = np.repeat(stripes[None, :, :, None], 3, -1).repeat(8, 0)
    deviations = []

    class Recording(TinyBackbone):
        def forward(self, images):
            if self.training:
                deviations.append(images.detach().std())
            return super().forward(images)

    network = DenseClassifier(Recording(), 2, image_size=SIZE)
    for scales in ((1.25, 1.25), (1.0, 1.0)):
        Trainer(max_steps=1, scale_range=scales, flip=False, mixup=None).train(
            network, images, rng.integers(0, 2, 8), device="cpu", random_state=0
        )
    assert deviations[0] > 1.5 * deviations[1]


# ------------------------------------------------------- state afterwards


@pytest.mark.parametrize("dense", [False, True])
def test_the_network_itself_is_trained_and_ends_in_evaluation_mode(dense):
    images, labels, masks = easy_problem()
    network = tiny_network(N_CLASSES + dense).train()
    before, parameters = weights_of(network), list(network.parameters())
    Trainer(**SHORT).train(network, images, labels, masks if dense else None, device="cpu", random_state=0)
    assert not equal(weights_of(network), before)
    assert all(now is then for now, then in zip(network.parameters(), parameters, strict=True))
    assert not any(module.training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_training_happens_in_training_mode():
    images, labels, _ = easy_problem()
    modes = []
    network = tiny_network().eval()
    handle = network.feature_map.register_forward_hook(lambda module, _, __: modes.append(module.training))
    Trainer(**SHORT).train(network, images, labels, device="cpu", random_state=0)
    handle.remove()
    assert modes == [True] * 4


class NormalisedBackbone(nn.Module):
    """One convolution and batch normalisation, which may be frozen as in torchvision."""

    def __init__(self, frozen):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.frozen = frozen
        self.norm.requires_grad_(not frozen)

    def train(self, mode=True):
        super().train(mode)
        if self.frozen:
            self.norm.eval()
        return self

    def forward(self, images):
        return F.relu(self.norm(self.conv(images)))


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_batch_normalisation_stays(frozen):
    images, labels, _ = easy_problem()
    network = DenseClassifier(NormalisedBackbone(frozen), N_CLASSES, image_size=SIZE)
    before = weights_of(network)
    Trainer(**SHORT, weight_decay=0.1).train(network, images, labels, device="cpu", random_state=0)
    unchanged = {name for name, value in network.state_dict().items() if torch.equal(value, before[name])}
    normal = {name for name in before if ".norm." in name}
    assert len(normal) == 5
    assert unchanged == (normal if frozen else set())


def test_frozen_weights_stay():
    images, labels, _ = easy_problem()
    network = tiny_network()
    network.feature_map.requires_grad_(False)
    before = weights_of(network)
    Trainer(**SHORT, weight_decay=0.1).train(network, images, labels, device="cpu", random_state=0)
    after = weights_of(network)
    assert all(torch.equal(before[name], after[name]) == name.startswith("feature_map") for name in before)


def normalised_network(trained):
    """Return a network of three stages; trained batch statistics count as pre-trained weights."""
    backbone = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.5)),
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
    )
    if trained:
        backbone[0][1].running_mean += 0.1
    return DenseClassifier(backbone, N_CLASSES, image_size=SIZE)


@pytest.mark.parametrize(
    ("frozen_stages", "trained", "n_frozen"), [("auto", True, 2), ("auto", False, 0), (0, True, 0), (1, False, 1)]
)
def test_frozen_stages_keep_weights_and_batch_statistics(frozen_stages, trained, n_frozen):
    images, labels, _ = easy_problem()
    network = normalised_network(trained)
    before = weights_of(network)
    trainer = Trainer(**SHORT, weight_decay=0.1, frozen_stages=frozen_stages)
    trainer.train(network, images, labels, device="cpu", random_state=0)
    stages = [f"feature_map.backbone.{stage}." for stage in range(n_frozen)]
    unchanged = {name for name, value in network.state_dict().items() if torch.equal(value, before[name])}
    assert unchanged == {name for name in before if name.startswith(tuple(stages))}


def test_the_dense_stage_keeps_the_trunk_of_the_classifier():
    images, labels, masks = easy_problem()
    network = normalised_network(trained=True)
    trainer = Trainer(**SHORT)
    trainer.train(network, images, labels, device="cpu", random_state=0)
    dense = network.with_background()
    trainer.train(dense, images, labels, masks, device="cpu", random_state=0)
    trunk = {name: value for name, value in weights_of(network).items() if ".backbone.0." in name}
    assert trunk
    assert all(torch.equal(dense.state_dict()[name], value) for name, value in trunk.items())


def test_a_trained_network_without_a_trunk_gets_none_in_the_dense_stage():
    images, labels, masks = easy_problem()
    network = normalised_network(trained=False)
    Trainer(**SHORT).train(network, images, labels, device="cpu", random_state=0)
    dense = network.with_background()
    Trainer(**SHORT).train(dense, images, labels, masks, device="cpu", random_state=0)
    assert all(weight.requires_grad for weight in dense.parameters())


def test_more_frozen_stages_than_there_are_are_refused():
    images, labels, _ = easy_problem()
    with pytest.raises(ValueError, match="frozen_stages=4, but backbone Sequential has 3 stages"):
        Trainer(**SHORT, frozen_stages=4).train(normalised_network(True), images, labels, device="cpu")


# ---------------------------------------------------------------- errors


class FailingBackbone(TinyBackbone):
    """Returns NaN or raises in the third training step."""

    def __init__(self, error=None):
        super().__init__()
        self.calls, self.error = 0, error

    def forward(self, images):
        self.calls += self.training
        if self.training and self.calls == 3:
            if self.error is not None:
                raise self.error
            return super().forward(images) * float("nan")
        return super().forward(images)


@pytest.mark.parametrize("dense", [False, True])
def test_a_loss_that_is_nan_stops_with_the_step(dense):
    images, labels, masks = easy_problem()
    network = DenseClassifier(FailingBackbone(), N_CLASSES + dense, image_size=SIZE)
    trainer = Trainer(max_steps=7, batch_size=8, learning_rate=0.25, warmup_steps=0, schedule="constant")
    stage = "dense" if dense else "classifier"
    with pytest.raises(TrainingDivergedError, match=rf"{stage} stage became nan at step 3 of 7, .* rate of 0\.25;"):
        trainer.train(network, images, labels, masks if dense else None, device="cpu", random_state=0)
    assert not any(module.training for module in network.modules())


def test_a_huge_learning_rate_diverges():
    with pytest.raises(TrainingDivergedError, match=r"classifier stage became .* lower learning_rate"):
        train(Trainer(max_steps=60, batch_size=8, learning_rate=1e25))


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_an_error_inside_a_step_leaves_nothing_behind(error, n_jobs):
    images, labels, _ = easy_problem()
    network = DenseClassifier(FailingBackbone(error), N_CLASSES, image_size=SIZE)
    n_threads, state = threading.active_count(), torch.get_rng_state()
    with pytest.raises(type(error)) as caught:
        Trainer(max_steps=7, batch_size=8).train(
            network, images, labels, device="cpu", random_state=0, n_jobs=n_jobs, verbose=0
        )
    # while the traceback, and with it every frame, is still alive
    assert threading.active_count() == n_threads
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    del caught


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_steps": 0}, "max_steps"),
        ({"max_epochs": 1.5}, "max_epochs"),
        ({"max_steps": 3, "max_epochs": 2}, "max_steps=3 and max_epochs=2 are both given"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"optimizer": "adam"}, "'optimizer' parameter .* Got 'adam'"),
        ({"momentum": 1.0}, "momentum"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"schedule": "linear"}, "schedule"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"scale_range": (2.0, 1.0)}, r"scale_range=\(2.0, 1.0\): expected \(low, high\) with 0 < low <= high"),
        ({"scale_range": (0.0, 1.0)}, "scale_range"),
        ({"scale_range": (1.0,)}, "scale_range"),
        ({"scale_range": ()}, "scale_range"),
        ({"scale_range": ("a", "b")}, "two numbers"),
        ({"scale_range": (1.0, float("inf"))}, "two numbers"),
        ({"scale_range": "automatic"}, "scale_range"),
        ({"flip": "yes"}, "flip"),
        ({"mixup": -0.1}, "mixup"),
        ({"classification_weight": -1}, "classification_weight"),
        ({"precision": "fp8"}, "precision"),
        ({"clip_grad_norm": 0}, "clip_grad_norm"),
    ],
)
def test_errors_of_parameters_name_the_trainer(parameters, message):
    with pytest.raises(ValueError, match=message) as caught:
        Trainer(**parameters).validate("dense_trainer")
    assert str(caught.value).startswith("dense_trainer: ")
    with pytest.raises(ValueError, match=message):  # and before any training
        train(Trainer(**parameters))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(59, dtype=int), r"y has shape \(59,\) for 60 images"),
        (np.zeros((60, 1), dtype=int), r"y has shape \(60, 1\)"),
        (np.full(60, 3), r"y has values in 3\.\.3: expected 0\.\.2"),
        (np.full(60, -1), r"y has values in -1\.\.-1"),
        (np.zeros(60), "y has dtype float64"),
        (np.full(60, "cat"), "y has dtype"),
    ],
)
def test_labels_are_checked(labels, message):
    images, _, _ = easy_problem()
    network = tiny_network()
    before = weights_of(network)
    with pytest.raises(ValueError, match=message):
        Trainer(**SHORT).train(network, images, labels, device="cpu")
    assert equal(weights_of(network), before)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (np.zeros((59, SIZE, SIZE), dtype=int), r"masks has shape \(59, 16, 16\) for 60 images: expected \(n, H, W\)"),
        (np.zeros((60, SIZE), dtype=int), "masks has shape"),
        (np.zeros((60, SIZE, 0), dtype=int), "masks has shape"),
        (np.full((60, SIZE, SIZE), 4), r"masks has values in 4\.\.4: expected 0\.\.3"),
        (np.full((60, SIZE, SIZE), -1), "masks has values"),
        (np.zeros((60, SIZE, SIZE)), "masks has dtype float64"),
    ],
)
def test_masks_are_checked(masks, message):
    images, labels, _ = easy_problem()
    with pytest.raises(ValueError, match=message):
        Trainer(**SHORT).train(tiny_network(N_CLASSES + 1), images, labels, masks, device="cpu")


# ---------------------------------------------------- a parameter object


def test_paper_recipes():
    classifier, dense = Trainer.paper_classifier(), Trainer.paper_dense()
    for trainer in (classifier, dense):
        assert trainer.optimizer == "sgd"
        assert trainer.momentum == 0.9
        assert trainer.learning_rate == 0.003
        assert trainer.batch_size == 128
        assert trainer.max_steps == 20_000
        assert trainer.warmup_steps == 500
        assert trainer.schedule == "step"
        assert trainer.weight_decay == 0
        trainer.validate()
    assert (classifier.flip, dense.flip) == (False, True)  # the paper mentions mirrored images for the dense stage only
    assert classifier.mixup == 0.1
    assert classifier.scale_range == (1.25, 1.25)  # 160 pixels, cropped to 128
    assert not dense.mixup
    assert dense.scale_range == (0.5, 2.0)
    assert dense.classification_weight == 0


def test_paper_recipes_take_changes():
    trainer = Trainer.paper_dense(max_steps=None, max_epochs=3, batch_size=16)
    assert (trainer.max_steps, trainer.max_epochs, trainer.batch_size) == (None, 3, 16)
    assert trainer.scale_range == (0.5, 2.0)
    with pytest.raises(TypeError, match="steps"):
        Trainer.paper_classifier(steps=3)


def test_auto_is_the_papers_augmentation_without_mixup():
    automatic, _ = train(Trainer(**SHORT))
    spelled, _ = train(Trainer(**SHORT, scale_range=(1.25, 1.25), mixup=None))
    assert equal(weights_of(automatic), weights_of(spelled))
    automatic, _ = train(Trainer(**SHORT), dense=True)
    spelled, _ = train(Trainer(**SHORT, scale_range=(0.5, 2.0), mixup=None), dense=True)
    assert equal(weights_of(automatic), weights_of(spelled))


def test_the_dense_stage_never_mixes():
    with_mixup, _ = train(Trainer(**SHORT, mixup=1.0), dense=True)
    without, _ = train(Trainer(**SHORT, mixup=None), dense=True)
    assert equal(weights_of(with_mixup), weights_of(without))


def test_get_set_clone_and_repr():
    trainer = Trainer(max_epochs=2, scale_range=(0.5, 1.5))
    copy = clone(trainer)
    assert copy is not trainer
    assert copy.get_params() == trainer.get_params()
    copy.set_params(learning_rate=0.1, max_epochs=None)
    assert copy.learning_rate == 0.1
    assert trainer.learning_rate == 0.03
    assert repr(trainer) == "Trainer(max_epochs=2, scale_range=(0.5, 1.5))"
    with pytest.raises(ValueError, match="Invalid parameter 'steps'"):
        trainer.set_params(steps=3)


def test_training_does_not_change_the_trainer():
    trainer = Trainer(**SHORT)
    before = dict(vars(trainer))
    train(trainer)
    assert vars(trainer) == before


@pytest.mark.parametrize(("verbose", "printed"), [(0, False), (1, True)])
def test_progress_bar(verbose, printed, capsys):
    images, labels, masks = easy_problem()
    Trainer(**SHORT).train(tiny_network(), images, labels, device="cpu", verbose=verbose)
    Trainer(**SHORT).train(tiny_network(4), images, labels, masks, device="cpu", verbose=verbose)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("training the classifier" in captured.err) == printed
    assert ("training the dense" in captured.err) == printed
    assert ("4/4" in captured.err) == printed


# ------------------------------------------------------ several processes

SCRIPT = """
import os, sys, warnings
warnings.simplefilter("error")
import torch
from skdfb.augmentation import BackMix
from skdfb.networks import DenseClassifier
from skdfb.training import Trainer
from tests.training.problems import PLAIN, easy_problem, tiny_network
from tests.training.test_augmentation import AttentiveRecorder, network_with_head, train_with
from tests.training.test_trainer import NormalisedBackbone

rank = int(os.environ["RANK"])
images, labels, masks = easy_problem()
network = tiny_network(4, seed=rank)  # the weights of the first process are used
trainer = Trainer(max_steps=6, batch_size=16, learning_rate=0.02, **PLAIN)
history = trainer.train(network, images, labels, masks, device="cpu", random_state=3)
# batch statistics differ until the end; without random_state the seed of the first process is used
normalised = DenseClassifier(NormalisedBackbone(frozen=False), 3, image_size=16)
Trainer(max_steps=3, batch_size=16).train(normalised, images, labels, device="cpu")
# a batch of 15 has no equal shares
recorder = AttentiveRecorder()
train_with(recorder, max_steps=1, batch_size=15)
mixed = network_with_head()
train_with(BackMix(), mixed, max_steps=4, batch_size=15)
results = network.state_dict(), history, normalised.state_dict(), mixed.state_dict(), recorder.banks[0].maps
torch.save(results, sys.argv[1] + f"/{rank}.pt")
"""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


# tests/training/test_launched.py launches by torchrun in each run of the tests.
@pytest.mark.parametrize("launcher", [pytest.param("torchrun", marks=pytest.mark.slow), "fabric run"])
def test_launched_processes_train_together(tmp_path, launcher):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = {
        "torchrun": ["torch.distributed.run", "--standalone", "--nproc_per_node=2"],
        "fabric run": ["lightning_fabric.cli", "--devices=2", "--accelerator=cpu", f"--main-port={free_port()}"],
    }[launcher]
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-m", *command, str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=300,
    )
    (
        (first, first_history, normalised, mixed, bank),
        (second, second_history, other_normalised, other_mixed, other_bank),
    ) = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert equal(first, second)
    assert first_history == second_history
    assert equal(normalised, other_normalised)
    assert equal(mixed, other_mixed)
    assert torch.equal(bank, other_bank)
    train_with(recorder := AttentiveRecorder(), max_steps=1, batch_size=15)
    torch.testing.assert_close(bank, recorder.banks[0].maps)  # each map at the same index as with one process
    assert (bank != 0.5).flatten(1).any(1).sum() == 15
    # two halves of each batch give the mean gradient of the whole; no pixel is ignored here
    alone, history = train(Trainer(max_steps=6, batch_size=16, learning_rate=0.02, **PLAIN), dense=True, seed=3)
    np.testing.assert_allclose(first_history["loss"], history["loss"], atol=1e-5)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(first[name], value, atol=1e-5, rtol=0)


def test_mixed_precision_inside_an_autocast_of_the_caller():
    """The casts of weights that autocast caches must not outlive a step, whatever context is around the training."""
    images, labels, _ = easy_problem()
    weights = []
    for context in (contextlib.nullcontext(), torch.autocast("cpu", enabled=False)):
        network = tiny_network()
        trainer = Trainer(max_steps=6, batch_size=16, learning_rate=0.3, precision="bf16-mixed")
        with context:
            trainer.train(network, images, labels, device="cpu", random_state=0)
        weights.append(weights_of(network))
    assert equal(*weights)
