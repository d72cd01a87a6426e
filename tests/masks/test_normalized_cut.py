"""NormalizedCutMaskGenerator: the chain from images to masks, the layer, the head of class means."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import NearestCentroid
from torch import nn

from skdfb.masks import NormalizedCutMaskGenerator
from skdfb.networks import create_backbone
from tests.helpers import TinyBackbone
from tests.masks.helpers import SIZE, K, N, trained_network
from tests.networks.test_normalized_cut import oracle


class Colours(nn.Module):
    """The mean colour of each square of 4 x 4 pixels, about grey; a mirrored image gives the mirrored map."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(4)

    def forward(self, images):
        return self.pool(images)


def fitted(images, labels, **parameters):
    parameters = {"backbone": trained_network(), "device": "cpu", **parameters}
    return NormalizedCutMaskGenerator(**parameters).fit(images, labels)


@pytest.fixture
def objects():
    """Noisy red rectangles on green, each image another, and their true masks."""
    rng = np.random.default_rng(0)
    inside = np.zeros((N, SIZE, SIZE), dtype=bool)
    for one in inside:
        row, column, height, width = rng.integers(4, 10), rng.integers(4, 10), *rng.integers(10, 18, 2)
        one[row : row + height, column : column + width] = True
    images = np.where(inside[..., None], [220, 40, 40], [40, 200, 60]) + rng.integers(-20, 20, (N, SIZE, SIZE, 3))
    return images.astype(np.uint8), inside


# ------------------------------------------------------------------- masks


@pytest.mark.parametrize("affinity", ["linear", "binary"])
def test_the_chain_from_feature_maps_to_attention_maps(objects, labels, affinity):
    network = trained_network().eval()
    inputs = network.preprocessor(torch.from_numpy(objects[0]).movedim(-1, 1))
    with torch.no_grad():
        feature_maps = network.feature_map(inputs).double().numpy()
    found = fitted(objects[0], labels, affinity=affinity, tau=0.8).attention_maps(objects[0], labels)
    for one, features in zip(found, feature_maps, strict=True):
        cut = torch.from_numpy(oracle(features, 0.8, affinity))
        enlarged = F.interpolate(cut[None, None], (SIZE, SIZE), mode="bilinear")[0, 0].numpy()
        expected = gaussian_filter(enlarged, 4.0 * SIZE / 128, mode="nearest", truncate=4.0)
        expected = (expected - expected.min()) / (expected.max() - expected.min())
        np.testing.assert_allclose(one, expected, atol=1e-4)


def test_masks_are_thresholded_attention_maps(images, labels):
    generator = fitted(images, labels, threshold=0.3)
    maps = generator.attention_maps(images, labels)
    assert maps.dtype == np.float32
    np.testing.assert_array_equal(maps.min((1, 2)), 0)
    np.testing.assert_array_equal(maps.max((1, 2)), 1)
    masks = clone(generator).fit_transform(images, labels)
    np.testing.assert_array_equal(masks, np.where(maps >= np.float32(0.3), labels[:, None, None], K))


def test_objects_of_another_colour_are_cut_out(objects, labels):
    images, inside = objects
    masks = NormalizedCutMaskGenerator(Colours(), device="cpu").fit_transform(images, labels)
    found = masks != K
    assert ((found & inside).sum((1, 2)) / (found | inside).sum((1, 2)) > 0.7).all()
    np.testing.assert_array_equal(masks[found], np.broadcast_to(labels[:, None, None], masks.shape)[found])


@pytest.mark.parametrize("axis", [1, 2])
def test_flipped_images_give_flipped_masks(objects, labels, axis):
    generator = NormalizedCutMaskGenerator(Colours(), device="cpu").fit(objects[0], labels)
    maps = generator.attention_maps(objects[0])
    flipped = generator.attention_maps(np.flip(objects[0], axis).copy())
    np.testing.assert_allclose(np.flip(flipped, axis), maps, atol=1e-4)


def test_an_image_of_one_colour_is_all_background(labels):
    images = np.tile(labels[:, None, None, None] * np.uint8(70), (1, SIZE, SIZE, 3)).astype(np.uint8)
    assert (NormalizedCutMaskGenerator(Colours(), device="cpu").fit_transform(images, labels) == K).all()


def test_the_foreground_does_not_depend_on_the_class(images, labels):
    generator = fitted(images, labels)
    np.testing.assert_array_equal(
        generator.attention_maps(images, labels), generator.attention_maps(images, (labels + 1) % K)
    )
    np.testing.assert_array_equal(
        generator.transform(images, labels) == K, generator.transform(images, (labels + 1) % K) == K
    )


