"""Norms folded into convolutions: the formula in NumPy, what must stay as it is, and passes over images."""

import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from skdfb.images import BatchSize, as_images
from skdfb.masks import CAMMaskGenerator
from skdfb.networks import DenseClassifier, _folding, _inputs
from skdfb.networks._folding import FoldedNorms, folded_norms, folded_trunk
from skdfb.networks._inputs import run_over
from skdfb.networks._stages import freeze_stages, keep_frozen
from skdfb.scorers import Energy
from skdfb.training import Trainer, _run
from tests.detector.conftest import make_detector, make_images
from tests.devices.cases import interrupted_in_the_dense_stage
from tests.scorers.helpers import quick

# Rounding, relative to the largest number.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}


@pytest.fixture(autouse=True)
def small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let images of 16 pixels be worth it."""
    monkeypatch.setattr(_folding, "_LEAST_SIDE", 16)


def filled(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give each norm statistics and weights as after a training."""
    generator = torch.Generator().manual_seed(seed)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None:
            part.running_mean.normal_(generator=generator)
            part.running_var.uniform_(0.1, 3, generator=generator)
            if part.affine:
                nn.init.normal_(part.weight, generator=generator)
                nn.init.normal_(part.bias, generator=generator)
    return network.eval()


class Calls(TorchFunctionMode):
    """Counts the calls of functions."""

    def __init__(self) -> None:
        super().__init__()
        self.n: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n[func.__name__] += 1
        return func(*args, **(kwargs or {}))


def passed_twice(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, int]:
    """Return the outputs without and with folded norms, and how many norms are left then."""
    folded = FoldedNorms()
    with torch.no_grad():
        # Outside of the mode of the folding: what that leaves out is not called.
        first = folded.run(lambda: network(images))
        with Calls() as calls:
            second = folded.run(lambda: network(images))
    torch.testing.assert_close(first, network(images), rtol=0, atol=0)
    return first, second, calls.n["batch_norm"]


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE[expected.dtype] * float(expected.abs().max()))


