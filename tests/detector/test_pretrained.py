"""The parts of a pre-trained backbone, views of layers, and the view of the network before its training."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import skdfb
from skdfb import DFBDetector, Trainer
from skdfb.detector._masks import mask_generator_of
from skdfb.detector._pretrained import with_head
from skdfb.fusion import TemperatureFusion
from skdfb.images import as_images
from skdfb.masks import CAMMaskGenerator
from skdfb.networks import DenseClassifier, create_backbone
from skdfb.scorers import KNN, MSP, ODIN, BackgroundLogit, Energy, Mahalanobis, Representation, ViM
from skdfb.scoring import JointScore
from tests.detector.conftest import make_detector

# Networks after a few steps have logits about 0, for which ViM warns.
pytestmark = pytest.mark.filterwarnings("ignore:alpha_ is:UserWarning")

SIDE = 32
MAHALANOBIS = "Mahalanobis(normalize=True, shrinkage='auto')"
PARTS = [
    ("foreground", "dense", "ViM()"),
    ("foreground_classifier", "classifier", "ViM()"),
    ("pretrained_relative", "pretrained", f"Relative{MAHALANOBIS}"),
    ("pretrained", "pretrained", MAHALANOBIS),
    ("pretrained_layer2", "dense.layer2", MAHALANOBIS),
]


def pretrained_backbone():
    """A backbone that counts as pre-trained: its batch statistics are not those of a new one."""
    backbone = create_backbone("test_resnet", pretrained=False, output_stride=8, random_state=0)
    generator = torch.Generator().manual_seed(0)
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
    return backbone


def detector_of(backbone=None, **changes):
    trainer = Trainer(max_steps=4, batch_size=16)
    parameters = {"classifier_trainer": trainer, "dense_trainer": trainer, "image_size": SIDE, "random_state": 0}
    parameters |= {"mask_generator": CAMMaskGenerator(scales=(1.0,)), "device": "cpu"}
    return DFBDetector(pretrained_backbone() if backbone is None else backbone, **parameters | changes)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    y = np.arange(120) % 3
    X = rng.integers(0, 120, (120, SIDE, SIDE, 3)).astype(np.uint8)
    X[np.arange(120), 8:24, 8:24, y] += 120
    return X, y


@pytest.fixture(scope="module")
def trunk_detector(images):
    return detector_of().fit(*images)


def parts_of(detector):
    return [(name, view, repr(scorer)) for name, view, scorer in detector.joint_score_.parts]


def test_default_parts(trunk_detector):
    assert parts_of(trunk_detector) == PARTS


def test_random_weights_have_the_parts_of_before(images):
    backbone = create_backbone("test_resnet", pretrained=False, output_stride=8, random_state=0)
    detector = detector_of(backbone).fit(*images)
    assert [name for name, *_ in parts_of(detector)] == ["foreground", "background_logit", "background_mahalanobis"]
    assert all(weight.requires_grad for weight in detector.dense_network_.parameters())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"scorer": [("foreground", "dense", Energy())], "background_scorer": BackgroundLogit()}, 2),
        ({"background_scorer": [BackgroundLogit()]}, 6),
        ({"fusion": TemperatureFusion(), "background_scorer": BackgroundLogit()}, 2),
        ({"classifier_trainer": Trainer(max_steps=4, batch_size=16, frozen_stages=0)}, 3),
        ({"classifier_trainer": Trainer(max_steps=4, batch_size=16, frozen_stages=2)}, 5),
    ],
    ids=["list", "background", "Eq. 7", "no trunk", "one stage"],
)
def test_number_of_parts(images, changes, expected):
    assert len(parts_of(detector_of(**changes).fit(*images))) == expected


def test_the_trunk_is_that_of_the_pretrained_backbone(trunk_detector, images):
    before = pretrained_backbone().state_dict()
    for network in (trunk_detector.classifier_, trunk_detector.dense_network_):
        after = network.feature_map.backbone.state_dict()
        same = {name for name in before if torch.equal(before[name], after[name])}
        trunk = {name for name in before if name.startswith(("conv1", "bn1", "layer1", "layer2"))}
        assert trunk <= same
        assert len(same - trunk) < len(set(before) - trunk) / 2


def test_trunk_views_are_means_of_the_pretrained_layers(trunk_detector, images):
    X, _ = images
    network = DenseClassifier(pretrained_backbone(), 3, image_size=SIDE).eval()
    outputs = {}
    backbone = network.feature_map.backbone
    backbone.layer2.register_forward_hook(lambda module, inputs, output: outputs.update(layer2=output))
    inputs = network.preprocessor(torch.from_numpy(X[:10]).permute(0, 3, 1, 2).float() / 255)
    with torch.no_grad():
        network(inputs)
    found = trunk_detector.represent(X[:10], ["dense.layer2", "dense"])
    assert_allclose(found["dense.layer2"].features, outputs["layer2"].mean((2, 3)), atol=1e-5)
    # Any scorer works on any view: layers have the logits of a linear discriminant.
    assert found["dense.layer2"].logits.shape == (10, 3)


def test_three_networks_run_their_trunk_once_per_batch(trunk_detector, images):
    networks = trunk_detector.dense_network_, trunk_detector.classifier_, trunk_detector.pretrained_network_
    calls = []
    # Modules inside the stages: those of a stage that is skipped are not called.
    hooks = [
        network.feature_map.backbone.get_submodule(f"{stage}.0").register_forward_hook(
            lambda *_, index=index, stage=stage: calls.append((index, stage))
        )
        for index, network in enumerate(networks)
        for stage in ("layer1", "layer2", "layer3")
    ]
    trunk_detector.score_and_classify(images[0][:10])
    of_dense = [(0, "layer1"), (0, "layer2"), (0, "layer3")]
    assert calls == [*of_dense, (1, "layer3"), (2, "layer3")]
    # With the parts on the dense network there is one pass, as the docstring says.
    parts = [part for part in trunk_detector.joint_score_.parts if part[1].startswith("dense")]
    one_pass = trunk_detector.refit_scorer(parts, background_scorer=[])
    calls.clear()
    one_pass.score_and_classify(images[0][:10])
    assert calls == of_dense
    for hook in hooks:
        hook.remove()
    assert not any(module._forward_hooks for module in networks[0].modules())


def test_batches_do_not_change_scores(trunk_detector, images):
    X, _ = images
    scores = trunk_detector.score_samples(X)
    split = [trunk_detector.score_samples(part) for part in (X[:7], X[7:50], X[50:])]
    assert_allclose(np.concatenate(split), scores, atol=1e-5)


def test_save_and_load(trunk_detector, images, tmp_path):
    X, y = images
    skdfb.save(trunk_detector, tmp_path / "model.safetensors")
    loaded = skdfb.load(tmp_path / "model.safetensors", device="cpu")
    assert_array_equal(loaded.score_samples(X[:20]), trunk_detector.score_samples(X[:20]))
    refitted = [each.refit_scorer(Energy(), X, y).score_samples(X[:20]) for each in (loaded, trunk_detector)]
    assert_allclose(*refitted, atol=1e-6)


def test_refit_keeps_the_parts_beside_the_foreground(trunk_detector, images):
    X, y = images
    refitted = parts_of(trunk_detector.refit_scorer(KNN(n_neighbors=5)))
    assert refitted[1] == ("foreground_classifier", "classifier", "KNN(n_neighbors=5)")
    assert refitted[2:] == PARTS[2:]
    other = trunk_detector.refit_scorer([("foreground", "dense", MSP()), ("logits", "dense.layer1", Energy())], X, y)
    assert np.ptp(other.score_parts(X)["logits"]) > 0
    with pytest.raises(ValueError, match="views of the training images that the scorers need were not kept"):
        trunk_detector.refit_scorer([("foreground", "dense.layer1", KNN(n_neighbors=5))])


def test_views_for_another_joint_score_do_not_change_this_one(images):
    X, y = images
    scorer = [("foreground", "dense", Energy()), ("layer", "dense.layer1", Energy())]
    detector = detector_of(scorer=scorer, background_scorer=[]).fit(X, y)
    before = detector.score_parts(X[:20])["layer"]
    other = JointScore([("a", "dense.layer2", Energy())], alpha=None)
    train, _ = detector.represent_training_images(X, y, other)
    assert_array_equal(detector.score_parts(X[:20])["layer"], before)
    # Views of new images have the head that the training images gave.
    assert_array_equal(
        detector.represent(X[:4], ["dense.layer2"])["dense.layer2"].weight, train[0]["dense.layer2"].weight
    )


def test_perturbed_inputs_do_not_change_the_layers(trunk_detector, images):
    X, y = images
    parts = trunk_detector.refit_scorer(ODIN(), X, y).score_parts(X[:20])
    expected = trunk_detector.score_parts(X[:20])
    for name, *_ in PARTS[2:]:
        assert_allclose(parts[name], expected[name], rtol=1e-5)


def test_the_view_of_the_network_before_its_training(images, tmp_path):
    X, y = images
    scorer = [("foreground", "dense", Energy()), ("before", "pretrained", ViM()), ("layer", "pretrained.layer4", KNN())]
    detector = detector_of(scorer=scorer, background_scorer=[]).fit(X, y)
    network = DenseClassifier(pretrained_backbone(), 3, image_size=SIDE).eval()
    inputs = network.preprocessor(torch.from_numpy(X[:10]).permute(0, 3, 1, 2).float() / 255)
    with torch.no_grad():
        expected = network.features(inputs)
    found = detector.represent(X[:10], ["pretrained"])["pretrained"]
    assert_allclose(found.features, expected, atol=1e-5)
    assert_allclose(found.logits, found.features @ found.weight.T + found.bias, rtol=1e-4, atol=1e-4)
    skdfb.save(detector, tmp_path / "model.safetensors")
    loaded = skdfb.load(tmp_path / "model.safetensors", device="cpu")
    assert_array_equal(loaded.score_samples(X[:20]), detector.score_samples(X[:20]))


def test_the_network_before_its_training_is_kept_only_where_it_is_scored(images, fitted, X_new):
    assert fitted.pretrained_network_ is None
    with pytest.raises(ValueError, match="there is no view 'pretrained': the network before its training was not kept"):
        fitted.represent(X_new, ["pretrained"])


def test_a_trained_classifier_with_a_trunk_has_layers_instead_of_the_network_before_its_training(
    trunk_detector, images
):
    detector = detector_of(trunk_detector.classifier_, image_size=None).fit(*images)
    layers = {"dense_layer4": "dense.layer4", "pretrained_layer2": "dense.layer2", "pretrained_layer1": "dense.layer1"}
    expected = PARTS[:2] + [(name, view, MAHALANOBIS) for name, view in layers.items()]
    assert parts_of(detector) == expected
    assert parts_of(detector.refit_scorer(KNN(n_neighbors=5)))[2:] == expected[2:]


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (
            "dense.layer9",
            r"there is no view 'dense\.layer9': expected a module of the backbone .*dense\.layer1, dense\.",
        ),
        ("background.layer1", "part 'a' is on the view 'background.layer1': expected one of"),
        ("trunk", "part 'a' is on the view 'trunk': expected one of"),
    ],
)
def test_unknown_views_are_refused_before_training(images, view, message):
    trainer = Trainer(max_steps=10**9)  # would never end
    detector = detector_of(scorer=[("a", view, Energy())], classifier_trainer=trainer)
    with pytest.raises(ValueError, match=message):
        detector.fit(*images)


def test_a_trained_classifier_has_no_view_before_its_training(fitted, X, y):
    detector = make_detector(
        backbone=fitted.classifier_,
        scorer=[("foreground", "dense", Energy()), ("before", "pretrained", Energy())],
        background_scorer=[],
        fusion=None,
        alpha=0.2,
    )
    with pytest.raises(ValueError, match="a part is on the view 'pretrained', but backbone is a DenseClassifier"):
        detector.fit(X, y)


def test_sizes_of_layers_are_checked_before_training(images):
    trainer = Trainer(max_steps=10**9)  # would never end
    scorer = [("foreground", "dense", Energy()), ("layer", "dense.layer1", ViM(n_components=40))]
    # 96 features in the last layer, 32 in the first.
    with pytest.raises(ValueError, match=r"part 'layer', .*n_components=40 leaves no residual of the 32"):
        detector_of(scorer=scorer, classifier_trainer=trainer).fit(*images)


def test_score_background_names_the_remedy(trunk_detector, images):
    with pytest.raises(ValueError, match="there is no background part"):
        trunk_detector.score_background(images[0][:4])
    detector = trunk_detector.refit_scorer(background_scorer=Mahalanobis(shrinkage="auto"), X=images[0], y=images[1])
    assert detector.score_background(images[0][:4]).shape == (4,)


def test_masks_are_made_at_one_scale(images):
    """As long as no generator is given; a network that starts from random weights gets the four scales of the paper."""
    trained, random = pretrained_backbone(), create_backbone("test_resnet", pretrained=False, output_stride=8)
    for backbone, scales in ((trained, (1.0,)), (random, CAMMaskGenerator().scales)):
        detector = detector_of(backbone, mask_generator=None, batch_size=50)
        generator = mask_generator_of(detector, detector._classifier(as_images(images[0]), 0))
        assert (generator.scales, generator.batch_size) == (scales, 50)
    given = CAMMaskGenerator(scales=(0.5, 1.0))
    detector = detector_of(trained, mask_generator=given)
    assert mask_generator_of(detector, detector._classifier(as_images(images[0]), 0)) is given


def test_a_fit_with_four_scales_does_not_go_on_with_masks_of_one(images, tmp_path):
    """The default of a pre-trained backbone is not ``CAMMaskGenerator()``."""
    first, second = (
        detector_of(mask_generator=generator, checkpoint_dir=tmp_path).fit(*images)
        for generator in (None, CAMMaskGenerator())
    )
    assert first.training_history_["dense"] != second.training_history_["dense"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_heads_are_not_rounded_to_the_features_of_a_network_in_half_precision(dtype):
    rng = np.random.default_rng(0)
    features, weight, bias = torch.from_numpy(rng.normal(size=(5, 8))).to(dtype), rng.normal(size=(3, 8)), np.ones(3)
    given = Representation(
        features=features, logits=features[:, :3], weight=features[:3], bias=torch.zeros(3, dtype=dtype)
    )
    found = with_head(given, (weight.astype(np.float32), bias.astype(np.float32)))
    np.testing.assert_allclose(found.logits, features.double().numpy() @ weight.T + 1, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.weight, weight, rtol=1e-6)