def test_transform_takes_the_predicted_classes(images, labels):
    generator = fitted(images, labels)
    network = trained_network().eval()
    with torch.no_grad():
        predicted = network(network.preprocessor(torch.from_numpy(images).movedim(-1, 1))).argmax(1).numpy()
    assert (predicted != labels).any()
    np.testing.assert_array_equal(generator.classify(images), predicted)
    np.testing.assert_array_equal(generator.transform(images), generator.transform(images, predicted))


@pytest.mark.parametrize("batch_size", [1, 3, 128])
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_batch_size_and_threads_do_not_matter(objects, labels, batch_size, n_jobs):
    parameters = {"backbone": trained_network().feature_map.backbone}
    expected = fitted(objects[0], labels, batch_size=5, **parameters)
    generator = fitted(objects[0], labels, batch_size=batch_size, n_jobs=n_jobs, **parameters)
    maps = expected.attention_maps(objects[0])
    np.testing.assert_allclose(generator.attention_maps(objects[0]), maps, atol=1e-5)
    np.testing.assert_allclose(generator.attention_maps(objects[0][::-1])[::-1], maps, atol=1e-5)
    assert torch.allclose(generator.network_.head.weight, expected.network_.head.weight, atol=1e-6)


def test_the_torch_modes_of_the_caller_do_not_matter(objects, labels):
    backbone = trained_network().feature_map.backbone
    expected = fitted(objects[0], labels, backbone=backbone)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        generator = fitted(objects[0], labels, backbone=backbone)
        maps = generator.attention_maps(objects[0])
    np.testing.assert_allclose(maps, expected.attention_maps(objects[0]), atol=1e-6)
    assert torch.equal(generator.network_.head.weight, expected.network_.head.weight)


