"""Pickles of networks: all of a network comes back, on any machine, and copies are not built anew."""

import copy
import pickle

import numpy as np
import pytest
import timm
import torch
from torch import nn

from skdfb.networks import DenseClassifier, create_backbone
from tests.helpers import TinyBackbone

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def timm_network(name="test_resnet", dtype=torch.float32, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = create_backbone(name, pretrained=False, **options).to(dtype)
        network = DenseClassifier(backbone, 3, image_size=64)
        nn.init.normal_(network.head.weight)
        nn.init.normal_(network.head.bias)
    return network.eval()


def custom_network(**_):
    network = DenseClassifier(TinyBackbone(), 3, image_size=64).eval()
    nn.init.normal_(network.head.weight)
    return network


def maps_of(network):
    with torch.no_grad():
        return network.logit_map(IMAGES.to(network.dtype))


def there_and_back(network):
    return pickle.loads(pickle.dumps(network))


def assert_same(network, other):
    assert type(other) is DenseClassifier
    assert torch.equal(maps_of(other), maps_of(network))
    assert other.preprocessor == network.preprocessor
    assert other.map_size == network.map_size
    state, other_state = network.state_dict(), other.state_dict()
    assert list(state) == list(other_state)
    assert all(torch.equal(state[name], other_state[name]) for name in state)
    for (name, parameter), (other_name, other_parameter) in zip(
        network.named_parameters(), other.named_parameters(), strict=True
    ):
        assert name == other_name
        assert parameter.requires_grad == other_parameter.requires_grad, name
    assert [module.training for module in network.modules()] == [module.training for module in other.modules()]


def holds_tensors(state):
    if isinstance(state, dict):
        return any(holds_tensors(value) for value in state.values())
    return (isinstance(state, list | tuple) and any(map(holds_tensors, state))) or isinstance(state, torch.Tensor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_timm_backbone_travels_by_name(dtype):
    network = timm_network(output_stride=8, dtype=dtype)
    assert not holds_tensors(network.__getstate__())
    assert_same(network, there_and_back(network))


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet"])
def test_other_families(name):
    options = {"image_size": 64} if name == "test_vit" else {"output_stride": 8}
    network = timm_network(name, **options)
    assert "weights" in network.__getstate__()
    assert_same(network, there_and_back(network))


def test_frozen_weights_and_modes():
    network = timm_network(output_stride=8)
    for parameter in network.feature_map.backbone.layer1.parameters():
        parameter.requires_grad_(False)
    network.feature_map.backbone.layer2.train()
    assert_same(network, there_and_back(network))
    assert_same(network, copy.deepcopy(network))


def test_a_module_of_ones_own_travels_as_it_is():
    network = custom_network()
    assert "weights" not in network.__getstate__()
    assert_same(network, there_and_back(network))


def test_a_changed_timm_model_travels_as_it_is():
    backbone = timm.create_model("test_resnet", pretrained=False, num_classes=0, output_stride=8)
    backbone.layer4 = nn.Sequential(backbone.layer4, nn.Tanh())
    network = DenseClassifier(backbone, 3, image_size=64).eval()
    assert "weights" not in network.__getstate__()
    assert_same(network, there_and_back(network))


def halve(module, inputs, output):
    return output / 2


@pytest.mark.parametrize("copied", [there_and_back, copy.deepcopy])
def test_hooks_travel(copied):
    network = timm_network(output_stride=8)
    network.feature_map.backbone.layer4.register_forward_hook(halve)
    without = maps_of(timm_network(output_stride=8))
    assert not torch.equal(maps_of(network), without)
    assert_same(network, copied(network))


@pytest.mark.parametrize("make", [timm_network, custom_network])
def test_a_copy_is_a_copy(make):
    network = make(output_stride=8)
    other = copy.deepcopy({"first": network, "second": network})
    assert other["first"] is other["second"]
    assert_same(network, other["first"])
    with torch.no_grad():
        other["first"].head.weight.zero_()
    assert network.head.weight.abs().sum() > 0


def test_a_device_that_is_not_there():
    network = timm_network(output_stride=8)
    state = network.__getstate__() | {"device": "cuda:97"}
    other = DenseClassifier.__new__(DenseClassifier)
    other.__setstate__(state)
    assert other.device.type in ("cpu", "cuda")
    assert_same(network, other.cpu())


def test_what_was_pickled_as_a_module_is_still_read():
    network = timm_network(output_stride=8)
    other = DenseClassifier.__new__(DenseClassifier)
    other.__setstate__(copy.deepcopy(vars(network)))
    assert_same(network, other)


def test_random_numbers_are_left_alone():
    network = timm_network("test_vit", image_size=64)
    before = torch.get_rng_state()
    there_and_back(network)
    copy.deepcopy(network)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_pickle_shares_nothing():
    network = timm_network(output_stride=8)
    other = DenseClassifier.__new__(DenseClassifier)
    other.__setstate__(pickle.loads(pickle.dumps(network.__getstate__())))
    assert np.shares_memory(network.head.weight.detach().numpy(), other.head.weight.detach().numpy()) is False
