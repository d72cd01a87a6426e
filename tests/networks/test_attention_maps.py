"""Eq. 1 against a slow oracle in NumPy and SciPy."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch import Tensor

from skdfb.networks import DenseClassifier, attention_maps
from skdfb.networks._attention_maps import gaussian_blur, min_max
from tests.helpers import TinyBackbone

Array = npt.NDArray[np.float64]

SIZE = 32
SCALES = (16, 32, 48, 64)  # 0.5, 1, 1.5, 2


@pytest.fixture
def network() -> DenseClassifier:
    torch.manual_seed(0)
    network = DenseClassifier(TinyBackbone(dtype=torch.float64), 3, image_size=SIZE).eval()
    torch.nn.init.normal_(network.head.weight)
    torch.nn.init.normal_(network.head.bias)
    return network


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def bilinear_weights(n_in: int, n_out: int, antialias: bool) -> Array:
    """Row i holds the weights of the inputs in output i; pixel centres lie at half integers."""
    ratio = n_in / n_out
    support = max(ratio, 1.0) if antialias else 1.0
    weights = np.zeros((n_out, n_in))
    for i in range(n_out):
        centre = (i + 0.5) * ratio
        if antialias:  # a triangle as wide as the step, normalised at the edge
            for j in range(n_in):
                weights[i, j] = max(0.0, 1 - abs(j + 0.5 - centre) / support)
            weights[i] /= weights[i].sum()
        else:  # outside, the pixel at the edge is repeated
            position = centre - 0.5
            below = int(np.floor(position))
            for j, weight in ((below, below + 1 - position), (below + 1, position - below)):
                weights[i, min(max(j, 0), n_in - 1)] += weight
    return weights


def resize(image: Array, height: int, width: int, antialias: bool = False) -> Array:
    rows = bilinear_weights(image.shape[0], height, antialias)
    columns = bilinear_weights(image.shape[1], width, antialias)
    return np.asarray(rows @ image @ columns.T)


def oracle(
    network: DenseClassifier,
    image: Array,
    target: int | None,
    sizes: tuple[int, ...],
    flip: bool,
    sigma: float,
    output: tuple[int, int],
    use_bias: bool = False,
) -> tuple[Array, int]:
    """Sum the class's activation over views, place by place; only the backbone is not written out."""
    weight = network.head.weight.detach().numpy()
    bias = network.head.bias.detach().numpy()

    def feature_map(view: Array) -> Array:
        with torch.no_grad():
            return np.asarray(network.feature_map(torch.from_numpy(view.copy())[None])[0].numpy())

    if target is None:
        target = int(np.argmax(weight @ feature_map(image).mean((1, 2)) + bias))
    total = np.zeros(output)
    for size in sizes:
        scaled = np.stack([resize(channel, size, size, antialias=True) for channel in image])
        for mirrored in (False, True) if flip else (False,):
            features = feature_map(scaled[:, :, ::-1] if mirrored else scaled)
            activation = np.zeros(features.shape[1:])
            for row in range(features.shape[1]):
                for column in range(features.shape[2]):
                    logit = weight[target] @ features[:, row, column] + (bias[target] if use_bias else 0.0)
                    activation[row, column] = max(0.0, logit)
            resized = resize(activation, *output)
            total += resized[:, ::-1] if mirrored else resized
    smooth = gaussian_filter(total, sigma, mode="nearest") if sigma else total
    spread = smooth.max() - smooth.min()
    return (smooth - smooth.min()) / spread if spread else np.zeros(output), target


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("given_targets", [True, False], ids=["true_class", "predicted_class"])
@pytest.mark.parametrize(
    ("sizes", "flip", "sigma", "output"),
    [
        (SCALES, True, 1.0, (SIZE, SIZE)),
        ((SIZE,), False, 0.0, (SIZE, SIZE)),
        ((SIZE,), True, 4.0, (SIZE, SIZE)),
        ((16, 48), False, 0.3, (20, 28)),
        ((48, 16), True, 9.0, (64, 32)),
    ],
)
def test_equation_1(
    network: DenseClassifier,
    images: Tensor,
    sizes: tuple[int, ...],
    flip: bool,
    sigma: float,
    output: tuple[int, int],
    given_targets: bool,
    use_bias: bool,
) -> None:
    targets = torch.tensor([0, 1, 2, 1]) if given_targets else None
    maps, used = attention_maps(
        network, images, targets, input_sizes=sizes, flip=flip, sigma=sigma, output_size=output, use_bias=use_bias
    )
    for index, image in enumerate(images.numpy()):
        target = None if targets is None else int(targets[index])
        expected, expected_target = oracle(network, image, target, sizes, flip, sigma, output, use_bias)
        assert int(used[index]) == expected_target
        np.testing.assert_allclose(maps[index].numpy(), expected, rtol=0, atol=1e-5)