@pytest.mark.parametrize("shape", [(N, 40, 24, 3), (N, 20, 20, 1), (N, 48, 48)])
def test_masks_have_the_images_own_size(labels, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    generator = fitted(images, labels)
    assert generator.transform(images[:4]).shape == (4, *shape[1:3])
    assert fitted(images, labels, mask_size=20).transform(images).shape == (N, 20, 20)


# ------------------------------------------------------------------ layers


@pytest.mark.parametrize(
    ("layer", "chosen"), [("auto", "feature_map"), ("first", "first"), ("second", "second"), ("feature_map",) * 2]
)
def test_layers_of_a_module(images, labels, layer, chosen):
    assert fitted(images, labels, layer=layer).layer_ == chosen


@pytest.mark.parametrize(("size", "chosen"), [(32, "feature_map"), (24, "first"), (16, "first")])
def test_auto_is_the_deepest_layer_with_8_x_8_places(labels, size, chosen):
    images = np.random.default_rng(0).integers(0, 256, (N, size, size, 3), dtype=np.uint8)
    assert fitted(images, labels, backbone=trained_network(size=size)).layer_ == chosen


def test_without_such_a_layer_it_is_the_deepest_of_the_largest(labels):
    images = np.random.default_rng(0).integers(0, 256, (N, 16, 16, 3), dtype=np.uint8)
    assert fitted(images, labels, backbone=nn.Sequential(nn.AvgPool2d(4), nn.ReLU())).layer_ == "feature_map"


TIMM = [
    ("test_resnet", 128, "layer3", "(64 x 64), 'layer1' (32 x 32)"),
    ("test_efficientnet", 128, "blocks.3", "'blocks.4'"),
    ("test_convnext", 128, "stages.2", "'stages.0' (32 x 32)"),
    ("test_vit", 128, "feature_map", "'blocks.0' (8 x 8)"),
    ("test_mambaout", 128, "stages.2", "'stages.0' (32 x 32)"),  # maps with channels last
]


@pytest.mark.parametrize(("name", "size", "chosen", "listed"), TIMM, ids=[case[0] for case in TIMM])
def test_layers_of_timm(name, size, chosen, listed, labels):
    images = np.random.default_rng(0).integers(0, 256, (N, 16, 16, 3), dtype=np.uint8)
    backbone = create_backbone(name, pretrained=False, image_size=size if "vit" in name else None, random_state=0)
    generator = fitted(images, labels, backbone=backbone, image_size=size)
    assert generator.layer_ == chosen
    assert generator.attention_maps(images).shape == (N, 16, 16)
    with pytest.raises(ValueError, match=r"layer='layer9': expected 'auto' or the name of a layer") as error:
        clone(generator).set_params(layer="layer9").fit(images, labels)
    assert listed in str(error.value)


def test_a_middle_layer_is_that_of_timm(objects, labels):
    backbone = create_backbone("test_resnet", pretrained=False, random_state=0).eval()
    generator = fitted(objects[0], labels, backbone=backbone, image_size=128, sigma=0.0, mask_size=8)
    inputs = generator.network_.preprocessor(torch.from_numpy(objects[0]).movedim(-1, 1))
    with torch.no_grad():
        feature_maps = backbone.forward_intermediates(inputs, indices=[3], intermediates_only=True)[0]
    for one, features in zip(generator.attention_maps(objects[0]), feature_maps.double().numpy(), strict=True):
        np.testing.assert_allclose(one, oracle(features, 0.2, "linear"), atol=1e-3)


# ------------------------------------------------------ networks and heads


def test_a_trained_network_is_taken_as_it_is(images, labels):
    network = trained_network().train()
    before = copy.deepcopy(network.state_dict())
    generator = fitted(images, labels, backbone=network)
    generator.transform(images)
    assert generator.network_ is not network
    for name, value in before.items():
        assert torch.equal(network.state_dict()[name], value)
        assert torch.equal(generator.network_.state_dict()[name], value)
    assert network.training
    assert not any(module._forward_hooks for module in generator.network_.modules())


def test_the_weights_of_a_backbone_are_not_trained(images, labels):
    backbone = TinyBackbone()
    generator = fitted(images, labels, backbone=backbone)
    for name, value in backbone.state_dict().items():
        assert torch.equal(generator.network_.feature_map.backbone.state_dict()[name], value)
    assert not generator.network_.training


def test_the_head_predicts_the_nearest_mean_of_features(images, labels):
    labels = np.sort(labels)  # classes of several sizes
    generator = fitted(images, labels, backbone=TinyBackbone())
    network = generator.network_
    with torch.no_grad():
        features = network.features(network.preprocessor(torch.from_numpy(images).movedim(-1, 1))).double().numpy()
    expected = NearestCentroid().fit(features, labels).predict(features)
    np.testing.assert_array_equal(generator.classify(images), expected)


def test_labels_of_any_kind(images, labels):
    names = np.array(["cat", "dog", "eel"])[labels]
    generator = fitted(images, names)
    np.testing.assert_array_equal(generator.classes_, ["cat", "dog", "eel"])
    np.testing.assert_array_equal(generator.transform(images, names), fitted(images, labels).transform(images, labels))


def test_diverged_networks_are_named(images, labels):
    network = trained_network()
    with torch.no_grad():
        network.feature_map.backbone.first.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="of 10 feature maps hold NaN or infinite numbers"):
        fitted(images, labels, backbone=network).transform(images)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"layer": 3}, "'layer' parameter"),
        ({"layer": "third"}, r"layer='third': .* 'first' \(16 x 16\), 'second' \(8 x 8\), 'feature_map' \(8 x 8\)"),
        ({"affinity": "square"}, "'affinity' parameter"),
        ({"tau": 1.0}, "'tau' parameter"),
        ({"tau": -1.1}, "'tau' parameter"),
        ({"tau": float("nan")}, "'tau' parameter"),
        ({"sigma": -1.0}, "'sigma' parameter"),
        ({"threshold": 1.5}, "'threshold' parameter"),
        ({"image_size": 0}, "'image_size' parameter"),
        ({"image_size": 48}, r"image_size=48 .* DenseClassifier .* 32"),
        ({"mask_size": 0}, "'mask_size' parameter"),
        ({"batch_size": 0}, "'batch_size' parameter"),
        ({"device": "gpu7"}, "device='gpu7'"),
        ({"backbone": 3}, "'backbone' parameter"),
        ({"backbone": trained_network(4)}, "4 outputs, which counts as trained, but y has 3 classes"),
    ],
)
def test_bad_parameters_are_named(images, labels, parameters, message):
    generator = NormalizedCutMaskGenerator(**{"backbone": trained_network(), "device": "cpu", **parameters})
    with pytest.raises(ValueError, match=message):
        generator.fit(images, labels)
    assert not [name for name in vars(generator) if name.endswith("_")]


def test_not_fitted(images):
    with pytest.raises(NotFittedError):
        NormalizedCutMaskGenerator(trained_network()).transform(images)
