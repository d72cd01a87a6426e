"""DenseClassifier: Eq. 5 on maps of every layout, sizes, errors, and trained timm classifiers."""

import copy

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from skdfb.networks import DenseClassifier, create_backbone
from skdfb.utils import evaluation_mode
from tests.helpers import TinyBackbone


class Tokens(TinyBackbone):
    """The output of a transformer: prefix tokens, then places row by row, channels last."""

    def __init__(self, n_prefix: int = 0) -> None:
        super().__init__()
        self.num_prefix_tokens = n_prefix

    def forward(self, images: Tensor) -> Tensor:
        tokens = super().forward(images).flatten(2).transpose(1, 2)
        prefix = torch.full((len(tokens), self.num_prefix_tokens, tokens.shape[2]), 9.0)
        return torch.cat([prefix, tokens], 1)


class ChannelsLast(TinyBackbone):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).permute(0, 2, 3, 1)


class DeclaredChannelsLast(ChannelsLast):
    """All three sides are equal, so that only timm's output_fmt tells the layout."""

    output_fmt = "NHWC"


class OnlyIntermediates(TinyBackbone):
    """forward_features gives one pooled token, as PiT's does."""

    def forward_features(self, images: Tensor) -> Tensor:
        return self(images).mean((2, 3))[:, None]

    def forward_intermediates(self, images: Tensor, **options: object) -> list[Tensor]:
        assert options == {"indices": [-1], "norm": True, "output_fmt": "NCHW", "intermediates_only": True}
        return [self(images)]


LAYOUTS = {
    "NCHW": TinyBackbone,
    "NCHW_square": lambda: TinyBackbone(width=6),
    "NHWC": ChannelsLast,
    "NHWC_square": lambda: DeclaredChannelsLast(width=6),
    "tokens": Tokens,
    "class_token": lambda: Tokens(1),
    "registers": lambda: Tokens(5),
    "intermediates": OnlyIntermediates,
}


