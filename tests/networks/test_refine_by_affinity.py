"""refine_by_affinity: a slow oracle, and the properties of weighted means."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skdfb.networks import _affinity, refine_by_affinity


def oracle(values, image, dilations, n_iterations, bandwidth):
    """One map (H, W) and its image (C, H, W), pixel by pixel."""
    n_channels, height, width = image.shape

    def neighbours(row, column):
        for dilation in dilations:
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    if (down, right) != (0, 0):
                        yield (
                            min(max(row + down * dilation, 0), height - 1),
                            min(max(column + right * dilation, 0), width - 1),
                        )

    weights = {}
    for row in range(height):
        for column in range(width):
            places = list(neighbours(row, column))
            exponents = np.zeros(len(places))
            for channel in image:
                window = [channel[row, column]] + [channel[place] for place in places]
                std = max(np.std(window), 1 / 255)
                for index, place in enumerate(places):
                    exponents[index] -= abs(channel[row, column] - channel[place]) / (bandwidth * std) / n_channels
            weights[row, column] = np.exp(exponents) / np.exp(exponents).sum()
    for _ in range(n_iterations):
        averaged = np.empty_like(values)
        for (row, column), weight in weights.items():
            averaged[row, column] = sum(
                share * values[place] for share, place in zip(weight, neighbours(row, column), strict=True)
            )
        values = averaged
    return values


def random_pair(n=2, height=7, width=9, seed=0, dtype=torch.float64, n_channels=3):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(n, height, width, generator=generator, dtype=dtype)
    return maps, torch.rand(n, n_channels, height, width, generator=generator, dtype=dtype)


@pytest.mark.parametrize("dilations", [(1,), (2, 1), (1, 3, 12)])
@pytest.mark.parametrize(("n_iterations", "bandwidth"), [(1, 0.1), (3, 0.5)])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_against_the_oracle(dilations, n_iterations, bandwidth, n_channels):
    maps, images = random_pair(n_channels=n_channels)
    images[1, :, 2:5, 2:6] = 0.25  # one colour, then differences below a grey level
    images[1, :, 4] += 1e-3
    found = refine_by_affinity(maps, images, dilations=dilations, n_iterations=n_iterations, bandwidth=bandwidth)
    for index in range(len(maps)):
        expected = oracle(maps[index].numpy(), images[index].numpy(), dilations, n_iterations, bandwidth)
        np.testing.assert_allclose(found[index].numpy(), expected, atol=1e-12)


def test_the_default_bandwidth():
    maps, images = random_pair()
    found, tenth, fifth = (
        refine_by_affinity(maps, images, dilations=(1,), n_iterations=2, **changes)
        for changes in ({}, {"bandwidth": 0.1}, {"bandwidth": 0.2})
    )
    assert torch.equal(found, tenth)
    assert not torch.allclose(found, fifth)


def test_one_colour_gives_unweighted_means():
    maps, images = random_pair(1, 5, 5)
    found = refine_by_affinity(maps, torch.full_like(images, 0.3), dilations=(1,), n_iterations=1)
    around = maps[0, 1:4, 1:4].sum() - maps[0, 2, 2]
    assert float(found[0, 2, 2]) == pytest.approx(float(around) / 8)


def test_an_edge_stops_a_map():
    image = torch.zeros(1, 3, 8, 8)
    image[..., 4:] = 1
    maps = torch.zeros(1, 8, 8)
    maps[0, 3, 6] = 1
    refined = refine_by_affinity(maps, image, dilations=(1, 2), n_iterations=30)
    assert refined[0, :, :4].max() < 0.1 * refined[0, :, 4:].min()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    n_iterations=st.integers(0, 5),
    dilations=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    bandwidth=st.floats(0.01, 10),
)
def test_weights_are_those_of_a_mean(seed, n_iterations, dilations, bandwidth):
    maps, images = random_pair(seed=seed)
    parameters = {"dilations": dilations, "n_iterations": n_iterations, "bandwidth": bandwidth}
    found = refine_by_affinity(maps, images, **parameters)
    for before, after in zip(maps, found, strict=True):  # the range never grows
        assert before.min() - 1e-12 <= after.min()
        assert after.max() <= before.max() + 1e-12
    constant = refine_by_affinity(torch.full_like(maps, 0.7), images, **parameters)
    torch.testing.assert_close(constant, torch.full_like(maps, 0.7))
    # background and foreground are refined as one
    torch.testing.assert_close(refine_by_affinity(1 - maps, images, **parameters), 1 - found)
    if n_iterations == 0:
        assert torch.equal(found, maps)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), shift=st.floats(-1, 1), scale=st.floats(0.5, 3))
def test_brightness_and_contrast_have_no_effect(seed, shift, scale):
    maps, images = random_pair(seed=seed)
    found = refine_by_affinity(maps, images, dilations=(1, 2), n_iterations=2)
    changed = refine_by_affinity(maps, scale * images + shift, dilations=(1, 2), n_iterations=2)
    torch.testing.assert_close(changed, found, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("turn", [lambda t: t.flip(-1), lambda t: t.flip(-2), lambda t: t.transpose(-1, -2)])
def test_turned_images_give_turned_maps(turn):
    maps, images = random_pair()
    found = refine_by_affinity(maps, images, dilations=(1, 4), n_iterations=3)
    torch.testing.assert_close(
        refine_by_affinity(turn(maps), turn(images), dilations=(1, 4), n_iterations=3), turn(found)
    )


def test_iterations_add_up():
    maps, images = random_pair()
    once = refine_by_affinity(maps, images, dilations=(1, 2), n_iterations=2)
    twice = refine_by_affinity(once, images, dilations=(1, 2), n_iterations=3)
    torch.testing.assert_close(twice, refine_by_affinity(maps, images, dilations=(1, 2), n_iterations=5))


@pytest.mark.parametrize("kernel_size", [1, 7 * 9 * 16, 3 * 7 * 9 * 16])
def test_images_do_not_depend_on_each_other(monkeypatch, kernel_size):
    maps, images = random_pair(n=5)
    parameters = {"dilations": (1, 2), "n_iterations": 3}
    expected = [refine_by_affinity(maps[i : i + 1], images[i : i + 1], **parameters)[0] for i in range(5)]
    kernels, sizes = _affinity._kernels, []

    def noting(images, *arguments):
        sizes.append(len(images))
        return kernels(images, *arguments)

    monkeypatch.setattr(_affinity, "_KERNEL_SIZE", kernel_size)
    monkeypatch.setattr(_affinity, "_kernels", noting)
    torch.testing.assert_close(refine_by_affinity(maps, images, **parameters), torch.stack(expected))
    part = max(1, kernel_size // (7 * 9 * 16))
    assert sizes == [part] * (5 // part) + [5 % part] * (5 % part > 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_arguments_stay_as_they_are(dtype):
    maps, images = random_pair(dtype=dtype)
    copies = maps.clone(), images.clone()
    found = refine_by_affinity(maps.requires_grad_(), images, dilations=(1,), n_iterations=1)
    assert found.dtype == dtype
    assert not found.requires_grad
    assert torch.equal(maps, copies[0])
    assert torch.equal(images, copies[1])


def test_no_images_give_no_maps():
    assert refine_by_affinity(torch.ones(0, 4, 5), torch.ones(0, 3, 4, 5), dilations=(1,), n_iterations=1).shape == (
        0,
        4,
        5,
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"maps": torch.ones(2, 4, 4)}, r"maps has shape \(2, 4, 4\) and images \(1, 3, 4, 4\)"),
        ({"maps": torch.ones(1, 4, 5)}, "resize one of them"),
        ({"maps": torch.ones(1, 1, 4, 4)}, r"expected \(n, H, W\) and \(n, C, H, W\)"),
        ({"images": torch.ones(1, 4, 4)}, r"images \(1, 4, 4\): expected"),
        ({"images": torch.ones(1, 3, 4, 4, dtype=torch.uint8)}, "images torch.uint8: expected floats; divide"),
        ({"maps": torch.ones(1, 4, 4, dtype=torch.int64)}, "maps has dtype torch.int64"),
        ({"dilations": ()}, r"dilations=\(\): expected at least one distance"),
        ({"dilations": (1, 0)}, r"dilations=\(1, 0\)"),
        ({"n_iterations": -1}, "n_iterations=-1"),
        ({"bandwidth": 0.0}, "bandwidth=0.0"),
        ({"bandwidth": math.nan}, "bandwidth=nan"),
    ],
)
def test_bad_input_is_named(changes, message):
    arguments = {"maps": torch.ones(1, 4, 4), "images": torch.ones(1, 3, 4, 4), "dilations": (1,), "n_iterations": 1}
    with pytest.raises(ValueError, match=message):
        refine_by_affinity(**arguments | changes)
