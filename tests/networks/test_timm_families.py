"""Every family of timm gives a map of the right width and the right order of places."""

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from skdfb.networks import DenseClassifier
from skdfb.networks._folding import FoldedNorms
from skdfb.networks._layer_maps import LAST_LAYER, choose_layer, layer_map_sizes, recorded_map
from skdfb.networks._layers import recorded_layers
from skdfb.networks._shared_trunk import SharedTrunk
from skdfb.networks._stages import stages_of


class Member(NamedTuple):
    """A small member of a family, at a size that gives at least 4 x 4 places."""

    name: str
    size: int
    options: dict[str, Any] = {}  # noqa: RUF012  # never changed


VIT = {"depth": 2, "embed_dim": 48, "num_heads": 3}

FAST = [
    Member("test_resnet", 128),
    Member("resnetv2_50x1_bit", 64, {"output_stride": 16}),
    Member("regnetx_002", 128),
    Member("test_efficientnet", 128),
    Member("mobilenetv3_small_050", 128),
    Member("mobilenetv4_conv_small", 128),
    Member("ghostnet_050", 128),
    Member("convnext_atto", 128),
    Member("densenet121", 128, {"block_config": (1, 1, 1, 1)}),
    Member("deit_tiny_distilled_patch16_224", 64),
    Member("test_vit", 64),
    Member("swin_tiny_patch4_window7_224", 128, {"depths": (1, 1, 1, 1), "embed_dim": 24}),
    Member("eva02_tiny_patch14_224", 56, {"depth": 2}),
    Member("maxvit_pico_rw_256", 128, {"depths": (1, 1, 1, 1)}),
    Member("sequencer2d_s", 128, {"layers": (1, 1, 1, 1)}),
    Member("test_mambaout", 128),
    Member("pit_ti_224", 128),
    Member("levit_128s", 224),
]
SLOW = [
    # convolutional
    Member("resnet10t", 128),
    Member("resnet18", 128),
    Member("seresnet18", 128),
    Member("legacy_seresnet18", 128),
    Member("ecaresnet26t", 128),
    Member("skresnet18", 128),
    Member("resnest14d", 128),
    Member("res2net50_14w_8s", 128),
    Member("resnetv2_18", 128),
    Member("regnety_002", 128),
    Member("regnetz_b16", 128),
    Member("rdnet_tiny", 128),
    Member("densenet121", 128),
    Member("vgg11", 128),
    Member("cs3darknet_focus_s", 128),
    Member("cspnext_tiny", 256),
    Member("dla46_c", 128),
    Member("dpn48b", 128),
    Member("hrnet_w18_small", 128),
    Member("repvgg_a0", 256),
    Member("gernet_s", 128),
    Member("mobileone_s0", 256),
    Member("nf_regnet_b0", 128),
    Member("nf_resnet26", 128),
    Member("eca_nfnet_l0", 128),
    Member("legacy_xception", 128),
    Member("xception41", 128),
    Member("inception_v3", 192),
    Member("inception_v4", 299),
    Member("inception_resnet_v2", 192),
    Member("nasnetalarge", 256),
    Member("selecsls42", 256),
    Member("tresnet_m", 128),
    Member("ese_vovnet19b_slim_dw", 128),
    Member("hgnetv2_b0", 128),
    Member("convmixer_768_32", 256),
    Member("convnextv2_atto", 128),
    Member("inception_next_atto", 128),
    Member("mambaout_femto", 128),
    Member("starnet_s050", 128),
    # made for phones
    Member("efficientnet_b0", 256),
    Member("hardcorenas_a", 128),
    Member("mnasnet_small", 128),
    Member("fbnetc_100", 256),
    Member("mobilenetv2_050", 128),
    Member("mixnet_s", 256),
    Member("tinynet_e", 128),
    Member("mobilenetv4_hybrid_medium", 256),
    Member("ghostnetv2_100", 128),
    Member("ghostnetv3_050", 256),
    Member("repghostnet_050", 128),
    Member("repvit_m0_9", 128),
    Member("rexnet_100", 256),
    Member("fasternet_t0", 128),
    Member("lcnet_035", 256),
    # with attention
    Member("botnet26t_256", 128),
    Member("eca_halonext26ts", 256),
    Member("lambda_resnet26t", 128),
    Member("vit_tiny_patch16_224", 64),
    Member("deit3_small_patch16_224", 64),
    Member("vit_small_patch14_reg4_dinov2", 56),
    Member("vit_small_patch16_dinov3", 64),
    Member("vit_base_r50_s16_224", 64, {"depth": 2}),
    Member("vit_relpos_small_patch16_224", 64),
    Member("samvit_base_patch16", 128, {"depth": 2}),
    Member("naflexvit_base_patch16_gap", 64, VIT),
    Member("beit_base_patch16_224", 64, VIT),
    Member("vitamin_small_224", 64),
    Member("cait_xxs24_224", 64),
    Member("xcit_nano_12_p16_224", 64),
    Member("convit_tiny", 64),
    Member("tnt_s_patch16_224", 64),
    Member("volo_d1_224", 64),
    Member("crossvit_tiny_240", 120),
    Member("coat_lite_tiny", 128),
    Member("pit_ti_distilled_224", 128),
    Member("swin_s3_tiny_224", 224),
    Member("swinv2_tiny_window8_256", 128),
    Member("swinv2_cr_tiny_224", 128),
    Member("mvitv2_tiny", 128),
    Member("hiera_tiny_224", 128),
    Member("hieradet_small", 128),
    Member("pvt_v2_b0", 128),
    Member("twins_pcpvt_small", 128),
    Member("twins_svt_small", 128),
    Member("nest_tiny", 64),
    Member("davit_tiny", 128),
    Member("gcvit_xxtiny", 128),
    Member("focalnet_tiny_srf", 128),
    Member("coatnet_nano_rw_224", 128),
    Member("caformer_s18", 128),
    Member("poolformer_s12", 128),
    Member("edgenext_xx_small", 128),
    Member("efficientformer_l1", 224),
    Member("efficientformerv2_s0", 128),
    Member("efficientvit_b0", 256),
    Member("efficientvit_m0", 256),
    Member("efficientvim_m1", 256),
    Member("fastvit_t8", 128),
    Member("levit_conv_128s", 224),
    Member("mobilevit_xxs", 128),
    Member("mobilevitv2_050", 256),
    Member("nextvit_small", 128),
    Member("shvit_s1", 256),
    Member("swiftformer_xs", 128),
    Member("tiny_vit_5m_224", 128),
    Member("visformer_tiny", 128),
    Member("mixer_s16_224", 64),
    Member("gmlp_ti16_224", 64),
    Member("resmlp_12_224", 64),
]

