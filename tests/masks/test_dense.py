"""DenseMaskGenerator: maps of the dense network, its training, failures, and generators inside one another."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError

from skdfb.exceptions import TrainingDivergedError
from skdfb.images import as_images
from skdfb.masks import AffinityMaskGenerator, CAMMaskGenerator, DenseMaskGenerator
from skdfb.masks._network import NetworkMaskGenerator
from skdfb.networks import DenseClassifier
from skdfb.networks._foreground_maps import foreground_maps
from skdfb.training import Trainer
from skdfb.utils import spawn_seeds
from tests.helpers import TinyBackbone
from tests.masks.helpers import QUICK, SIZE, K, N, trained_network

STEPS = Trainer(max_steps=3, batch_size=8, learning_rate=0.1)


def cam(**parameters):
    return CAMMaskGenerator(**{"scales": (1.0,), "flip": False, **parameters})


def dense(**parameters):
    defaults = {
        "backbone": trained_network(),
        "generator": cam(),
        "dense_trainer": STEPS,
        "device": "cpu",
        "random_state": 0,
        "scales": (1.0,),
        "flip": False,
    }
    return DenseMaskGenerator(**defaults | parameters)


# ------------------------------------------------------------ the formula


def bilinear(values, height, width):
    """Resize (h, w) pixel by pixel, with pixels' centres at halves."""
    h, w = values.shape
    resized = np.empty((height, width))
    for row in range(height):
        for column in range(width):
            y = min(max((row + 0.5) * h / height - 0.5, 0), h - 1)
            x = min(max((column + 0.5) * w / width - 0.5, 0), w - 1)
            top, left = int(y), int(x)
            below, right = min(top + 1, h - 1), min(left + 1, w - 1)
            upper = values[top, left] * (1 - x + left) + values[top, right] * (x - left)
            lower = values[below, left] * (1 - x + left) + values[below, right] * (x - left)
            resized[row, column] = upper * (1 - y + top) + lower * (y - top)
    return resized


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("sizes", [[SIZE], [SIZE, 16, 48], [24]])
def test_maps_against_the_formula(flip, sizes):
    network = trained_network(K + 1, dtype=torch.float64).eval()
    inputs = torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found, targets = foreground_maps(
        network, inputs, torch.tensor([2, 0]), input_sizes=sizes, flip=flip, output_size=(20, 28)
    )
    assert targets.tolist() == [2, 0]
    for index, target in enumerate([2, 0]):
        views = []
        for size in sizes:
            scaled = F.interpolate(inputs, (size, size), mode="bilinear", antialias=True) if size != SIZE else inputs
            for mirrored in [False, True][: 1 + flip]:
                with torch.no_grad():
                    logits = network.logit_map(scaled.flip(-1) if mirrored else scaled)[index].numpy()
                logits = np.stack([bilinear(logit, 20, 28) for logit in logits[[target, K]]])
                probability = np.exp(logits[0]) / np.exp(logits).sum(0)
                views.append(probability[:, ::-1] if mirrored else probability)
        np.testing.assert_allclose(found[index].numpy(), np.mean(views, axis=0), atol=1e-9)


@pytest.mark.parametrize("sizes", [[SIZE], [16, SIZE], [16]])
def test_the_predicted_class_is_never_the_background(sizes):
    network = trained_network(K + 1).eval()
    with torch.no_grad():
        network.head.bias[K] = 100.0
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(8, 3, SIZE, SIZE, generator=random) + 4 * torch.randn(8, 3, 1, 1, generator=random)
    with torch.no_grad():
        expected = network(inputs)[:, :K].argmax(1)
    _, targets = foreground_maps(network, inputs, None, input_sizes=sizes, flip=True, output_size=(8, 8))
    assert torch.equal(targets, expected)
    assert len(expected.unique()) > 1