def maps_of(network: DenseClassifier, images: Tensor, targets: Tensor | None = None, flip: bool = True) -> Tensor:
    return attention_maps(network, images, targets, input_sizes=SCALES, flip=flip, sigma=1.0, output_size=(SIZE, SIZE))[
        0
    ]


def test_each_map_spans_0_to_1(network: DenseClassifier, images: Tensor) -> None:
    maps = maps_of(network, images)
    assert maps.amin((1, 2)).tolist() == [0.0] * 4
    assert maps.amax((1, 2)).tolist() == [1.0] * 4


def test_an_image_has_its_own_map(network: DenseClassifier, images: Tensor) -> None:
    maps = maps_of(network, images)
    alone = torch.cat([maps_of(network, image[None]) for image in images])
    torch.testing.assert_close(maps, alone, rtol=0, atol=1e-12)


def test_mirrored_image_has_mirrored_map(network: DenseClassifier, images: Tensor) -> None:
    targets = torch.tensor([0, 1, 2, 1])
    maps = maps_of(network, images, targets)
    torch.testing.assert_close(maps_of(network, images.flip(-1), targets), maps.flip(-1), rtol=0, atol=1e-12)
    unflipped = maps_of(network, images, targets, flip=False)
    assert not torch.allclose(maps_of(network, images.flip(-1), targets, flip=False), unflipped.flip(-1), atol=1e-3)


def test_bias_and_background_play_no_part(network: DenseClassifier, images: Tensor) -> None:
    targets = torch.tensor([0, 1, 2, 1])
    maps = maps_of(network, images, targets)
    grown = network.with_background()
    torch.nn.init.normal_(grown.head.bias)
    torch.nn.init.normal_(grown.head.weight[3:])
    assert torch.equal(maps_of(grown, images, targets), maps)


def test_the_bias_changes_the_map_and_none_counts_as_zero(network: DenseClassifier, images: Tensor) -> None:
    def with_bias(targets: Tensor) -> Tensor:
        return attention_maps(
            network, images, targets, input_sizes=[SIZE], flip=False, sigma=1.0, output_size=(SIZE, SIZE), use_bias=True
        )[0]

    targets = torch.tensor([0, 1, 2, 1])
    torch.nn.init.constant_(network.head.bias, -0.1)
    before = with_bias(targets)
    torch.nn.init.zeros_(network.head.bias)
    zero = with_bias(targets)
    assert not torch.allclose(before, zero, atol=1e-2)
    network.head.bias = None
    assert torch.equal(with_bias(targets), zero)


def test_class_without_activation_has_a_map_of_zeros(network: DenseClassifier, images: Tensor) -> None:
    torch.nn.init.constant_(network.head.weight[1], -1.0)  # the feature maps are not negative
    assert not maps_of(network, images, torch.ones(4, dtype=torch.long)).any()


def test_no_gradient_is_kept(network: DenseClassifier, images: Tensor) -> None:
    assert not maps_of(network, images).requires_grad


@given(sigma=st.floats(0.0, 12.0), height=st.integers(1, 20), width=st.integers(1, 20), seed=st.integers(0, 99))
def test_the_gaussian_is_that_of_scipy(sigma: float, height: int, width: int, seed: int) -> None:
    maps = np.random.default_rng(seed).normal(size=(2, height, width))
    expected = np.stack([gaussian_filter(one, sigma, mode="nearest") for one in maps])
    np.testing.assert_allclose(gaussian_blur(torch.from_numpy(maps), sigma).numpy(), expected, rtol=0, atol=1e-10)


@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-10.0, 10.0), seed=st.integers(0, 99))
def test_min_max_removes_scale_and_shift(scale: float, shift: float, seed: int) -> None:
    maps = torch.from_numpy(np.random.default_rng(seed).uniform(size=(3, 4, 5)))
    torch.testing.assert_close(min_max(scale * maps + shift), min_max(maps), rtol=0, atol=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e30])
def test_constant_map_becomes_zero(value: float) -> None:
    constant = torch.full((2, 9, 9), value)
    assert not min_max(constant).any()
    assert not min_max(gaussian_blur(constant, 2.0)).any()
