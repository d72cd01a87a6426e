"""Networks with equal first stages: these run once, and nothing else changes."""

import copy
import threading

import pytest
import torch
from torch import nn

from skdfb.networks import DenseClassifier, create_backbone
from skdfb.networks._shared_trunk import SharedTrunk, _all_equal, n_equal_stages
from skdfb.networks._stages import n_trunk_stages, stages_of
from tests.helpers import TinyBackbone

FAMILIES = ["test_resnet", "test_efficientnet", "test_convnext", "test_vit", "regnetx_002", "densenet121"]


def network_of(name):
    backbone = create_backbone(name, pretrained=False, random_state=0)
    return DenseClassifier(backbone, 3, image_size=None if "vit" in name else 128).eval()


def passes(trunk, networks, images):
    """The feature maps of the networks, one after the other."""
    maps = []
    for network in networks:
        with trunk.forward_pass(network):
            maps.append(network.feature_map(images))
    return maps


def with_other_tail(network, n_shared):
    """A copy with other weights after the first stages."""
    other = copy.deepcopy(network)
    backbone, generator = other.feature_map.backbone, torch.Generator().manual_seed(0)
    for name in (name for stage in stages_of(backbone)[n_shared:] for name in stage):
        weight = backbone.get_parameter(name).data
        weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return other


def images_for(network, n=2):
    size = network.preprocessor.image_size
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_maps_are_those_of_whole_passes(name):
    source = network_of(name)
    n_shared = n_trunk_stages(source.feature_map.backbone)
    others = [with_other_tail(source, n_shared), copy.deepcopy(source)]
    expected = [network.feature_map(images_for(source)) for network in (source, *others)]
    trunk = SharedTrunk(source, others)
    for images in (images_for(source), images_for(source) / 2, images_for(source)):
        maps = passes(trunk, (source, *others), images)
    for found, wanted in zip(maps, expected, strict=True):
        assert torch.equal(found, wanted)
    for module in (module for network in (source, *others) for module in network.modules()):
        assert "forward" not in vars(module)
        assert not module._forward_hooks


@torch.no_grad()
def test_the_trunk_runs_once():
    source = network_of("test_resnet")
    other = with_other_tail(source, 3)
    trunk = SharedTrunk(source, [other])
    calls = {}
    for name in ("layer1", "layer2", "layer3"):
        module = other.feature_map.backbone.get_submodule(name)
        calls[name] = []
        # One place in from the stage, since the stage itself is what is skipped.
        module[0].register_forward_hook(lambda *_, name=name: calls[name].append(1))
    passes(trunk, (source, other), images_for(source))
    assert calls == {"layer1": [], "layer2": [], "layer3": [1]}


@torch.no_grad()
def test_other_weights_or_statistics_share_nothing_more():
    source = network_of("test_resnet")
    assert n_equal_stages(source, copy.deepcopy(source)) == len(stages_of(source.feature_map.backbone))
    other = copy.deepcopy(source)
    other.feature_map.backbone.layer2[0].bn1.running_mean.add_(1)
    assert n_equal_stages(source, other) == 2
    # The answer is not kept: weights may change.
    next(other.feature_map.backbone.parameters()).mul_(2)
    assert n_equal_stages(source, other) == 0
    assert n_equal_stages(source, network_of("test_convnext")) == 0
    expected = other.feature_map(images_for(source))
    assert torch.equal(passes(SharedTrunk(source, [other]), (source, other), images_for(source))[1], expected)


@torch.no_grad()
def test_statistics_without_weights_count():
    backbone = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(2)), nn.BatchNorm2d(3, affine=False))
    backbone.append(nn.Conv2d(3, 3, 1))
    source = DenseClassifier(backbone, 3, image_size=32).eval()
    other = copy.deepcopy(source)
    assert n_equal_stages(source, other) == 3
    other.feature_map.backbone[2].running_mean.add_(1)
    assert n_equal_stages(source, other) == 0


class Forgetful(nn.Module):
    """A backbone whose last stage also takes what an early one left: it cannot be entered in the middle."""

    def __init__(self):
        super().__init__()
        self.stem, self.early, self.late = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, images):
        first = self.early(self.stem(images))
        return self.late(first) + first.mean() * self.stem(images).sum()


class Changing(nn.Module):
    """A backbone whose last stage changes its input in place."""

    def __init__(self):
        super().__init__()
        self.stem, self.early, self.late = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, images):
        return self.late(self.early(self.stem(images)).mul_(2))


@pytest.mark.parametrize("backbone", [Forgetful(), Changing(), TinyBackbone()])
@torch.no_grad()
def test_any_module_gives_what_it_gives_alone(backbone):
    source = DenseClassifier(backbone, 3, image_size=32).eval()
    other = copy.deepcopy(source)
    list(other.feature_map.backbone.children())[-1].weight.mul_(2)
    images = images_for(source)
    expected = other.feature_map(images)
    assert torch.equal(passes(SharedTrunk(source, [other]), (source, other), images)[1], expected)


@torch.no_grad()
def test_a_pass_without_its_source_runs_all_stages():
    source = network_of("test_resnet")
    other = with_other_tail(source, 3)
    trunk = SharedTrunk(source, [other])
    with trunk.forward_pass(other):
        assert torch.equal(other.feature_map(images_for(source)), other.feature_map(images_for(source)))


@torch.no_grad()
def test_other_threads_run_all_stages():
    source = network_of("test_resnet")
    other = with_other_tail(source, 3)
    images = [images_for(source), 1 - images_for(source)]
    expected = [other.feature_map(inputs) for inputs in images]
    found = [None] * 2
    inside, wait = threading.Barrier(2), threading.Event()

    def score(index):
        with torch.no_grad():
            trunk = SharedTrunk(source, [other])
            with trunk.forward_pass(source):
                source.feature_map(images[index])
            with trunk.forward_pass(other):
                inside.wait(10)  # both threads have replaced the stages
                found[index] = other.feature_map(images[index])
                if index == 0:
                    wait.wait(10)  # leaves last
        if index == 1:
            wait.set()

    threads = [threading.Thread(target=score, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    outside = other.feature_map(images[0])  # in this thread nothing is replaced
    for thread in threads:
        thread.join()
    assert torch.equal(outside, expected[0])
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not any("forward" in vars(module) for module in other.modules())


@torch.no_grad()
def test_an_error_leaves_the_modules_as_they_were():
    source = network_of("test_resnet")
    other = with_other_tail(source, 3)
    own = other.feature_map.backbone.layer1
    own.forward = own.forward  # somebody's replacement
    kept = own.forward
    trunk = SharedTrunk(source, [other])
    with trunk.forward_pass(source):
        source.feature_map(images_for(source))
    with pytest.raises(RuntimeError, match="stop"), trunk.forward_pass(other):
        raise RuntimeError("stop")
    assert own.forward is kept
    assert "forward" not in vars(other.feature_map.backbone.layer2)


def test_a_stage_without_tensors_is_equal():
    assert _all_equal([])
    assert not _all_equal([(torch.zeros(2), torch.zeros(3))])
    assert not _all_equal([(torch.zeros(2), torch.zeros(2)), (torch.zeros(2), torch.ones(2))])