def test_masks_are_thresholded_maps(images, labels):
    for threshold in (0.3, 0.5):
        generator = dense(threshold=threshold)
        masks = generator.fit_transform(images, labels)
        maps = generator.attention_maps(images, labels)
        np.testing.assert_array_equal(masks, np.where(maps >= np.float32(threshold), labels[:, None, None], K))
        assert maps.dtype == np.float32
        assert masks.dtype == np.uint8


# ------------------------------------------------------------ the training


def test_the_dense_network_is_trained_on_the_first_masks(images, labels):
    generator = dense(mask_size=24).fit(images, labels)
    classifier = trained_network().eval()
    first = cam(backbone=classifier, mask_size=24, device="cpu").fit_transform(images, labels)
    network = classifier.with_background()
    *_, seed = spawn_seeds(0, 4)
    STEPS.train(network, images, labels, first, device="cpu", random_state=seed)
    for name, value in network.state_dict().items():
        assert torch.equal(value, generator.network_.state_dict()[name])
    assert generator.network_.num_classes == K + 1
    assert not generator.network_.training


def test_the_classifier_is_that_of_the_first_generator(images, labels):
    """The same seed trains the same classifier as CAMMaskGenerator does; the inner one gets it."""
    backbone = TinyBackbone()
    generator = DenseMaskGenerator(backbone, dense_trainer=STEPS, **QUICK).fit(images, labels)
    expected = CAMMaskGenerator(backbone, **QUICK).fit(images, labels).network_
    for name, value in expected.state_dict().items():
        assert torch.equal(value, generator.generator_.network_.state_dict()[name])


def test_a_trained_network_stays_as_it_is(images, labels):
    network = trained_network()
    before = copy.deepcopy(network.state_dict())
    generator = dense(backbone=network, trainer=Trainer(max_steps=10_000))
    generator.fit(images, labels)
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in before)
    assert network.num_classes == K