@quick
@given(
    groups=st.sampled_from([1, 2, 4]),
    bias=st.booleans(),
    affine=st.booleans(),
    eps=st.sampled_from([1e-5, 1e-3, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 100),
)
def test_the_formula(groups: int, bias: bool, affine: bool, eps: float, dtype: torch.dtype, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        conv = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=groups, bias=bias, dtype=dtype)
        norm = nn.BatchNorm2d(8, eps=eps, affine=affine, dtype=dtype)
        network, images = filled(nn.Sequential(conv, norm), seed), torch.randn(3, 4, 6, 6, dtype=dtype)
    # Convolution, then normalisation, place by place.
    W, x = conv.weight.detach().numpy(), np.pad(images.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    gamma, beta = (norm.weight.detach().numpy(), norm.bias.detach().numpy()) if affine else (np.ones(8), np.zeros(8))
    expected = np.empty((3, 8, 3, 3))
    for channel in range(8):
        inputs = x[:, channel * groups // 8 * (4 // groups) :][:, : 4 // groups]
        for row, column in np.ndindex(3, 3):
            patch = inputs[:, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            value = (patch * W[channel]).sum((1, 2, 3)) + (conv.bias.detach().numpy()[channel] if bias else 0)
            value = (value - float(norm.running_mean[channel])) / np.sqrt(float(norm.running_var[channel]) + eps)
            expected[:, channel, row, column] = gamma[channel] * value + beta[channel]
    _, found, n_left = passed_twice(network, images)
    assert_same(found, torch.from_numpy(expected).to(dtype))
    assert n_left == 0


class Block(nn.Module):
    """Two convolutions with their norms; what becomes of the output of the first one differs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.second_norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Any:
        x = self.between(self.first(x))
        return self.second_norm(self.second(F.relu(x)))

    def between(self, x: Tensor) -> Tensor:
        return self.first_norm(x)


class Residual(Block):
    def between(self, x):
        return x + self.first_norm(x)


class ReadBefore(Block):
    def between(self, x):
        return self.first_norm(x) * x.mean()


class ReadInAList(Block):
    def between(self, x):
        return torch.stack([self.first_norm(x), x]).sum(0)


class NotNormalised(Block):
    def between(self, x):
        return x


class InPlace(Block):
    def between(self, x):
        return self.first_norm(x.relu_())


class TwoNorms(Block):
    def between(self, x):
        return self.first_norm(x) + self.second_norm(x)


class Transposed(Block):
    def between(self, x):
        return self.first_norm(x.mT)


class AskedForItsShape(Block):
    def between(self, x):
        assert x.shape[1] == x.size(1) == 4
        assert x.ndim == x.dim() == 4
        return self.first_norm(x)


class OfTheBatch(Block):
    """The norm learns from the batch, as in a training."""

    def between(self, x):
        return F.batch_norm(x, None, None, training=True)


class Standardised(Block):
    """The weight is computed anew in each pass."""

    def forward(self, x):
        weight = self.first.weight - self.first.weight.mean((1, 2, 3), keepdim=True)
        return self.second_norm(self.second(self.first_norm(F.conv2d(x, weight, padding=1))))


class Reads(torch.autograd.Function):
    """Reads its input where no function is called."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()


class ReadByItsOwn(Block):
    def between(self, x):
        return self.first_norm(Reads.apply(x))


class BiasOfTheImages(Block):
    """The bias is computed anew in each pass."""

    def forward(self, x):
        return self.first_norm(F.conv2d(x, self.first.weight, x.mean((0, 2, 3)).repeat(2)[:4], padding=1))


class TwoBiases(Block):
    """One weight and one norm, with two biases."""

    def forward(self, x):
        return sum(
            self.first_norm(F.conv2d(x, self.first.weight, bias=bias, padding=1))
            for bias in (self.first.bias, self.second.bias)
        )


class OneChannel(nn.Module):
    """Images without a batch, of which rows are the batch of the norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 1), nn.BatchNorm1d(8)

    def forward(self, x):
        return self.norm(self.conv(x[0]))


class WithGradients(Block):
    """Asks for gradients of its own map."""

    def forward(self, x):
        with torch.enable_grad():
            features = self.first_norm(self.first(x))
            (gradient,) = torch.autograd.grad(features.square().sum(), self.first.weight)
        return features.detach() * gradient.sum()


class Adapts(Block):
    """Its statistics follow the images, though it evaluates."""

    def forward(self, x):
        self.first_norm.running_mean += x.mean()
        return self.first_norm(self.first(x))


class SharedWeight(Block):
    """One convolution at two sizes, with one norm."""

    def between(self, x):
        return self.first_norm(x) + self.first_norm(self.first(F.pad(x[:, :3], (1, 1, 1, 1))))[:, :, 1:-1, 1:-1]


@pytest.mark.parametrize(
    ("block", "n_left"),
    [
        (Block, 0),
        (AskedForItsShape, 0),
        (Residual, 1),
        (ReadBefore, 1),
        (ReadInAList, 1),
        (NotNormalised, 0),
        (InPlace, 1),
        (TwoNorms, 2),
        (Transposed, 1),
        (OfTheBatch, 1),
        (Standardised, 1),
        (ReadByItsOwn, 1),
        (SharedWeight, 2),
        (BiasOfTheImages, 1),
        (TwoBiases, 0),
        (OneChannel, 1),
        (WithGradients, 1),
    ],
)
def test_an_output_that_is_read_otherwise_stays(block: type[Block], n_left: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, images = filled(block()), torch.randn(2, 3, 8, 8)
    expected, found, left = passed_twice(network, images)
    assert_same(found, expected)
    assert left == n_left


def test_a_convolution_without_its_norm() -> None:
    """The output of the network itself, which nothing reads."""
    network = filled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1)))
    expected, found, left = passed_twice(network, torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert_same(found, expected)
    assert left == 0


def test_statistics_that_follow_the_images() -> None:
    network, twin = filled(Adapts()), filled(Adapts())
    twin.load_state_dict(network.state_dict())
    folded, generator = FoldedNorms(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for images in torch.rand(4, 2, 3, 8, 8, generator=generator):
            assert_same(folded.run(lambda images=images: network(images)), twin(images))


@pytest.mark.parametrize("other", ["read", "returned", "read afterwards"])
def test_a_way_that_depends_on_the_images(other: str) -> None:
    class Depends(Block):
        def forward(self, x):
            out = self.first(x)
            if x.mean() < 0 and other == "read afterwards":
                return F.relu(self.first_norm(out), inplace=True) + out
            if x.mean() < 0:
                return out.sum() if other == "read" else out
            return self.first_norm(out)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = filled(Depends())
    folded, bright = FoldedNorms(), torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for images in (bright, bright, -bright, bright):
            assert_same(folded.run(lambda images=images: network(images)), network(images))


def test_an_error_in_the_first_batch_is_not_taken_for_a_batch() -> None:
    network, folded = filled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))), FoldedNorms()
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def failing() -> None:
        network(images)
        raise torch.OutOfMemoryError

    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            folded.run(failing)
    with torch.no_grad(), Calls() as calls:
        for _ in range(3):
            folded.run(lambda: network(images))
    assert calls.n["batch_norm"] == 1


def test_gradients_of_the_images() -> None:
    """Some scorers move the images along them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, images = filled(Block()), torch.randn(2, 3, 8, 8)
    folded, gradients = FoldedNorms(), []
    for _ in range(2):
        leaf = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(folded.run(lambda leaf=leaf: network(leaf)).square().sum(), leaf)
        gradients.append(gradient)
    assert_same(gradients[1], gradients[0])


# ------------------------------------------------------------- passes over images


class Backbone(nn.Module):
    """A backbone of two convolutions with norms."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.rest = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.stem(x))


def backbone() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return filled(Backbone())


@pytest.fixture
def network() -> DenseClassifier:
    return DenseClassifier(backbone(), 3, image_size=16).eval()


def features_of(network: DenseClassifier, n_images: int, batch_size: int = 8) -> tuple[Tensor, int]:
    """Return features of images, and how many norms are computed for them."""
    images = as_images(make_images(40)[0][:n_images], n_channels=3)
    with torch.no_grad(), Calls() as calls:
        batches = run_over(network, images, BatchSize(batch_size), None, lambda _, inputs: network.feature_map(inputs))
        return torch.cat(list(batches)), calls.n["batch_norm"]


def test_norms_are_computed_for_the_first_image_alone(
    network: DenseClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found, n_norms = features_of(network, 40)
    assert n_norms == 2
    monkeypatch.setattr(_inputs, "folded_norms", lambda *_: None)
    expected, n_norms = features_of(network, 40)
    assert n_norms == 2 * 5
    assert_same(found, expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(part._forward_hooks for part in network.modules())


def test_few_images_are_passed_as_before(network: DenseClassifier) -> None:
    _, n_norms = features_of(network, 12, batch_size=12)
    assert n_norms == 2


def test_changed_weights_are_folded_anew(network: DenseClassifier) -> None:
    features_of(network, 40)
    with torch.no_grad():
        network.feature_map.backbone.stem[0].weight.mul_(2)
        network.feature_map.backbone.rest[1].running_var.add_(1)
    found, _ = features_of(network, 40)
    expected, _ = features_of(network, 15, batch_size=15)
    assert_same(found[:15], expected)


@pytest.mark.parametrize("before", [False, True])
def test_a_hook_of_the_user_gets_the_output_of_a_convolution(network: DenseClassifier, before: bool) -> None:
    outputs: list[Tensor] = []
    stem = network.feature_map.backbone.stem
    handle = (
        stem[1].register_forward_pre_hook(lambda _, inputs: outputs.append(inputs[0]))
        if before
        else stem[0].register_forward_hook(lambda *args: outputs.append(args[2]))
    )
    features_of(network, 40)
    handle.remove()
    inputs = network.preprocessor(torch.from_numpy(make_images(40)[0]).movedim(-1, 1))
    with torch.no_grad():
        assert_same(torch.cat(outputs), stem[0](inputs))


def test_where_it_is_not_worth_it(network: DenseClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folded_norms(network, 15) is None
    assert folded_norms(network, 16) is not None
    assert folded_norms(DenseClassifier(nn.Conv2d(3, 4, 3), 3, image_size=16), 100) is None
    monkeypatch.setattr(_folding, "_LEAST_SIDE", 17)
    assert folded_norms(network, 16) is None


@pytest.mark.parametrize("kind", ["compiled", "scripted", "patched"])
def test_code_that_calls_no_function_of_torch(network: DenseClassifier, kind: str) -> None:
    stem = network.feature_map.backbone.stem
    if kind == "compiled":
        stem[1]._compiled_call_impl = lambda x: x
    elif kind == "scripted":
        with warnings.catch_warnings(action="ignore"):  # torch.jit is deprecated
            stem[2] = torch.jit.script(nn.ReLU())
    else:
        stem.forward = stem.forward
    assert folded_norms(network, 100) is None


def test_threads_share_a_network(network: DenseClassifier) -> None:
    expected, _ = features_of(network, 40)
    with ThreadPoolExecutor(4) as pool:
        for found, _ in pool.map(lambda _: features_of(network, 40), range(8)):
            assert torch.equal(found, expected)


def test_detectors_and_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores, maps and masks of one image more or less, with and without folding."""
    X, y = make_images(60)
    X_new = make_images(40, seed=1)[0]
    detector = make_detector(backbone=backbone()).fit(X, y)
    generator = CAMMaskGenerator(DenseClassifier(backbone(), 3, image_size=16), device="cpu").fit(X, y)
    calls = {
        "scores": detector.score_samples,
        "features": detector.transform,
        "probabilities": detector.segment,
        "maps": generator.attention_maps,
    }
    found = {name: call(X_new) for name, call in calls.items()}
    monkeypatch.setattr(_inputs, "folded_norms", lambda *_: None)
    for name, call in calls.items():
        np.testing.assert_allclose(found[name], call(X_new), rtol=1e-5, atol=1e-5, err_msg=name)


# ------------------------------------------------------------- frozen trunks in training


TRAINING = {"max_steps": 6, "batch_size": 16, "learning_rate": 0.1, "frozen_stages": 1}


def trained(**changes: Any) -> tuple[dict[str, Tensor], int]:
    """Return the weights of a network after a training with a frozen stem, and how often norms are called."""
    network, (X, y) = DenseClassifier(backbone(), 3, image_size=16), make_images(40)
    torch.nn.init.constant_(network.head.weight, 0.1)
    with Calls() as calls:
        Trainer(**TRAINING | changes).train(network, X, y, device="cpu", random_state=0)
    return network.state_dict(), calls.n["batch_norm"]


@pytest.mark.parametrize("changes", [{}, {"augmentation": None, "mixup": 0.2}, {"clip_grad_norm": 0.5}], ids=str)
def test_a_frozen_trunk(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found, n_norms = trained(**changes)
    assert all(torch.equal(tensor, found[name]) for name, tensor in trained(**changes)[0].items())
    monkeypatch.setattr(_run, "folded_trunk", lambda _: None)
    expected, n_before = trained(**changes)
    untrained = DenseClassifier(backbone(), 3, image_size=16).state_dict()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)
        assert torch.equal(tensor, untrained[name]) == ("backbone.stem" in name), name
    # Both norms in the example, then that of the rest in each step.
    assert (n_norms, n_before) == (2 + 6, 2 * 6)


@pytest.mark.parametrize("changes", [{"frozen_stages": 0}, {"precision": "bf16-mixed"}], ids=str)
def test_a_training_that_is_not_folded(changes: dict[str, Any]) -> None:
    assert trained(**changes)[1] == 2 * 6


def test_only_frozen_norms_behind_frozen_convolutions_are_folded() -> None:
    network = DenseClassifier(backbone(), 3, image_size=16)
    assert folded_trunk(network.train()) is None
    stem = network.feature_map.backbone.stem
    freeze_stages(network.feature_map.backbone, 1)
    keep_frozen(network)
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    # The stem; then nothing, since its convolution learns; then nothing, since its norm does.
    for n_left in (1, 2, 2):
        folded = folded_trunk(network)
        with Calls() as calls:
            (network(images) if folded is None else folded.run(lambda: network(images))).sum().backward()
        assert calls.n["batch_norm"] == n_left
        stem[0].weight.requires_grad_(n_left == 1)
        stem[1].train(n_left == 2)


class DrawsAndFollows(Backbone):
    """Draws random numbers in evaluation, too; and its frozen stem follows the rest, as a momentum encoder does."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.stem[0].weight.data.lerp_(self.rest[0].weight.data[:, :3], 0.1)
        return F.dropout(super().forward(x), 0.1, training=True)


def test_a_trunk_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = []
    for is_folded in (True, False):
        if not is_folded:
            monkeypatch.setattr(_run, "folded_trunk", lambda _: None)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network, (X, y) = DenseClassifier(filled(DrawsAndFollows()), 3, image_size=16), make_images(40)
            before = torch.get_rng_state()
            Trainer(**TRAINING).train(network, X, y, device="cpu", random_state=0)
            assert torch.equal(torch.get_rng_state(), before)
        weights.append(network.state_dict())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-3, atol=1e-4)


def test_a_bias_that_learns() -> None:
    """Though the weight of its convolution is frozen."""
    network, images = DenseClassifier(backbone(), 3, image_size=16), torch.full((4, 3, 16, 16), 0.5)
    freeze_stages(network.feature_map.backbone, 1)
    keep_frozen(network)
    bias = network.feature_map.backbone.stem[0].bias.requires_grad_()
    folded, gradients = folded_trunk(network), []
    for run in (folded.run, lambda compute: compute()):
        (gradient,) = torch.autograd.grad(run(lambda: network(images).square().sum()), bias)
        gradients.append(gradient)
    assert_same(*gradients)


def test_a_training_goes_on_to_the_same_weights(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = make_images()
    trainer = Trainer(**TRAINING, checkpoint_every=2)

    def detector(**changes: Any) -> Any:
        return make_detector(
            backbone=backbone(), scorer=Energy(), classifier_trainer=trainer, dense_trainer=trainer, **changes
        )

    with interrupted_in_the_dense_stage(monkeypatch):
        detector(checkpoint_dir=tmp_path).fit(X, y)
    found, whole = detector(checkpoint_dir=tmp_path).fit(X, y), detector().fit(X, y)
    for name, tensor in whole.dense_network_.state_dict().items():
        assert torch.equal(tensor, found.dense_network_.state_dict()[name]), name