def seeded(make: object = TinyBackbone, num_classes: int = 3, image_size: int = 24) -> DenseClassifier:
    torch.manual_seed(0)
    network = DenseClassifier(make(), num_classes, image_size=image_size).eval()  # type: ignore[operator]
    nn.init.normal_(network.head.weight)
    nn.init.normal_(network.head.bias)
    return network


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_are_the_mean_over_places(layout: str, images: Tensor) -> None:
    """Eq. 5, place by place: W f + b at each place, and its mean for the image."""
    network = seeded(LAYOUTS[layout])
    weight, bias = network.head.weight.detach().double().numpy(), network.head.bias.detach().double().numpy()
    reference = TinyBackbone(network.num_features)
    reference.load_state_dict(network.feature_map.backbone.state_dict())
    with torch.no_grad():
        feature_map = reference(images).double().numpy()
        logit_map, logits = network.logit_map(images).numpy(), network(images).numpy()
    assert network.map_size == (6, 6)
    for index, features in enumerate(feature_map):
        expected = np.empty((3, 6, 6))
        for row in range(6):
            for column in range(6):
                for label in range(3):
                    expected[label, row, column] = weight[label] @ features[:, row, column] + bias[label]
        np.testing.assert_allclose(logit_map[index], expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(logits[index], expected.mean((1, 2)), rtol=0, atol=1e-5)
        np.testing.assert_allclose(logits[index], weight @ features.mean((1, 2)) + bias, rtol=0, atol=1e-5)


def test_a_map_of_another_size_has_its_own_places(images: Tensor) -> None:
    for layout in ("NCHW", "NHWC", "registers"):
        network = seeded(LAYOUTS[layout])
        assert network.logit_map(torch.zeros(2, 3, 48, 48)).shape == (2, 3, 12, 12), layout


def test_head_starts_at_zero() -> None:
    network = DenseClassifier(TinyBackbone(), 3, image_size=24)
    assert not network(torch.rand(2, 3, 24, 24)).any()


def test_parts_agree(images: Tensor) -> None:
    network = seeded()
    torch.testing.assert_close(network.features(images), network.feature_map(images).mean((2, 3)))
    torch.testing.assert_close(network.head(network.features(images)), network(images))
    torch.testing.assert_close(network.map_head(network.feature_map(images)), network.logit_map(images))


def test_attributes_follow_the_backbone() -> None:
    network = DenseClassifier(TinyBackbone(width=5, dtype=torch.float64), 4, image_size=32)
    assert (network.num_features, network.num_classes, network.map_size) == (5, 4, (8, 8))
    assert network.dtype == torch.float64
    assert network.device == torch.device("cpu")
    assert network.preprocessor.image_size == 32


def test_a_module_is_not_copied() -> None:
    backbone = TinyBackbone()
    assert DenseClassifier(backbone, 2, image_size=24).feature_map.backbone is backbone


@pytest.mark.parametrize(("image_size", "fallback_size", "expected"), [(None, None, 224), (None, 64, 64), (40, 64, 40)])
def test_size_of_a_module(image_size: int | None, fallback_size: int | None, expected: int) -> None:
    network = DenseClassifier(TinyBackbone(), 2, image_size=image_size, fallback_size=fallback_size)
    assert network.preprocessor.image_size == expected


def test_timm_names_size_and_normalisation() -> None:
    network = DenseClassifier("test_resnet", 2, pretrained=False, fallback_size=64)
    assert network.preprocessor.image_size == 160
    assert network.preprocessor.mean == (0.5, 0.5, 0.5)


class TestWithBackground:
    def test_old_logits_stay_and_the_new_one_is_zero(self, images: Tensor) -> None:
        network = seeded()
        grown = network.with_background()
        assert grown.num_classes == 4
        with torch.no_grad():
            logits, logit_map = grown(images), grown.logit_map(images)
            assert torch.equal(logits[:, :3], network(images))
            torch.testing.assert_close(logit_map[:, :3], network.logit_map(images), rtol=0, atol=1e-6)
        assert torch.equal(grown.head.weight[:3], network.head.weight)
        assert torch.equal(grown.head.bias[:3], network.head.bias)
        assert not logits[:, 3].any()
        assert not logit_map[:, 3].any()

    def test_nothing_is_shared(self, images: Tensor) -> None:
        network = seeded()
        before = network(images)
        grown = network.with_background()
        with torch.no_grad():
            for parameter in grown.parameters():
                parameter.add_(1.0)
        assert torch.equal(network(images), before)

    def test_dtype_stays(self) -> None:
        network = DenseClassifier(TinyBackbone(dtype=torch.float64), 2, image_size=24)
        assert network.with_background().dtype == torch.float64


class TestAcceptsSize:
    def test_convolutions_take_any(self) -> None:
        assert seeded().accepts_size(40)

    def test_position_embeddings_take_their_own(self) -> None:
        network = DenseClassifier("mixer_s16_224", 2, pretrained=False, image_size=64)
        assert network.accepts_size(64)
        assert not network.accepts_size(80)

    def test_mvit_refuses_by_index_error(self) -> None:
        network = DenseClassifier("mvitv2_tiny", 2, pretrained=False, image_size=128)
        assert network.accepts_size(128)
        assert not network.accepts_size(256)

    def test_nothing_is_left_behind(self) -> None:
        network = DenseClassifier("test_resnet", 2, pretrained=False, image_size=128)
        state = copy.deepcopy(network.state_dict())
        assert network.accepts_size(64)
        assert all(part.training for part in network.modules())
        for name, value in network.state_dict().items():
            assert torch.equal(value, state[name]), name


class TestTrial:
    def test_statistics_and_train_flags_stay(self) -> None:
        backbone = timm.create_model("test_resnet", num_classes=0)
        backbone.bn1.eval()
        flags = [part.training for part in backbone.modules()]
        state = copy.deepcopy(backbone.state_dict())
        DenseClassifier(backbone, 2, image_size=128)
        assert [part.training for part in backbone.modules()] == flags
        for name, value in backbone.state_dict().items():
            assert torch.equal(value, state[name]), name

    @pytest.mark.parametrize("training", [True, False])
    def test_no_stale_values_stay(self, training: bool) -> None:
        """LeViT keeps attention biases, computed from its weights, while it is in evaluation."""
        backbone = timm.create_model("levit_128s", num_classes=0).train(training)
        network = DenseClassifier(backbone, 2, image_size=224)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.endswith("attention_biases"):
                    parameter.copy_(torch.linspace(-9, 9, parameter.numel()).view_as(parameter))
        images = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        with torch.no_grad(), evaluation_mode(network):
            first = network.feature_map(images)
        with torch.no_grad():
            torch.testing.assert_close(first, copy.deepcopy(network).eval().feature_map(images), rtol=0, atol=0)

    def test_global_random_state_stays(self) -> None:
        backbone = timm.create_model("test_resnet", num_classes=5)
        state = torch.get_rng_state()
        DenseClassifier.from_classifier(backbone)
        assert torch.equal(torch.get_rng_state(), state)


class Pooled(TinyBackbone):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).mean((2, 3))