def test_the_seed_fixes_it(images, labels):
    first, again, other = (
        dense(random_state=seed).fit(images, labels).network_.head.weight.detach() for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_rounds_begin_at_the_classifier_with_masks_of_the_round_before(images, labels):
    once = dense(n_rounds=1).fit(images, labels)
    twice = dense(n_rounds=2).fit(images, labels)
    network = trained_network().eval().with_background()
    *_, seed = spawn_seeds(0, 5)
    STEPS.train(network, images, labels, once.transform(images, labels), device="cpu", random_state=seed)
    assert torch.equal(network.head.weight, twice.network_.head.weight)
    assert not torch.equal(once.network_.head.weight, twice.network_.head.weight)


# -------------------------------------------------------------- failures


def biased(generator, bias):
    with torch.no_grad():
        generator.network_.head.bias[K] += bias
    return generator


@pytest.mark.parametrize("bias", [100.0, -100.0])
@pytest.mark.parametrize("mask_size", [None, 20])
def test_all_or_nothing_keeps_the_first_mask(images, labels, bias, mask_size):
    names = np.array(["cat", "dog", "eel"])[labels]
    generator = biased(dense(mask_size=mask_size).fit(images, names), bias)
    first = cam(backbone=trained_network(), device="cpu", mask_size=mask_size).fit(images, names)
    np.testing.assert_array_equal(generator.transform(images, names), first.transform(images, names))
    np.testing.assert_array_equal(generator.attention_maps(images, names), first.transform(images, names) != K)
    predicted = generator.classify(images)
    np.testing.assert_array_equal(generator.transform(images), first.transform(images, predicted))


def test_only_the_images_that_fail_keep_their_first_mask(images, labels):
    generator = dense(batch_size=4).fit(images, labels)
    maps = np.concatenate([maps for _, maps, _ in NetworkMaskGenerator._stream(generator, as_images(images), labels)])
    highest = np.sort(maps.max((1, 2)))
    generator.threshold = float(highest[N // 2 - 1 : N // 2 + 1].mean())  # which some maps reach and others do not
    calls, inner = [], generator.generator_.transform
    generator.generator_.transform = lambda X, y: calls.append(y) or inner(X, y)
    found = generator.transform(images, labels)
    failed = (maps.max((1, 2)) < generator.threshold) | (maps.min((1, 2)) >= generator.threshold)
    assert 0 < failed.sum() < N
    assert np.concatenate(calls).tolist() == labels[failed].tolist()
    assert all(len(y) for y in calls)
    np.testing.assert_array_equal(found[failed], inner(images[failed], labels[failed]))
    kept = np.where(maps >= np.float32(generator.threshold), labels[:, None, None], K)
    np.testing.assert_array_equal(found[~failed], kept[~failed])


class UserDefined(BaseEstimator):
    """A user-defined generator without a network: small masks of the left half."""

    def __init__(self, random_state=None, backbone="mine"):
        self.random_state = random_state
        self.backbone = backbone

    def fit_transform(self, X, y):
        self.fitted_on_ = len(X), sorted(set(y.tolist()))
        return self.transform(X, y)

    def transform(self, X, y):
        masks = np.full((len(X), 8, 8), K)
        masks[:, :, :4] = y[:, None, None]
        return masks


def test_a_user_defined_generator(images, labels):
    generator = dense(generator=UserDefined()).fit(images, np.array(["cat", "dog", "eel"])[labels])
    assert generator.generator_.fitted_on_ == (N, [0, 1, 2])
    assert isinstance(generator.generator_.backbone, DenseClassifier)
    assert isinstance(generator.generator_.random_state, int)
    left = np.zeros((N, SIZE, SIZE), dtype=bool)
    left[:, :, : SIZE // 2] = True
    np.testing.assert_array_equal(biased(generator, 100.0).attention_maps(images), left)


def test_masks_that_are_none_are_refused(images, labels):
    class Wrong(UserDefined):
        def transform(self, X, y):
            return np.full((len(X), 8, 8), K + 1)

    with pytest.raises(ValueError, match=r"generator.fit_transform returned masks with values in 4\.\.4"):
        dense(generator=Wrong()).fit(images, labels)


# ------------------------------------------- inside one another, and sizes


def test_refined_masks_train_the_dense_network(images, labels):
    inner = AffinityMaskGenerator(cam(), dilations=(1,), n_iterations=2)
    generator = dense(generator=inner).fit(images, labels)
    taken = generator.generator_.generator_.network_.state_dict()
    assert all(torch.equal(taken[name], value) for name, value in trained_network().state_dict().items())
    assert generator.generator_.generator_.device == "cpu"
    assert generator.transform(images).shape == (N, SIZE, SIZE)
    by_default = dense(generator=AffinityMaskGenerator(n_iterations=1)).fit(images, labels)
    assert by_default.generator_.generator_.network_.num_classes == K


def test_the_dense_networks_maps_are_refined(images, labels):
    generator = AffinityMaskGenerator(dense(), device="cpu", dilations=(1,), n_iterations=2)
    masks = generator.fit_transform(images, labels)
    assert generator.generator_.network_.num_classes == K + 1
    np.testing.assert_array_equal(masks == K, generator.attention_maps(images, labels) < 0.5)
    np.testing.assert_array_equal(generator.classify(images), dense().fit(images, labels).classify(images))


def test_dense_in_dense(images, labels):
    generator = dense(generator=DenseMaskGenerator(dense_trainer=STEPS, generator=cam())).fit(images, labels)
    assert generator.generator_.network_.num_classes == K + 1
    assert generator.generator_.generator_.network_.num_classes == K


@pytest.mark.parametrize("batch_size", [1, 3, 128])
def test_batch_size_does_not_matter(images, labels, batch_size):
    expected = dense(batch_size=5).fit(images, labels)
    generator = dense(batch_size=batch_size).fit(images, labels)
    np.testing.assert_allclose(generator.attention_maps(images), expected.attention_maps(images), atol=1e-5)
    np.testing.assert_array_equal(generator.classify(images), expected.classify(images))


def test_sizes(labels):
    images = np.random.default_rng(0).integers(0, 256, (N, 40, 24, 3), dtype=np.uint8)
    assert dense().fit_transform(images, labels).shape == (N, 40, 24)
    assert dense(mask_size=20).fit_transform(images, labels).shape == (N, 20, 20)
    several = [image[: 20 + i] for i, image in enumerate(images)]
    assert dense().fit_transform(several, labels).shape == (N, SIZE, SIZE)


def test_rows_of_pixels(images, labels):
    rows = images.reshape(N, -1)
    generator = dense(image_shape=(SIZE, SIZE, 3))
    np.testing.assert_array_equal(generator.fit_transform(rows, labels), dense().fit_transform(images, labels))


# --------------------------------------------------- an estimator among others


def test_clone_and_nested_parameters():
    generator = dense()
    copied = clone(generator).set_params(generator__sigma=2.0, dense_trainer__max_steps=9)
    assert (copied.generator.sigma, generator.generator.sigma) == (2.0, 4.0)
    assert (copied.dense_trainer.max_steps, generator.dense_trainer.max_steps) == (9, 3)


@pytest.mark.parametrize("method", ["transform", "attention_maps", "classify"])
def test_not_fitted(images, method):
    with pytest.raises(NotFittedError):
        getattr(dense(), method)(images)


def test_progress_bars(images, labels, capsys):
    dense(verbose=1).fit(images, labels)
    assert "dense" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"n_rounds": 0}, ValueError, "'n_rounds' parameter"),
        ({"threshold": 0.0}, ValueError, "'threshold' parameter"),
        ({"threshold": 1.0}, ValueError, "'threshold' parameter"),
        ({"scales": (0.0,)}, ValueError, "above 0"),
        ({"trainer": Trainer(max_steps=0)}, ValueError, "^trainer: .*max_steps"),
        ({"dense_trainer": Trainer(max_steps=0)}, ValueError, "dense_trainer: .*max_steps"),
        ({"dense_trainer": "quick"}, ValueError, "'dense_trainer' parameter"),
        (
            {"generator": "cam"},
            TypeError,
            "generator='cam': expected an object with the methods fit_transform, transform",
        ),
        ({"generator": cam(sigma=-1.0)}, ValueError, "generator: The 'sigma' parameter"),
        ({"backbone": 3}, ValueError, "'backbone' parameter"),
    ],
)
def test_bad_parameters_are_named_before_any_training(images, labels, parameters, error, message):
    generator = dense(**parameters)
    with pytest.raises(error, match=message):
        generator.fit(images, labels)
    assert not [name for name in vars(generator) if name.endswith("_")]


def test_a_failed_fit_leaves_the_earlier_one(images, labels):
    generator = dense().fit(images, labels)
    before = dict(vars(generator))
    generator.set_params(dense_trainer=Trainer(max_steps=3, learning_rate=1e30))
    with pytest.raises(TrainingDivergedError):
        generator.fit(images, labels)
    generator.set_params(dense_trainer=before["dense_trainer"])
    assert vars(generator) == before


def test_the_default_views_are_the_documented_ones(images, labels):
    generator = DenseMaskGenerator(trained_network(), dense_trainer=STEPS, device="cpu", random_state=0)
    generator.fit(images, labels)
    sides = []
    generator.network_.feature_map.register_forward_hook(lambda _, args, __: sides.append((args[0].shape[0], args[0])))
    generator.attention_maps(images, labels)
    views = [view for n_images, view in sides if n_images == N]  # trials of a size take one image
    assert [view.shape[-1] for view in views] == [32, 48, 64]
    own = generator.network_.preprocessor(torch.from_numpy(images).movedim(-1, 1))
    torch.testing.assert_close(views[0], own)
