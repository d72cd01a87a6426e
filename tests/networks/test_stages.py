"""Stages of backbones: which parameters belong to them, freezing, and what they output."""

from itertools import chain

import pytest
import timm
import torch
from torch import nn

from skdfb.networks._stages import (
    freeze_stages,
    has_trained_weights,
    keep_frozen,
    last_modules,
    n_trunk_stages,
    recorded_stages,
    stages_of,
    trunk_stages,
)
from tests.helpers import TinyBackbone

# Stages, those of the default trunk, and the modules that end these, without the stem.
FAMILIES = {
    "test_resnet": (5, 3, ("layer1", "layer2")),
    "test_vit": (7, 5, ("blocks.0", "blocks.1", "blocks.2", "blocks.3")),
    "test_efficientnet": (6, 5, ("blocks.0", "blocks.1", "blocks.2", "blocks.3")),
    "test_convnext": (6, 3, ("stages.0", "stages.1")),
    "mobilenetv3_small_050": (8, 5, ("blocks.0", "blocks.1", "blocks.2", "blocks.3")),
    "regnetx_002": (5, 4, ("s1", "s2", "s3")),
    "densenet121": (6, 3, ("features.transition1", "features.transition2")),
    "tf_efficientnet_lite0": (8, 6, ("blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4")),
}


def model_of(name):
    return timm.create_model(name, num_classes=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_stages_of_timm_families(name):
    backbone = model_of(name)
    n_stages, n_trunk, modules = FAMILIES[name]
    stages = stages_of(backbone)
    assert len(stages) == n_stages
    assert sorted(chain.from_iterable(stages)) == sorted(parameter for parameter, _ in backbone.named_parameters())
    assert n_trunk_stages(backbone) == n_trunk
    assert trunk_stages(backbone) == ()
    freeze_stages(backbone, n_trunk)
    assert trunk_stages(backbone) == modules
    assert last_modules(backbone)[: len(modules)] == modules
    frozen = {parameter for parameter, weight in backbone.named_parameters() if not weight.requires_grad}
    assert frozen == set(chain.from_iterable(stages[:n_trunk]))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
def test_recorded_stages_are_means_of_the_outputs_of_timm(name):
    backbone = model_of(name).eval()
    images = torch.rand(3, 3, *backbone.default_cfg["input_size"][1:])
    with torch.no_grad():
        expected = [
            feature_map.mean((2, 3))
            for feature_map in backbone.forward_intermediates(images, intermediates_only=True, output_fmt="NCHW")
        ]
        with recorded_stages(backbone, last_modules(backbone)) as means:
            backbone(images)
    # timm's levels leave out some stages, and the last one may be normalised.
    matched = [m for m in means.values() for e in expected if m.shape == e.shape and torch.allclose(m, e, atol=1e-5)]
    assert len(matched) >= 2
    assert not any(module._forward_hooks for module in backbone.modules())


def test_stages_of_another_module_are_its_children():
    backbone = TinyBackbone()
    assert stages_of(backbone) == [["first.weight", "first.bias"], ["second.weight", "second.bias"]]
    assert n_trunk_stages(backbone) == 1
    freeze_stages(backbone, 1)
    assert [weight.requires_grad for weight in backbone.parameters()] == [False, False, True, True]
    assert trunk_stages(backbone) == ()  # the stem alone
    freeze_stages(backbone, 0)
    assert not backbone.first.weight.requires_grad
    freeze_stages(backbone, 2)
    assert trunk_stages(backbone) == ("second",)
    with pytest.raises(ValueError, match=r"frozen_stages=3, but backbone TinyBackbone has 2 stages: expected at most"):
        freeze_stages(backbone, 3)


def test_stages_of_a_timm_model_without_coarse_groups_are_its_children():
    backbone = timm.create_model("rdnet_tiny", num_classes=0)
    prefixes = [{name.split(".")[0] for name in stage} for stage in stages_of(backbone)]
    assert {"stem"} in prefixes
    assert all(len(names) == 1 for names in prefixes)


def test_weights_frozen_by_the_user_are_a_trunk_up_to_the_first_gap():
    backbone = model_of("test_resnet")
    for name in ("conv1", "bn1", "layer1", "layer3"):
        backbone.get_submodule(name).requires_grad_(False)
    assert trunk_stages(backbone) == ("layer1",)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "repvgg_a0", "resnetv2_50x1_bit"])
def test_new_weights_do_not_count_as_trained(name):
    backbone = model_of(name)
    assert not has_trained_weights(backbone)
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.01)
    backbone.train()(torch.randn(2, 3, *backbone.default_cfg["input_size"][1:])).square().sum().backward()
    optimizer.step()
    assert has_trained_weights(backbone)


def test_modules_without_normalisation_do_not_count_as_trained():
    assert not has_trained_weights(TinyBackbone())


def test_frozen_parts_leave_training_mode():
    part = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    module = nn.Sequential(part, nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 2, 1)).train()
    part.requires_grad_(False)
    keep_frozen(module)
    # A layer without weights follows the others.
    assert [each.training for each in module] == [False, True, True]
    assert not any(each.training for each in part)