class Pyramid(TinyBackbone):
    def forward(self, images: Tensor) -> list[Tensor]:  # type: ignore[override]
        return [super().forward(images)]


class Ragged(Tokens):
    """Seven tokens fewer than a grid has."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[:, 7:]


class Broken(TinyBackbone):
    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("shapes cannot be multiplied")


class TestRefusals:
    @pytest.mark.parametrize(
        ("make", "reason"),
        [
            (Pooled, r"of shape \(1, 8\)"),
            (Pyramid, "a list"),
            (Ragged, r"of shape \(1, 29, 8\)"),
            (Broken, "RuntimeError: shapes cannot be multiplied"),
        ],
    )
    def test_no_map(self, make: type[TinyBackbone], reason: str) -> None:
        with pytest.raises(ValueError, match=f"backbone {make.__name__} gives no spatial feature map.*{reason}"):
            DenseClassifier(make(), 2, image_size=24)

    @pytest.mark.parametrize("size", [4, 8, 12])
    def test_small_map(self, size: int) -> None:
        side = size // 4
        with pytest.raises(
            ValueError, match=rf"TinyBackbone gives a {side} x {side} .*expected at least 4 x 4.*image_size="
        ):
            DenseClassifier(TinyBackbone(), 2, image_size=size)

    def test_small_map_of_timm_names_the_remedy(self) -> None:
        with pytest.raises(ValueError, match=r"'test_resnet' gives a 2 x 2 .*image_size=64.*output_stride=8"):
            DenseClassifier("test_resnet", 2, pretrained=False, image_size=64)
        network = DenseClassifier("test_resnet", 2, pretrained=False, image_size=64, output_stride=8)
        assert network.map_size == (8, 8)

    @pytest.mark.parametrize("name", ["eca_halonext26ts", "efficientformer_l1"])
    def test_families_of_one_size(self, name: str) -> None:
        with pytest.raises(ValueError, match=rf"'{name}' gives no .*image_size=128 .*leave image_size=None"):
            DenseClassifier(name, 2, pretrained=False, image_size=128)

    def test_the_remedies_for_a_transformer_of_another_size_work(self) -> None:
        """The message names two: no image_size, or a backbone built for it."""
        with pytest.raises(ValueError, match="gives no spatial") as raised:
            DenseClassifier(create_backbone("mixer_s16_224", pretrained=False), 2, image_size=64)
        assert "leave image_size=None" in str(raised.value)
        assert "create_backbone(name, image_size=64)" in str(raised.value)
        DenseClassifier(create_backbone("mixer_s16_224", pretrained=False), 2)
        DenseClassifier(create_backbone("mixer_s16_224", pretrained=False, image_size=64), 2, image_size=64)

    @pytest.mark.parametrize("backbone", [None, 3, TinyBackbone, lambda images: images, b"resnet18"])
    def test_no_module(self, backbone: object) -> None:
        with pytest.raises(TypeError, match=rf"backbone is a {type(backbone).__name__}: expected .*torch.nn.Module"):
            DenseClassifier(backbone, 2)  # type: ignore[arg-type]

    @pytest.mark.parametrize("options", [{"checkpoint_path": "w.pth"}, {"output_stride": 8}])
    def test_options_without_effect(self, options: dict[str, object]) -> None:
        with pytest.raises(ValueError, match=rf"backbone is a module, so {next(iter(options))} would have no effect"):
            DenseClassifier(TinyBackbone(), 2, image_size=24, **options)  # type: ignore[arg-type]

    def test_later_image_of_another_proportion(self) -> None:
        network = seeded(Tokens)
        with pytest.raises(ValueError, match=r"no spatial map for images of shape \(1, 3, 23, 28\); use square images"):
            network.feature_map(torch.zeros(1, 3, 23, 28))


LINEAR = ["test_resnet", "resnet18", "resnetv2_50x1_bit", "densenet121", "regnetx_002", "swin_tiny_patch4_window7_224"]
NOT_LINEAR = ["mobilenetv3_small_050", "test_vit", "convnext_atto", "ghostnet_050"]


class TestFromClassifier:
    @pytest.mark.parametrize("name", LINEAR)
    def test_logits_are_the_models_own(self, name: str) -> None:
        size = 128
        torch.manual_seed(0)
        options = {"img_size": size, "depths": (1, 1, 1, 1), "embed_dim": 24} if "swin" in name else {}
        model = timm.create_model(name, num_classes=5, **options).eval()
        classifier = model.get_classifier()
        nn.init.normal_(classifier.weight)
        nn.init.normal_(classifier.bias)
        network = DenseClassifier.from_classifier(model, image_size=size)
        # In the feature map's layout: untrained BiT grows so large inside that another one's rounding shows.
        images = torch.rand(2, 3, size, size).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            torch.testing.assert_close(network(images), model(images), rtol=1e-4, atol=1e-4)
        assert model.get_classifier() is classifier  # the model is left alone
        assert sum(value.shape == classifier.weight.shape for value in network.state_dict().values()) <= 1

    def test_classifier_without_bias(self) -> None:
        model = timm.create_model("test_resnet", num_classes=5)
        model.fc = nn.Linear(model.num_features, 5, bias=False)
        assert not DenseClassifier.from_classifier(model).head.bias.any()

    @pytest.mark.parametrize("name", NOT_LINEAR)
    def test_others_are_refused_by_name(self, name: str) -> None:
        options = {"img_size": 64} if "vit" in name else {}
        model = timm.create_model(name, num_classes=5, **options)
        with pytest.raises(ValueError, match=rf"model {type(model).__name__} .*train a head"):
            DenseClassifier.from_classifier(model, image_size=64 if "vit" in name else 128)

    @pytest.mark.parametrize("make", [lambda: timm.create_model("test_resnet", num_classes=0), TinyBackbone])
    def test_no_classifier(self, make: object) -> None:
        with pytest.raises(ValueError, match=r"has no linear classifier \(it is a (Identity|NoneType)\)"):
            DenseClassifier.from_classifier(make())  # type: ignore[operator]


class StridedStem(nn.Module):
    """A backbone that begins with a strided 1 x 1 convolution, as RepVGG does, and stores its input's layout."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1, stride=stride)

    def forward(self, images: Tensor) -> Tensor:
        self.channels_last = images.is_contiguous(memory_format=torch.channels_last)
        return self.stem(images)


@pytest.mark.parametrize(("stride", "channels_last"), [(1, True), (2, False)])
def test_layout_in_which_a_backward_pass_does_not_end_the_process(stride: int, channels_last: bool) -> None:
    """See ``_memory_format``; the backward pass itself is in the sweep over timm's families."""
    backbone = StridedStem(stride)
    DenseClassifier(backbone, 3, image_size=16)(torch.rand(2, 3, 16, 16))
    assert backbone.channels_last == channels_last