# Their classifier takes several branches or stages; the map is that of the last one.
WIDTH_IS_NOT_NUM_FEATURES = {"crossvit_tiny_240", "efficientvim_m1"}
# forward_intermediates leaves out a last convolution or activation, or refuses norm=True.
INTERMEDIATES_DIFFER = {
    "efficientnet_b0",
    "test_efficientnet",
    "mnasnet_small",
    "fbnetc_100",
    "mobilenetv2_050",
    "mixnet_s",
    "tinynet_e",
    "rexnet_100",
    "ghostnet_050",
    "ghostnetv2_100",
    "ghostnetv3_050",
    "repghostnet_050",
    "fastvit_t8",
    "hrnet_w18_small",
    "nf_regnet_b0",
    "nf_resnet26",
    "eca_nfnet_l0",
    "hiera_tiny_224",
    "hieradet_small",
}

# There, timm's levels of features are not modules, or are branches that one module outputs together.
LEVELS_ARE_NOT_WHAT_MODULES_GIVE = {
    "crossvit_tiny_240",
    "efficientvim_m1",
    "hrnet_w18_small",
    "mvitv2_tiny",
    "twins_pcpvt_small",
    "twins_svt_small",
}
# Its blocks are called by functions of their own.
CALLS_NO_LAYER = {"coat_lite_tiny"}


