"""AffinityMaskGenerator: refined maps, sizes, labels, and the generator inside."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skdfb.masks import AffinityMaskGenerator, CAMMaskGenerator
from skdfb.networks import refine_by_affinity
from skdfb.training import Trainer
from tests.helpers import TinyBackbone
from tests.masks.helpers import SIZE, K, N, trained_network

REFINEMENT = {"dilations": (1, 3), "n_iterations": 4, "bandwidth": 0.3}


def cam(**parameters):
    return CAMMaskGenerator(trained_network(), **{"device": "cpu", "scales": (1.0,), **parameters})


def affinity(**parameters):
    return AffinityMaskGenerator(**{"generator": cam(), "device": "cpu", **REFINEMENT, **parameters})


def refined(maps, images, parameters=REFINEMENT):
    """What the generator should give, from the other generator's maps and pixels (n, H, W, 3) of their size."""
    pixels = torch.from_numpy(np.asarray(images)).movedim(-1, 1).float() / 255
    maps = refine_by_affinity(torch.from_numpy(maps), pixels, **parameters).numpy()
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return (maps - low) / (high - low)


def test_maps_are_refined_on_the_images(images, labels):
    generator = affinity().fit(images, labels)
    coarse = cam().fit(images, labels)
    for y in (labels, None):
        expected = refined(coarse.attention_maps(images, y), images)
        np.testing.assert_allclose(generator.attention_maps(images, y), expected, atol=1e-6)
    assert generator.attention_maps(images).dtype == np.float32
    assert not np.allclose(generator.attention_maps(images), coarse.attention_maps(images), atol=0.1)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_masks_are_thresholded_maps(images, labels, threshold):
    generator = affinity(threshold=threshold)
    masks = generator.fit_transform(images, labels)
    foreground = generator.attention_maps(images, labels) >= np.float32(threshold)
    np.testing.assert_array_equal(masks, np.where(foreground, labels[:, None, None], K))
    assert masks.dtype == np.uint8


def test_transform_takes_the_predicted_classes(images, labels):
    names = np.array(["cat", "dog", "eel"])[labels]
    generator = affinity().fit(images, names)
    predicted = generator.classify(images)
    np.testing.assert_array_equal(predicted, cam().fit(images, names).classify(images))
    assert (predicted != names).any()
    np.testing.assert_array_equal(generator.transform(images), generator.transform(images, predicted))
    np.testing.assert_array_equal(generator.transform(images, names), affinity().fit_transform(images, names))
    for mask, index in zip(generator.transform(images), np.searchsorted(generator.classes_, predicted), strict=True):
        assert set(np.unique(mask)) == {index, K}


def test_the_default_refinement_is_the_documented_one(images, labels):
    generator = AffinityMaskGenerator(cam(), device="cpu")
    expected = {"dilations": (1, 2, 4, 8, 12, 24), "n_iterations": 20, "bandwidth": 0.1}
    maps = refined(cam().fit(images, labels).attention_maps(images, labels), images, expected)
    masks = generator.fit_transform(images, labels)
    np.testing.assert_allclose(generator.attention_maps(images, labels), maps, atol=1e-6)
    np.testing.assert_array_equal(masks == K, generator.attention_maps(images, labels) < 0.5)


def test_no_iterations_leave_maps_as_they_are(images, labels):
    generator = affinity(n_iterations=0).fit(images, labels)
    expected = cam().fit(images, labels).attention_maps(images)
    np.testing.assert_allclose(generator.attention_maps(images), expected, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 128])
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_batch_size_and_threads_do_not_matter(images, labels, batch_size, n_jobs):
    expected = affinity(batch_size=5).fit(images, labels).attention_maps(images)
    generator = affinity(batch_size=batch_size, n_jobs=n_jobs).fit(images, labels)
    np.testing.assert_allclose(generator.attention_maps(images), expected, atol=1e-5)
    np.testing.assert_allclose(generator.attention_maps(images[::-1])[::-1], expected, atol=1e-5)


