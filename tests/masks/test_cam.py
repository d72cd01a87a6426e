"""CAMMaskGenerator: Eq. 2, sizes, labels, and what it leaves alone."""

import copy
import warnings

import huggingface_hub.constants
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from torch import nn

from skdfb.exceptions import TrainingDivergedError
from skdfb.masks import CAMMaskGenerator, DenseMaskGenerator
from skdfb.networks import create_backbone
from skdfb.training import Trainer
from tests.helpers import TinyBackbone
from tests.masks.helpers import QUICK, SIZE, K, N, trained_network


def fitted(images, labels, **parameters):
    parameters = {"device": "cpu", **parameters}
    return CAMMaskGenerator(trained_network(), **parameters).fit(images, labels)


# --------------------------------------------------------------- Eq. 2


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_masks_are_thresholded_attention_maps(images, labels, threshold):
    generator = CAMMaskGenerator(trained_network(), threshold=threshold, device="cpu")
    masks = generator.fit_transform(images, labels)
    maps = generator.attention_maps(images, labels)
    for n in range(N):
        for row in range(SIZE):
            for column in range(SIZE):
                foreground = maps[n, row, column] >= np.float32(threshold)
                assert masks[n, row, column] == (labels[n] if foreground else K)
    assert (masks == K).any() == (threshold > 0)


def test_attention_maps_span_zero_to_one(images, labels):
    maps = fitted(images, labels).attention_maps(images)
    assert maps.dtype == np.float32
    assert maps.shape == (N, SIZE, SIZE)
    np.testing.assert_array_equal(maps.min((1, 2)), 0)
    np.testing.assert_array_equal(maps.max((1, 2)), 1)


def test_transform_takes_the_predicted_classes(images, labels):
    generator = fitted(images, labels)
    network = trained_network().eval()
    with torch.no_grad():
        predicted = network(network.preprocessor(torch.from_numpy(images).movedim(-1, 1))).argmax(1).numpy()
    assert (predicted != labels).any()
    masks = generator.transform(images)
    for mask, predicted_class in zip(masks, predicted, strict=True):
        assert set(np.unique(mask)) == {predicted_class, K}
    np.testing.assert_array_equal(generator.attention_maps(images), generator.attention_maps(images, predicted))


def test_fit_transform_takes_the_true_classes(images, labels):
    masks = CAMMaskGenerator(trained_network(), device="cpu").fit_transform(images, labels)
    for mask, label in zip(masks, labels, strict=True):
        assert set(np.unique(mask)) == {label, K}


def test_attention_maps_of_other_classes_differ(images, labels):
    generator = fitted(images, labels)
    assert not np.allclose(generator.attention_maps(images, labels), generator.attention_maps(images, (labels + 1) % K))


@pytest.mark.parametrize(("mask_size", "sigma"), [(None, 4.0), (128, 4.0), (None, 10.0)])
def test_sigma_is_in_pixels_of_an_image_of_128(images, labels, mask_size, sigma):
    sharp = fitted(images, labels, sigma=0.0, mask_size=mask_size).attention_maps(images, labels)
    smooth = fitted(images, labels, sigma=sigma, mask_size=mask_size).attention_maps(images, labels)
    pixels = sigma * sharp.shape[1] / 128  # 4 at 128, 1 at 32
    for before, after in zip(sharp.astype(np.float64), smooth, strict=True):
        expected = gaussian_filter(before, pixels, mode="nearest", truncate=4.0)
        expected = (expected - expected.min()) / (expected.max() - expected.min())
        np.testing.assert_allclose(after, expected, atol=1e-4)


