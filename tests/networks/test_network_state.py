"""Pickles and copies of networks, and the states in plain types that skops stores."""

import copy
import pickle

import joblib
import numpy as np
import pytest
import timm
import torch
from sklearn.base import clone
from torch import nn

from skdfb.networks import DenseClassifier, create_backbone
from skdfb.networks._network_state import network_state
from skdfb.networks._records import backbone_record
from tests.helpers import TinyBackbone


def timm_network(name="test_resnet", dtype=torch.float32, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = create_backbone(name, pretrained=False, **{"output_stride": 8} | options).to(dtype)
        network = DenseClassifier(backbone, 3, image_size=64)
        nn.init.normal_(network.head.weight)
        nn.init.normal_(network.head.bias)
    return network.eval()


def maps_of(network):
    with torch.no_grad():
        size = network.preprocessor.image_size
        images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
        return network.logit_map(images.to(network.dtype))


def by_state(network):
    """Store and restore a network as skops does."""
    other = DenseClassifier.__new__(DenseClassifier)
    other.__setstate__(copy.deepcopy(network.__getstate__()))
    return other


def by_pickle(network):
    return pickle.loads(pickle.dumps(network))


def assert_same(network, other):
    assert type(other) is type(network)
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
    return isinstance(state, torch.Tensor) or (isinstance(state, list | tuple) and any(map(holds_tensors, state)))


# -------------------------------------------------------------------- states


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_resnet", {}),
        ("test_convnext", {}),
        ("test_efficientnet", {}),
        ("test_vit", {"output_stride": None, "image_size": 64}),
        # with tables that they compute for themselves
        ("swinv2_tiny_window8_256", {"output_stride": None, "image_size": 128, "depths": (1, 1, 1, 1)}),
        ("eva02_tiny_patch14_224", {"output_stride": None, "image_size": 56, "depth": 1}),
    ],
)
def test_a_timm_backbone_travels_by_name(name, options, dtype):
    options = {key: value for key, value in ({"output_stride": 8} | options).items() if value is not None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = create_backbone(name, pretrained=False, **options).to(dtype)
        network = DenseClassifier(backbone, 3, image_size=options.get("image_size", 64)).eval()
        nn.init.normal_(network.head.weight)
    state = network_state(network)
    assert not holds_tensors(state)
    assert_same(network, by_state(network))


def test_frozen_weights_and_modes():
    network = timm_network()
    for parameter in network.feature_map.backbone.layer1.parameters():
        parameter.requires_grad_(False)
    network.feature_map.backbone.layer2.train()
    assert network_state(network) is not None
    for copied in (by_state, by_pickle, copy.deepcopy):
        assert_same(network, copied(network))


def test_a_state_shares_nothing_with_its_network():
    network = timm_network()
    state = network.__getstate__()
    state["backbone"]["options"]["output_stride"] = 32
    assert network_state(network)["backbone"]["options"] == {"output_stride": 8}
    state = network.__getstate__()
    for array in state["weights"].values():
        array.setflags(write=False)  # as where a file is mapped
    other = DenseClassifier.__new__(DenseClassifier)
    other.__setstate__(state)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    assert_same(network, timm_network())


class Scaled(DenseClassifier):
    """A user-defined subclass."""

    scale = 2.0

    def forward(self, images):
        return self.scale * super().forward(images)


class Cosine(nn.Linear):
    def forward(self, features):
        return super().forward(nn.functional.normalize(features, dim=-1))


def halve(module, inputs, output):
    return output / 2


def change_nothing(module, inputs, output):
    return None


def with_hook(network, hook=halve):
    network.feature_map.backbone.layer4.register_forward_hook(hook)
    return network


def with_head(network, head):
    network.head = head
    return network


def with_attribute(network, value, name="extra"):
    setattr(network, name, value)
    return network


def of_changed_backbone():
    backbone = timm.create_model("test_resnet", pretrained=False, num_classes=0, output_stride=8)
    backbone.layer4 = nn.Sequential(backbone.layer4, nn.Tanh())
    return DenseClassifier(backbone, 3, image_size=64).eval()


NOT_PLAIN = {
    "a user-defined backbone": lambda: DenseClassifier(TinyBackbone(), 3, image_size=64).eval(),
    "a changed backbone": of_changed_backbone,
    "a subclass": lambda: Scaled(timm_network().feature_map.backbone, 3, image_size=64).eval(),
    "a hook": lambda: with_hook(timm_network()),
    "a hook that changes nothing": lambda: with_hook(timm_network(), change_nothing),
    "a head without bias": lambda: with_head(timm_network(), nn.Linear(96, 3, bias=False)).eval(),
    "a head of another kind": lambda: with_head(timm_network(), Cosine(96, 3)).eval(),
    "a further module": lambda: with_attribute(timm_network(), nn.Linear(2, 2)).eval(),
    "a further attribute": lambda: with_attribute(timm_network(), "note"),
    "a further attribute of its own": lambda: with_attribute(timm_network(), "note", "_extra"),
}


@pytest.mark.parametrize("kind", NOT_PLAIN)
def test_a_state_that_would_be_incomplete_is_none(kind):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = NOT_PLAIN[kind]()
    assert network_state(network) is None
    for copied in (by_state, by_pickle, copy.deepcopy, copy.copy):
        other = copied(network) if not isinstance(network, Scaled) or copied is not by_state else by_pickle(network)
        assert_same(network, other)
        assert getattr(other, "extra", None) is None or type(other.extra) is type(network.extra)


def test_lost_settings_of_training_are_reported():
    network = timm_network()
    network.feature_map.backbone.bn1.momentum = 0.01
    with pytest.warns(
        UserWarning,
        match=r"stored by its name, without 1 settings that only matter in training, such as bn1\.momentum=0\.01",
    ):
        network_state(network)


def test_a_device_that_is_not_there():
    network = timm_network()
    other = DenseClassifier.__new__(DenseClassifier)
    other.__setstate__(network.__getstate__() | {"device": "cuda:97"})
    assert other.device.type in ("cpu", "cuda")
    assert_same(network, other.cpu())


@pytest.mark.parametrize(
    "options",
    [
        {"pretrained": True},
        {"checkpoint_path": "weights.pt"},
        {"pretrained_cfg_overlay": {"file": "weights.pt"}},
        {"cache_dir": "somewhere"},
        {"pretrained_cfg": {"hf_hub_id": "somebody/something"}},
    ],
)
def test_a_state_reads_nothing_from_elsewhere(options):
    state = timm_network().__getstate__()
    state["backbone"]["options"] |= options
    with pytest.raises(ValueError, match="would have weights read from elsewhere"):
        DenseClassifier.__new__(DenseClassifier).__setstate__(state)


def test_how_weights_were_read_is_no_part_of_a_state(tmp_path):
    weights = tmp_path / "weights.safetensors"
    from safetensors.torch import save_file

    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), weights)
    overlay = {"file": str(weights), "num_classes": 0}
    backbone = create_backbone("test_resnet", pretrained=True, output_stride=8, pretrained_cfg_overlay=overlay)
    network = DenseClassifier(backbone, 3, image_size=64).eval()
    weights.unlink()
    assert network_state(network)["backbone"]["options"] == {"output_stride": 8}
    assert_same(network, by_state(network))