def test_one_batch_of_maps_at_a_time(images, labels):
    generator = affinity(batch_size=4).fit(images, labels)
    calls, inner = [], generator.generator_.attention_maps
    generator.generator_.attention_maps = lambda X, y: calls.append(len(X)) or inner(X, y)
    generator.transform(images)
    assert calls == [4, 4, 2]


# ------------------------------------------------------------------ images


@pytest.mark.parametrize("shape", [(N, 40, 24, 3), (N, 20, 20, 1), (N, 48, 48)])
def test_masks_have_the_images_own_size(labels, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    generator = affinity()
    assert generator.fit_transform(images, labels).shape == shape[:3]
    assert generator.attention_maps(images[:4]).shape == (4, *shape[1:3])
    colours = np.broadcast_to(images.reshape(*shape[:3], -1), (*shape[:3], 3))
    expected = refined(cam().fit(images, labels).attention_maps(images), colours.copy())
    np.testing.assert_allclose(generator.attention_maps(images), expected, atol=1e-6)


def test_images_are_resized_to_the_masks(images, labels):
    generator = affinity(generator=cam(mask_size=20)).fit(images, labels)
    pixels = torch.from_numpy(images).movedim(-1, 1).float() / 255
    pixels = F.interpolate(pixels, (20, 20), mode="bilinear", antialias=True)
    coarse = torch.from_numpy(cam(mask_size=20).fit(images, labels).attention_maps(images))
    maps = refine_by_affinity(coarse, pixels, **REFINEMENT).numpy()
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    np.testing.assert_allclose(generator.attention_maps(images), (maps - low) / (high - low), atol=1e-6)


def test_floats_and_integers_are_the_same_images(images, labels):
    expected = affinity().fit(images, labels).attention_maps(images)
    pixels = images.astype(np.float32) / 255
    np.testing.assert_allclose(affinity().fit(pixels, labels).attention_maps(pixels), expected, atol=1e-5)


def test_paths_and_several_sizes(tmp_path, images, labels):
    paths = [tmp_path / f"{i}.png" for i in range(N)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    np.testing.assert_array_equal(affinity().fit_transform(paths, labels), affinity().fit_transform(images, labels))
    several = [image[: 20 + i] for i, image in enumerate(images)]
    assert affinity().fit_transform(several, labels).shape == (N, SIZE, SIZE)


def test_rows_of_pixels(images, labels):
    rows = images.reshape(N, -1)
    generator = affinity(image_shape=(SIZE, SIZE, 3))
    np.testing.assert_array_equal(generator.fit_transform(rows, labels), affinity().fit_transform(images, labels))
    assert generator.n_features_in_ == SIZE * SIZE * 3
    with pytest.raises(ValueError, match="feature"):
        generator.transform(rows[:, :-3])


# ------------------------------------------------------- the generator inside


class Plain:
    """A user-defined generator: its maps are brightness, and it predicts class 1 for all images."""

    def fit(self, X, y):
        self.fitted_on_ = len(X), sorted(set(y.tolist()))
        return self

    def attention_maps(self, X, y):
        return np.asarray(X.read(np.arange(len(X)))).mean(1, dtype=np.float64)

    def classify(self, X):
        return np.ones(len(X), dtype=np.uint8)


def test_a_user_defined_generator(images, labels):
    names = np.array(["cat", "dog", "eel"])[labels]
    generator = AffinityMaskGenerator(given := Plain(), device="cpu", **REFINEMENT).fit(images, names)
    assert not hasattr(given, "fitted_on_")
    assert generator.generator_.fitted_on_ == (N, [0, 1, 2])
    np.testing.assert_array_equal(generator.classify(images), ["dog"] * N)
    expected = refined(images.astype(np.float64).mean(-1), images)
    np.testing.assert_allclose(generator.attention_maps(images), expected, atol=1e-5)
    assert set(np.unique(generator.transform(images))) == {1, K}


def test_the_generator_is_cloned_and_gets_what_it_leaves_open(images, labels):
    inner = CAMMaskGenerator(TinyBackbone(), trainer=Trainer(max_steps=1), random_state=0)
    generator = AffinityMaskGenerator(inner, device="cpu", n_jobs=2).fit(images, labels)
    assert not hasattr(inner, "network_")
    assert (inner.device, inner.n_jobs) == ("auto", None)
    assert generator.generator is inner
    assert (generator.generator_.device, generator.generator_.n_jobs) == ("cpu", 2)
    kept = AffinityMaskGenerator(inner.set_params(n_jobs=1), device="cpu", n_jobs=2).fit(images, labels)
    assert kept.generator_.n_jobs == 1


def test_one_refinement_in_another(images, labels):
    generator = affinity(generator=affinity()).fit(images, labels)
    expected = refined(affinity().fit(images, labels).attention_maps(images), images)
    np.testing.assert_allclose(generator.attention_maps(images), expected, atol=1e-5)


# --------------------------------------------------- an estimator among others


def test_clone_and_nested_parameters():
    generator = affinity()
    copied = clone(generator).set_params(generator__sigma=2.0, n_iterations=3)
    assert (copied.generator.sigma, generator.generator.sigma) == (2.0, 4.0)
    assert copied.n_iterations == 3


@pytest.mark.parametrize("method", ["transform", "attention_maps", "classify"])
def test_not_fitted(images, method):
    with pytest.raises(NotFittedError):
        getattr(affinity(), method)(images)


def test_unknown_labels_are_refused(images, labels):
    with pytest.raises(ValueError, match="1 labels that are not in classes_"):
        affinity().fit(images, labels).attention_maps(images[:2], [0, 7])


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"dilations": ()}, ValueError, r"dilations=\(\): expected a sequence of at least one integer above 0"),
        ({"dilations": (1, 0)}, ValueError, "above 0"),
        ({"dilations": (1.5,)}, ValueError, "integer"),
        ({"dilations": [[1]]}, ValueError, "dilations="),
        ({"dilations": 3}, ValueError, "'dilations' parameter"),
        ({"n_iterations": -1}, ValueError, "'n_iterations' parameter"),
        ({"bandwidth": 0.0}, ValueError, "'bandwidth' parameter"),
        ({"threshold": 1.5}, ValueError, "'threshold' parameter"),
        ({"batch_size": 0}, ValueError, "'batch_size' parameter"),
        ({"device": "gpu7"}, ValueError, "device='gpu7'"),
        (
            {"generator": "cam"},
            TypeError,
            "generator='cam': expected an object with the methods fit, attention_maps, classify",
        ),
        ({"generator": CAMMaskGenerator}, TypeError, "expected an object with the methods"),
        ({"generator": cam(sigma=-1.0)}, ValueError, "generator: The 'sigma' parameter"),
        ({"generator": cam(trainer=Trainer(max_steps=0))}, ValueError, "generator: trainer: .*max_steps"),
        ({"generator": affinity(generator=cam(flip="no"))}, ValueError, "generator: generator: The 'flip'"),
    ],
)
def test_bad_parameters_are_named_before_any_training(images, labels, parameters, error, message):
    generator = affinity(**parameters)
    with pytest.raises(error, match=message):
        generator.fit(images, labels)
    assert not [name for name in vars(generator) if name.endswith("_")]


def test_a_failed_fit_leaves_the_earlier_one(images, labels):
    generator = affinity().fit(images, labels)
    before = dict(vars(generator))
    generator.set_params(generator=CAMMaskGenerator(trained_network(5), device="cpu"))
    with pytest.raises(ValueError, match="5 outputs"):
        generator.fit(images, labels)
    generator.set_params(generator=before["generator"])
    assert vars(generator) == before