def oracle_masks(network, images, classes):
    """The masks of the authors' code, image by image: the bias, no scales but the first, no smoothing here."""
    weight, bias = network.head.weight.detach().numpy(), network.head.bias.detach().numpy()
    inputs = network.preprocessor(torch.from_numpy(images).movedim(-1, 1))
    with torch.no_grad():
        feature_maps = network.feature_map(inputs).numpy()
    if classes is None:
        classes = [int(np.argmax(weight @ features.mean((1, 2)) + bias)) for features in feature_maps]
    masks = np.empty((len(images), SIZE, SIZE), dtype=int)
    for mask, features, k in zip(masks, feature_maps, classes, strict=True):
        activation = np.maximum(np.einsum("c,chw->hw", weight[k], features) + bias[k], 0)
        enlarged = F.interpolate(torch.from_numpy(activation)[None, None], (SIZE, SIZE), mode="bilinear")[0, 0].numpy()
        spread = enlarged.max() - enlarged.min()
        found = (enlarged - enlarged.min()) / spread if spread else np.zeros_like(enlarged)
        mask[:] = np.where(found >= 0.5, k, K)
    return masks


@pytest.mark.parametrize("true_class", [True, False])
def test_the_masks_of_the_authors_code(images, labels, true_class):
    network = trained_network().eval()
    torch.nn.init.normal_(network.head.bias)
    options = {"scales": (1.0,), "flip": False, "sigma": 0.0, "device": "cpu"}
    generator = CAMMaskGenerator(network, use_bias=True, true_class=true_class, **options)
    masks = generator.fit_transform(images, labels)
    expected = oracle_masks(network, images, labels if true_class else None)
    assert (masks != expected).mean() < 1e-3  # rounding at the threshold
    assert (masks != CAMMaskGenerator(network, true_class=true_class, **options).fit_transform(images, labels)).any()
    # given classes are the ones that transform takes, independent of fit_transform
    assert (generator.transform(images, labels) != oracle_masks(network, images, labels)).mean() < 1e-3


def test_masks_of_the_predicted_class(images, labels):
    generator = CAMMaskGenerator(trained_network(), true_class=False, device="cpu")
    masks = generator.fit_transform(images, labels)
    predicted = generator.classify(images)
    assert (predicted != labels).any()
    for mask, predicted_class in zip(masks, predicted, strict=True):
        assert set(np.unique(mask)) == {predicted_class, K}
    np.testing.assert_array_equal(masks, generator.transform(images))
    np.testing.assert_array_equal(generator.transform(images, labels), fitted(images, labels).transform(images, labels))


# -------------------------------------------------------------- shapes


@pytest.mark.parametrize("shape", [(N, 40, 24, 3), (N, 20, 20, 1), (N, 48, 48)])
def test_masks_have_the_images_own_size(labels, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    generator = CAMMaskGenerator(trained_network(), device="cpu")
    assert generator.fit_transform(images, labels).shape == shape[:3]
    assert generator.transform(images[:4]).shape == (4, *shape[1:3])
    assert generator.attention_maps(images).shape == shape[:3]


def test_mask_size(images, labels):
    generator = CAMMaskGenerator(trained_network(), mask_size=20, device="cpu")
    assert generator.fit_transform(images, labels).shape == (N, 20, 20)


def test_images_of_several_sizes_give_masks_of_the_networks_size(labels):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8) for i in range(N)]
    generator = CAMMaskGenerator(trained_network(), device="cpu")
    assert generator.fit_transform(images, labels).shape == (N, SIZE, SIZE)


@pytest.mark.parametrize(("n_classes", "dtype"), [(3, np.uint8), (255, np.uint8), (256, np.uint16), (300, np.uint16)])
def test_masks_are_the_smallest_unsigned_integers(n_classes, dtype):
    images = np.random.default_rng(0).integers(0, 256, (3 * n_classes, 16, 16, 3), dtype=np.uint8)
    labels = np.arange(3 * n_classes) % n_classes
    network = trained_network(n_classes, size=16)
    generator = CAMMaskGenerator(network, scales=(1.0,), flip=False, device="cpu")
    masks = generator.fit_transform(images, labels)
    assert masks.dtype == dtype
    assert masks.max() == n_classes
    foreground = masks != n_classes
    expected = np.broadcast_to(labels[:, None, None], masks.shape)
    np.testing.assert_array_equal(masks[foreground], expected[foreground])


# ------------------------------------------------------------- batches