def _parameters() -> Iterator[Any]:
    for member in FAST:
        yield pytest.param(member, id=f"{member.name}-{member.size}")
    for member in SLOW:
        yield pytest.param(member, id=f"{member.name}-{member.size}", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=_parameters())
def member(request: pytest.FixtureRequest) -> Member:
    chosen: Member = request.param
    return chosen


@pytest.fixture(scope="module")
def network(member: Member) -> DenseClassifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DenseClassifier(member.name, 3, pretrained=False, image_size=member.size, **member.options).eval()
        torch.nn.init.normal_(network.head.weight)
        torch.nn.init.normal_(network.head.bias)
        _set_batch_statistics(network, member.size)
    return network


def _set_batch_statistics(network: DenseClassifier, size: int) -> None:
    """Without them the output of deep random networks vanishes, or is the same everywhere."""
    for part in network.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.momentum = 1.0
            part.training = True
    with torch.no_grad():
        network(torch.rand(4, 3, size, size))
    network.eval()


@pytest.fixture(scope="module")
def images(member: Member) -> Tensor:
    return torch.rand(1, 3, member.size, member.size, generator=torch.Generator().manual_seed(1))


def test_width_is_what_comes_out(member: Member, network: DenseClassifier, images: Tensor) -> None:
    with torch.no_grad():
        feature_map = network.feature_map(images)
    assert feature_map.shape == (1, network.num_features, *network.map_size)
    assert min(network.map_size) >= 4
    differs = network.num_features != network.feature_map.backbone.num_features
    assert differs == (member.name in WIDTH_IS_NOT_NUM_FEATURES)


def test_classifier_is_mean_of_logit_map(network: DenseClassifier, images: Tensor) -> None:
    with torch.no_grad():
        logit_map, logits = network.logit_map(images), network(images)
    assert logit_map.shape == (1, 3, *network.map_size)
    scale = float(logit_map.abs().max())  # random weights without training give logits from 1e-10 to 1e16
    assert 0 < scale < np.inf
    torch.testing.assert_close(logits, logit_map.mean((2, 3)), rtol=0, atol=1e-5 * scale)


def test_a_place_of_the_map_is_a_place_of_the_image(member: Member, network: DenseClassifier, images: Tensor) -> None:
    """Each corner of the map changes most where its own corner of the image changes."""
    block, places = member.size // 4, network.map_size[0] // 4
    changed = images.repeat(4, 1, 1, 1)
    for image, (rows, columns) in zip(changed, _corners(block), strict=True):
        image[:, rows, columns] = 1 - image[:, rows, columns]
    with torch.no_grad():
        difference = (network.feature_map(changed) - network.feature_map(images)).double().abs().sum(1)  # (4, h, w)
    corners = [difference[:, rows, columns].sum((1, 2)) for rows, columns in _corners(places)]
    answer = torch.stack(corners, 1)  # (corner of the image, corner of the map)
    answer = answer.clamp(min=1e-6 * float(answer.max())).log()
    answer -= answer.mean(1, keepdim=True)  # some corners change the whole map more than others
    answer -= answer.mean(0)  # some places answer more to any change
    assert answer.argmax(0).tolist() == [0, 1, 2, 3], answer


def _corners(width: int) -> list[tuple[slice, slice]]:
    first, last = slice(width), slice(-width, None)
    return [(first, first), (first, last), (last, first), (last, last)]


def test_folded_norms_give_the_same_map(network: DenseClassifier, images: Tensor) -> None:
    # In float64, since these networks enlarge the rounding of float32, with norms as well.
    precise, folded = copy.deepcopy(network).double(), FoldedNorms()
    with torch.no_grad():
        expected = folded.run(lambda: precise.feature_map(images.double()))
        found = folded.run(lambda: precise.feature_map(images.double()))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10 * float(expected.abs().max()))