# --------------------------------------------------------- pickles and copies


def test_a_copy_is_a_copy():
    network = timm_network()
    other = copy.deepcopy({"first": network, "second": network})
    assert other["first"] is other["second"]
    assert_same(network, other["first"])
    with torch.no_grad():
        other["first"].head.weight.zero_()
    assert network.head.weight.abs().sum() > 0
    assert copy.copy(network).head.weight is network.head.weight


def test_pickles_hold_the_module():
    network = timm_network()
    network.feature_map.backbone.bn1.momentum = 0.01
    assert by_pickle(network).feature_map.backbone.bn1.momentum == 0.01


class Weighted(DenseClassifier):
    """A network with an attribute that a state of names and arrays has, too."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.weights = [1, 2]


class WeightedBackbone(TinyBackbone):
    def __init__(self, weights):
        super().__init__()
        self.weights = weights


NAMED_WEIGHTS = {
    "of a subclass": lambda: Weighted(TinyBackbone(), 3, image_size=64),
    "of an instance": lambda: with_attribute(DenseClassifier(TinyBackbone(), 3, image_size=64), [1, 2], "weights"),
    "of a timm network": lambda: with_attribute(timm_network(), [1, 2], "weights"),
    "of a backbone": lambda: DenseClassifier(WeightedBackbone([1, 2]), 3, image_size=64),
    "parameter of a backbone": lambda: DenseClassifier(WeightedBackbone(nn.Parameter(torch.ones(2))), 3, image_size=64),
    "module of a network": lambda: with_attribute(timm_network(), nn.Linear(2, 2), "weights"),
}


@pytest.mark.parametrize("kind", NAMED_WEIGHTS)
@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, copy.copy, by_pickle, lambda network: clone(network, safe=False)],
    ids=["deepcopy", "copy", "pickle", "clone"],
)
def test_an_attribute_named_weights(kind, copied):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = NAMED_WEIGHTS[kind]().eval()
    other = copied(network)
    assert_same(network, other)
    holders = [network.feature_map.backbone, other.feature_map.backbone] if "backbone" in kind else [network, other]
    before, after = (holder.weights for holder in holders)
    assert before == after if isinstance(before, list) else type(before) is type(after)
    assert network.with_background().num_classes == 4


def train_in_place(network):
    with torch.no_grad():
        network.head.weight.add_(1)
    return float(network.head.weight.sum())


def test_another_process_may_change_what_it_gets():
    """joblib maps large arrays to files that are read-only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DenseClassifier(create_backbone("resnet18", pretrained=False, output_stride=16), 3, image_size=64)
    before = float(network.head.weight.detach().sum())
    (changed,) = joblib.Parallel(n_jobs=2)([joblib.delayed(train_in_place)(network)])
    assert changed == pytest.approx(before + network.head.weight.numel())


def test_random_numbers_are_left_alone():
    network = timm_network()
    before = torch.get_rng_state()
    by_state(network)
    assert torch.equal(torch.get_rng_state(), before)
    backbone = create_backbone("swinv2_tiny_window8_256", pretrained=False, image_size=128, depths=(1, 1, 1, 1))
    before = torch.get_rng_state()
    assert backbone_record(backbone) is not None  # builds the like of it twice, because of its tables
    assert torch.equal(torch.get_rng_state(), before)
    assert np.all(network.head.weight.detach().numpy() == timm_network().head.weight.detach().numpy())