@pytest.mark.parametrize("batch_size", [1, 3, 128])
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_batch_size_and_threads_do_not_matter(images, labels, batch_size, n_jobs):
    expected = fitted(images, labels, batch_size=5)
    generator = fitted(images, labels, batch_size=batch_size, n_jobs=n_jobs)
    np.testing.assert_allclose(generator.attention_maps(images), expected.attention_maps(images), atol=1e-5)
    np.testing.assert_allclose(generator.attention_maps(images[::-1])[::-1], expected.attention_maps(images), atol=1e-5)


@pytest.mark.parametrize(
    ("parameters", "sides"),
    [
        ({}, [32, 32, 16, 16, 48, 48, 64, 64]),
        ({"flip": False}, [32, 16, 48, 64]),
        ({"scales": (0.5,)}, [16, 16]),
        ({"scales": (1.0, 1.0), "flip": False}, [32, 32]),  # twice is twice
    ],
)
@pytest.mark.parametrize("true_classes", [True, False])
def test_one_forward_pass_a_scale_and_flip_for_a_whole_batch(images, labels, parameters, sides, true_classes):
    generator = fitted(images, labels, batch_size=5, **parameters)
    passes = []
    generator.network_.feature_map.register_forward_hook(lambda _, args, __: passes.append(args[0].shape))
    generator.attention_maps(images, labels if true_classes else None)
    found = [shape[-1] for shape in passes if len(shape) and shape[0] == 5]  # trials of a size take one image
    # the predicted class is known from the view at the network's own size, where there is one
    extra = [32] if not true_classes and 32 not in sides else []
    assert sorted(found) == sorted(2 * (sides + extra))
    assert all(shape[0] in (1, 5) for shape in passes)


# ------------------------------------------------- networks given trained


def test_a_trained_network_is_taken_as_it_is(images, labels):
    network = trained_network().train()
    network.feature_map.backbone.second.eval()
    before = copy.deepcopy(network.state_dict())
    flags = [module.training for module in network.modules()]
    generator = CAMMaskGenerator(network, trainer=Trainer(max_steps=5), device="cpu")
    generator.fit_transform(images, labels)
    generator.transform(images)
    assert generator.backbone is network
    assert generator.network_ is not network
    for name, value in before.items():
        assert torch.equal(network.state_dict()[name], value)
        assert torch.equal(generator.network_.state_dict()[name], value)
    assert [module.training for module in network.modules()] == flags
    assert not any(module.training for module in generator.network_.modules())
    assert network.device == torch.device("cpu")


def test_a_network_with_other_outputs_is_refused(images, labels):
    generator = CAMMaskGenerator(trained_network(4), device="cpu")
    with pytest.raises(ValueError, match="4 outputs, which counts as trained, but y has 3 classes"):
        generator.fit(images, labels)
    with pytest.raises(NotFittedError):
        generator.transform(images)


def test_train_flags_survive_a_pass(images, labels):
    generator = fitted(images, labels)
    generator.network_.train()
    expected = fitted(images, labels).attention_maps(images)
    np.testing.assert_array_equal(generator.attention_maps(images), expected)
    assert all(module.training for module in generator.network_.modules())


class OneSizeBackbone(TinyBackbone):
    def forward(self, images):
        if images.shape[-1] != SIZE:
            raise AssertionError(f"input of {images.shape[-1]} pixels, expected {SIZE}")
        return super().forward(images)