def test_map_is_timms_own(member: Member, network: DenseClassifier, images: Tensor) -> None:
    if member.name in INTERMEDIATES_DIFFER:
        pytest.skip("forward_intermediates of this family gives another map")
    # In the network's memory format, because deep networks round differently in another one.
    images = images.contiguous(memory_format=network.feature_map.memory_format)
    with torch.no_grad():
        feature_map = network.feature_map(images)
        (expected,) = network.feature_map.backbone.forward_intermediates(
            images, indices=[-1], norm=True, output_fmt="NCHW", intermediates_only=True
        )
    torch.testing.assert_close(feature_map, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_a_copy_trains(network: DenseClassifier, images: Tensor) -> None:
    trained = copy.deepcopy(network).train()
    before = {name: parameter.detach().clone() for name, parameter in trained.named_parameters()}
    batch = torch.cat([images, images.flip(-1)])
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    labels = torch.arange(2 * trained.map_size[0] * trained.map_size[1]).view(2, *trained.map_size) % 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # for stochastic depth
        F.cross_entropy(trained.logit_map(batch), labels).backward()
    gradients = [parameter.grad for parameter in trained.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert len(gradients) > len(before) / 2
    optimizer.step()
    stem = next(name for name, value in before.items() if value.ndim >= 2 and "token" not in name and "pos" not in name)
    for name in (stem, "head.weight", "head.bias"):
        assert not torch.equal(dict(trained.named_parameters())[name], before[name]), name
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_layers_give_each_channels_maximum(member: Member, network: DenseClassifier, images: Tensor) -> None:
    with torch.no_grad(), recorded_layers(network) as maxima:
        network.feature_map(images)
    assert not any(module._forward_hooks for module in network.modules())
    assert len(maxima) >= (0 if member.name in CALLS_NO_LAYER else 2)
    assert all(m.ndim == 2 and len(m) == 1 for m in maxima.values())
    if member.name not in LEVELS_ARE_NOT_WHAT_MODULES_GIVE:
        channels = {level["module"]: level["num_chs"] for level in network.feature_map.backbone.feature_info}
        assert {name: channels[name] for name in maxima} == {name: m.shape[1] for name, m in maxima.items()}


def test_layers_give_maps(member: Member, network: DenseClassifier, images: Tensor) -> None:
    """In the fast families, the maps are those that timm gives for the same level, in the same layout."""
    sizes = layer_map_sizes(network)
    assert list(sizes)[-1] == LAST_LAYER
    assert sizes[LAST_LAYER] == network.map_size
    layer = choose_layer(network, "auto")
    assert min(sizes[layer]) >= 8 or min(sizes[layer]) == max(min(size) for size in sizes.values())
    backbone = network.feature_map.backbone
    levels = [level["module"] for level in backbone.feature_info]
    for name, size in sizes.items():
        with torch.no_grad(), recorded_map(network, name) as recorded:
            network.feature_map(images)
        assert recorded[name].shape[2:] == size
        # Only in the fast families: timm may hook other places than its levels name.
        if name not in levels or member not in FAST:
            continue
        with torch.no_grad():
            (expected,) = backbone.forward_intermediates(
                images, indices=[levels.index(name)], norm=False, output_fmt="NCHW", intermediates_only=True
            )
        # The feature map has another memory format, in which deep networks round differently.
        torch.testing.assert_close(recorded[name], expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert not any(module._forward_hooks for module in network.modules())


@torch.no_grad()
def test_a_shared_trunk_changes_no_map(network: DenseClassifier, images: Tensor) -> None:
    other = copy.deepcopy(network)
    stages = stages_of(other.feature_map.backbone)
    # Another last stage, so that all stages before it are the same.
    for name in stages[-1]:
        other.feature_map.backbone.get_parameter(name).mul_(1.5)
    expected = other.feature_map(images)
    own = [vars(module).get("forward") for module in other.modules()]  # FasterNet's modules have one
    trunk = SharedTrunk(network, [other])
    for each in (network, other):
        with trunk.forward_pass(each):
            found = each.feature_map(images)
    assert torch.equal(found, expected)
    assert [vars(module).get("forward") for module in other.modules()] == own