def test_networks_of_one_size_are_given_that_one_with_a_warning(images, labels):
    network = trained_network(backbone=OneSizeBackbone())
    with pytest.warns(UserWarning, match=r"no inputs at the scales \[0.5, 1.5, 2.0\]"):
        masks = CAMMaskGenerator(network, device="cpu").fit_transform(images, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = CAMMaskGenerator(network, scales=(1.0,), device="cpu").fit_transform(images, labels)
    np.testing.assert_array_equal(masks, expected)


def test_own_size_stands_in_where_no_scale_is_taken(images, labels):
    network = trained_network(backbone=OneSizeBackbone())
    with pytest.warns(UserWarning, match="no inputs"):
        masks = CAMMaskGenerator(network, scales=(2.0,), device="cpu").fit_transform(images, labels)
    expected = CAMMaskGenerator(network, scales=(1.0,), device="cpu").fit_transform(images, labels)
    np.testing.assert_array_equal(masks, expected)


class StridedBackbone(TinyBackbone):
    """Takes multiples of 16 pixels only, as transformers with patches do."""

    def forward(self, images):
        if images.shape[-1] % 16:
            raise ValueError("expected a multiple of 16 pixels")
        return super().forward(nn.functional.avg_pool2d(images, 4))


def test_sizes_are_rounded_to_what_the_network_takes():
    images = np.random.default_rng(0).integers(0, 256, (4, 80, 80, 3), dtype=np.uint8)
    network = trained_network(2, backbone=StridedBackbone(), size=80)
    generator = CAMMaskGenerator(network, scales=(1.0, 0.5), flip=False, device="cpu").fit(images, [0, 1, 0, 1])
    sides = []
    generator.network_.feature_map.register_forward_hook(lambda _, args, __: sides.append(args[0].shape[-1]))
    generator.transform(images)  # 40 is refused, 32 is the nearest multiple
    assert sides[-2:] == [80, 32]


def test_float64_networks(images, labels):
    exact = CAMMaskGenerator(trained_network(dtype=torch.float64), device="cpu").fit(images, labels)
    with torch.random.fork_rng(devices=[]):
        single = CAMMaskGenerator(trained_network(dtype=torch.float64).float(), device="cpu").fit(images, labels)
    np.testing.assert_allclose(exact.attention_maps(images), single.attention_maps(images), atol=1e-4)


# ------------------------------------------------------------- training


def test_a_backbone_is_copied_trained_and_fixed_by_the_seed(images, labels):
    backbone = TinyBackbone()
    before = copy.deepcopy(backbone.state_dict())
    first, again = (CAMMaskGenerator(backbone, **QUICK).fit(images, labels) for _ in range(2))
    other = CAMMaskGenerator(backbone, **{**QUICK, "random_state": 1}).fit(images, labels)
    assert all(torch.equal(backbone.state_dict()[name], before[name]) for name in before)
    weights = [generator.network_.state_dict()["head.weight"] for generator in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert weights[0].abs().max() > 0
    np.testing.assert_array_equal(first.classes_, [0, 1, 2])
    assert first.network_.preprocessor.image_size == SIZE  # the images', as the module names none


def test_a_backbone_of_timm():
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    backbone = create_backbone("test_efficientnet", pretrained=False)
    generator = CAMMaskGenerator(backbone, image_size=128, **QUICK)
    assert generator.fit_transform(images, list("ababab")).shape == (6, 64, 64)


def test_a_name_stands_for_pretrained_weights(images, labels, monkeypatch, tmp_path):
    """Without a connection and without a cache there are none; the error names both remedies."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for generator in (CAMMaskGenerator("resnet10t.c3_in1k", **QUICK), DenseMaskGenerator("resnet10t.c3_in1k", **QUICK)):
        with pytest.raises(ValueError, match=r"create_backbone\('resnet10t.c3_in1k', pretrained=False\)"):
            generator.fit(images, labels)
        assert not {"pretrained", "checkpoint_path"} & set(generator.get_params())


def test_a_trained_network_brings_its_size(images, labels):
    with pytest.raises(ValueError, match=r"image_size=48 .* DenseClassifier .* 32"):
        CAMMaskGenerator(trained_network(), image_size=48, device="cpu").fit(images, labels)


def test_the_trainer_stays_as_it_is(images, labels):
    trainer = Trainer(max_steps=2, batch_size=8)
    before = dict(vars(trainer))
    CAMMaskGenerator(TinyBackbone(), trainer=trainer, device="cpu").fit(images, labels)
    assert vars(trainer) == before


def test_progress_bar(images, labels, capsys):
    CAMMaskGenerator(TinyBackbone(), **QUICK, verbose=1).fit(images, labels)
    assert "training the classifier" in capsys.readouterr().err


# -------------------------------------------------- labels and inputs


@pytest.mark.parametrize("values", [["cat", "dog", "eel"], [-5, 2, 90]])
def test_any_labels(images, labels, values):
    names = np.array(values)[labels]
    generator = CAMMaskGenerator(trained_network(), device="cpu")
    masks = generator.fit_transform(images, names)
    np.testing.assert_array_equal(generator.classes_, values)
    np.testing.assert_array_equal(
        masks, CAMMaskGenerator(trained_network(), device="cpu").fit_transform(images, labels)
    )
    np.testing.assert_array_equal(
        generator.attention_maps(images, names), fitted(images, labels).attention_maps(images, labels)
    )


def test_unknown_labels_are_refused(images, labels):
    generator = fitted(images, labels)
    with pytest.raises(ValueError, match="1 labels that are not in classes_"):
        generator.attention_maps(images[:2], [0, 7])
    with pytest.raises(ValueError, match=r"shape \(3,\) for 2 images"):
        generator.attention_maps(images[:2], [0, 1, 2])
    with pytest.raises(ValueError, match="2 labels that are not in classes_"):
        generator.attention_maps(images[:2], ["cat", "dog"])


def test_missing_labels_are_refused(images):
    with pytest.raises(ValueError, match="y is None: expected class labels"):
        CAMMaskGenerator(trained_network(), device="cpu").fit(images)
    with pytest.raises(ValueError, match="y is None: expected class labels"):
        CAMMaskGenerator(trained_network(), device="cpu").fit_transform(images)


def test_a_dataset_brings_its_labels(images, labels):
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(images).movedim(-1, 1), torch.from_numpy(labels))
    masks = CAMMaskGenerator(trained_network(), device="cpu").fit_transform(dataset)
    np.testing.assert_array_equal(
        masks, CAMMaskGenerator(trained_network(), device="cpu").fit_transform(images, labels)
    )


@pytest.mark.parametrize("frame", [False, True])
def test_rows_of_pixels(images, labels, frame):
    rows = images.reshape(N, -1)
    rows = pd.DataFrame(rows, columns=[f"pixel{i}" for i in range(rows.shape[1])]) if frame else rows
    generator = CAMMaskGenerator(trained_network(), image_shape=(SIZE, SIZE, 3), device="cpu")
    masks = generator.fit_transform(rows, labels)
    np.testing.assert_array_equal(
        masks, CAMMaskGenerator(trained_network(), device="cpu").fit_transform(images, labels)
    )
    assert generator.n_features_in_ == SIZE * SIZE * 3
    with pytest.raises(ValueError, match="feature"):
        generator.transform(images.reshape(N, -1)[:, :-3] if not frame else rows.iloc[:, :-3])


def test_paths(tmp_path, images, labels):
    paths = [tmp_path / f"{i}.png" for i in range(N)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    masks = CAMMaskGenerator(trained_network(), device="cpu").fit_transform(paths, labels)
    np.testing.assert_array_equal(
        masks, CAMMaskGenerator(trained_network(), device="cpu").fit_transform(images, labels)
    )


# --------------------------------------------------- an estimator among others


def test_clone_and_parameters():
    generator = CAMMaskGenerator(TinyBackbone(), scales=(1.0, 2.0), sigma=2.0, trainer=Trainer(max_steps=3))
    copied = clone(generator)
    assert copied.get_params(deep=False).keys() == generator.get_params(deep=False).keys()
    assert copied.scales == (1.0, 2.0)
    assert copied.trainer.max_steps == 3
    copied.set_params(trainer__max_steps=5)
    assert generator.trainer.max_steps == 3
    assert "sigma=2.0" in repr(generator)


def test_pipeline(images, labels):
    pipeline = make_pipeline(CAMMaskGenerator(trained_network(), device="cpu"))
    expected = CAMMaskGenerator(trained_network(), device="cpu")
    np.testing.assert_array_equal(pipeline.fit_transform(images, labels), expected.fit_transform(images, labels))
    np.testing.assert_array_equal(pipeline.transform(images), expected.transform(images))


@pytest.mark.parametrize("method", ["transform", "attention_maps"])
def test_not_fitted(images, method):
    with pytest.raises(NotFittedError):
        getattr(CAMMaskGenerator(trained_network()), method)(images)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"scales": ()}, r"scales=\(\): expected a sequence of at least one finite factor above 0"),
        ({"scales": (1.0, 0.0)}, "above 0"),
        ({"scales": (1.0, -1.0)}, "above 0"),
        ({"scales": (1.0, float("nan"))}, "above 0"),
        ({"scales": (1.0, float("inf"))}, "finite"),
        ({"scales": ("a", "b")}, "scales="),
        ({"scales": [[1.0, 2.0]]}, "scales="),
        ({"scales": 1.0}, "'scales' parameter"),
        ({"flip": "yes"}, "'flip' parameter"),
        ({"use_bias": "no"}, "'use_bias' parameter"),
        ({"true_class": None}, "'true_class' parameter"),
        ({"sigma": -1.0}, "'sigma' parameter"),
        ({"sigma": float("inf")}, "'sigma' parameter"),
        ({"threshold": 1.5}, "'threshold' parameter"),
        ({"threshold": float("nan")}, "'threshold' parameter"),
        ({"trainer": "quick"}, "'trainer' parameter"),
        ({"trainer": Trainer(max_steps=0)}, "trainer: .*max_steps"),
        ({"image_size": 0}, "'image_size' parameter"),
        ({"mask_size": 0}, "'mask_size' parameter"),
        ({"batch_size": 0}, "'batch_size' parameter"),
        ({"device": "gpu7"}, "device='gpu7'"),
        ({"random_state": "seed"}, "'random_state' parameter"),
        ({"backbone": 3}, "'backbone' parameter"),
    ],
)
def test_bad_parameters_are_named_before_any_training(images, labels, parameters, message):
    generator = CAMMaskGenerator(**{"backbone": TinyBackbone(), **QUICK, **parameters})
    with pytest.raises(ValueError, match=message):
        generator.fit(images, labels)
    assert not [name for name in vars(generator) if name.endswith("_")]


@pytest.mark.parametrize("was_fitted", [False, True])
def test_a_failed_fit_leaves_no_half_fitted_state(images, labels, was_fitted):
    rows = images.reshape(N, -1)
    generator = CAMMaskGenerator(trained_network(), device="cpu", image_shape=(SIZE, SIZE, 3))
    if was_fitted:
        generator.fit(rows, labels)
    before = dict(vars(generator))
    generator.set_params(image_shape=(16, 16, 3), backbone=TinyBackbone(), trainer=Trainer(learning_rate=1e30))
    with pytest.raises(TrainingDivergedError):
        generator.fit(rows[:, : 16 * 16 * 3], labels)
    generator.set_params(**{name: before[name] for name in ("image_shape", "backbone", "trainer")})
    assert vars(generator) == before
    if was_fitted:
        assert generator.transform(rows).shape == (N, SIZE, SIZE)


def test_fitting_again_forgets_the_first_time(images, labels):
    generator = CAMMaskGenerator(trained_network(), device="cpu", image_shape=(SIZE, SIZE, 3))
    generator.fit(images.reshape(N, -1), labels)
    assert hasattr(generator, "n_features_in_")
    generator.fit(images, labels)
    assert not hasattr(generator, "n_features_in_")


def test_transform_of_given_classes(images, labels):
    names = np.array(["cat", "dog", "eel"])[labels]
    generator = fitted(images, names)
    masks = generator.transform(images, names)
    np.testing.assert_array_equal(masks, CAMMaskGenerator(trained_network(), device="cpu").fit_transform(images, names))
    assert (masks != generator.transform(images)).any()
    with pytest.raises(ValueError, match="1 labels that are not in classes_"):
        generator.transform(images[:1], ["fox"])


@pytest.mark.parametrize("batch_size", [3, 128])
def test_classify(images, labels, batch_size):
    generator = fitted(images, np.array(["cat", "dog", "eel"])[labels], batch_size=batch_size)
    network = trained_network().eval()
    with torch.no_grad():
        predicted = network(network.preprocessor(torch.from_numpy(images).movedim(-1, 1))).argmax(1).numpy()
    np.testing.assert_array_equal(generator.classify(images), np.array(["cat", "dog", "eel"])[predicted])
    with pytest.raises(NotFittedError):
        CAMMaskGenerator(trained_network()).classify(images)
