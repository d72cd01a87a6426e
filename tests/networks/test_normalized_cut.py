"""normalized_cut: a slow oracle with scipy's generalised eigenproblem, and properties of the cut."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import eigh

from skdfb.networks import _normalized_cut
from skdfb.networks._normalized_cut import normalized_cut

EPSILON = 1e-5


def oracle(features, tau, affinity):
    """The cut of one feature map (C, h, w), place by place, as in Shi and Malik and in Wang et al."""
    h, w = features.shape[1:]
    places = [(row, column) for row in range(h) for column in range(w)]
    W = np.empty((h * w, h * w))
    for i, a in enumerate(places):
        for j, b in enumerate(places):
            x, z = features[:, *a], features[:, *b]
            cosine = x @ z / (np.linalg.norm(x) * np.linalg.norm(z))
            if affinity == "binary":
                W[i, j] = 1.0 if cosine >= tau else EPSILON
            else:
                W[i, j] = max((cosine - tau) / (1 - tau), EPSILON)
    D = np.diag(W.sum(1))
    _, vectors = eigh(D - W, D)  # the generalised problem itself
    y = vectors[:, 1]
    side = y > y.mean()
    on_border = np.array([row in (0, h - 1) or column in (0, w - 1) for row, column in places])
    share = [np.mean(on_border[part]) for part in (side, ~side)]  # of the places of a side, those on the border
    if abs(share[0] - share[1]) < 1e-9:
        is_object = side[np.argmax(np.abs(y))]
    else:
        is_object = share[0] < share[1]
    y = y - y.mean() if is_object else y.mean() - y
    return np.array([0.5 + 0.5 * (value / y.max() if value > 0 else value / -y.min()) for value in y]).reshape(h, w)


def random_features(n=4, C=6, h=5, w=7, seed=0, dtype=torch.float64):
    """Maps of an object among random places, so that the cut is not a matter of rounding."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, C, h, w))
    for one in features:
        row, column = rng.integers(1, 3, 2)
        one[:, row : row + 2, column : column + 3] += 3 * rng.normal(size=(C, 1, 1))
    return torch.from_numpy(features).to(dtype)


def two_regions(h=8, w=8, rows=slice(2, 6), columns=slice(3, 6)):
    """A map of an object with features of its own, and the object."""
    inside = torch.zeros(h, w, dtype=torch.bool)
    inside[rows, columns] = True
    features = torch.zeros(1, 4, h, w)
    features[0, 0], features[0, 1] = inside.float(), (~inside).float()
    return features + 0.01, inside


# ------------------------------------------------------------------ oracle


@pytest.mark.parametrize("affinity", ["linear", "binary"])
@pytest.mark.parametrize("tau", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("shape", [(6, 5, 7), (3, 4, 4), (40, 6, 6)])
def test_oracle(affinity, tau, shape):
    for seed in range(3):
        features = random_features(2, *shape, seed=seed)
        found = normalized_cut(features, affinity=affinity, tau=tau)
        for one, expected in zip(found, features.numpy(), strict=True):
            np.testing.assert_allclose(one, oracle(expected, tau, affinity), atol=1e-7)


# ------------------------------------------------------------- known cuts


@pytest.mark.parametrize(
    ("rows", "columns"), [(slice(2, 6), slice(3, 6)), (slice(1, 7), slice(1, 7)), (slice(0, 5), slice(2, 5))]
)
@pytest.mark.parametrize("affinity", ["linear", "binary"])
def test_an_object_is_cut_out(rows, columns, affinity):
    features, inside = two_regions(rows=rows, columns=columns)
    found = normalized_cut(features, affinity=affinity)[0]
    torch.testing.assert_close(found, inside.float())


def test_the_object_touches_the_border_less_also_if_it_is_larger():
    features, inside = two_regions(rows=slice(1, 8), columns=slice(1, 7))
    assert inside.float().mean() > 0.5
    assert torch.equal(normalized_cut(features)[0] > 0.5, inside)


def test_where_both_sides_touch_the_border_alike_the_seed_decides():
    """The place of the largest absolute value, as in Wang et al., is on the side that is more of a unit."""
    features, _ = two_regions(rows=slice(0, 8), columns=slice(0, 4))
    generator = torch.Generator().manual_seed(0)
    features[:, :, :, 4:] += torch.rand(1, 4, 8, 4, generator=generator) * 3  # a looser half
    found = normalized_cut(features, tau=0.9)[0].numpy()
    np.testing.assert_allclose(found, oracle(features[0].double().numpy(), 0.9, "linear"), atol=1e-6)


@pytest.mark.parametrize("affinity", ["linear", "binary"])
@pytest.mark.parametrize("value", [0.0, 1.0, -2.7])
def test_a_constant_map_has_no_cut(value, affinity):
    found = normalized_cut(torch.full((2, 3, 5, 5), value), affinity=affinity)
    assert torch.equal(found, torch.zeros(2, 5, 5))


def test_one_place_has_no_cut():
    assert torch.equal(normalized_cut(torch.ones(2, 3, 1, 1)), torch.zeros(2, 1, 1))


# --------------------------------------------------------------- properties


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), tau=st.sampled_from([0.0, 0.2, 0.4]))
def test_the_range_is_zero_to_one_and_the_mean_is_a_half(seed, tau):
    found = normalized_cut(random_features(seed=seed), tau=tau)
    torch.testing.assert_close(found.amin((1, 2)), torch.zeros(4, dtype=found.dtype))
    torch.testing.assert_close(found.amax((1, 2)), torch.ones(4, dtype=found.dtype))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3))
def test_the_length_of_the_features_does_not_matter(seed, scale):
    features = random_features(seed=seed)
    lengths = torch.rand(4, 1, 5, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
    torch.testing.assert_close(normalized_cut(features * lengths * scale), normalized_cut(features), rtol=0, atol=1e-6)


@pytest.mark.parametrize("turn", [lambda t: t.flip(-1), lambda t: t.flip(-2), lambda t: t.transpose(-1, -2)])
def test_turned_features_give_turned_maps(turn):
    features = random_features(n=8)
    torch.testing.assert_close(normalized_cut(turn(features)), turn(normalized_cut(features)), rtol=0, atol=1e-6)


def test_the_order_of_the_channels_does_not_matter():
    features = random_features(n=8)
    torch.testing.assert_close(normalized_cut(features.flip(1)), normalized_cut(features), rtol=0, atol=1e-6)


@pytest.mark.parametrize("numbers", [1, 2 * 35**2, 10**9])
def test_images_do_not_depend_on_each_other(monkeypatch, numbers):
    features = random_features(n=5)
    expected = torch.cat([normalized_cut(features[i : i + 1]) for i in range(5)])
    monkeypatch.setattr(_normalized_cut, "_MOST_NUMBERS", numbers)
    torch.testing.assert_close(normalized_cut(features), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    features = random_features(dtype=dtype).requires_grad_()
    before = features.detach().clone()
    found = normalized_cut(features)
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    assert not found.requires_grad
    assert torch.equal(features, before)
    expected = normalized_cut(before.double())
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=0, atol=1e-6)


def test_autocast_does_not_matter():
    features = random_features(dtype=torch.float32)
    expected = normalized_cut(features)
    with torch.autocast("cpu"):
        assert torch.equal(normalized_cut(features), expected)


def test_large_maps_are_averaged_to_fewer_places():
    features, inside = two_regions(40, 40, slice(10, 30), slice(10, 30))
    found = normalized_cut(features)
    assert found.shape == (1, 14, 14)  # 3 x 3 places each, at most
    enlarged = torch.nn.functional.interpolate(found[:, None], (40, 40), mode="bilinear")[0, 0]
    assert ((enlarged >= 0.5) == inside).float().mean() > 0.9
    assert normalized_cut(random_features(h=16, w=17)).shape == (4, 16, 9)


def test_no_images_give_no_maps():
    assert normalized_cut(torch.ones(0, 3, 4, 5)).shape == (0, 4, 5)


def test_numbers_that_are_not_finite_are_refused():
    features = random_features()
    features[1, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="1 of 4 feature maps hold NaN or infinite numbers"):
        normalized_cut(features)


def test_a_small_change_of_the_features_changes_the_map_little():
    """Also where a cosine is exactly tau."""
    features = random_features()
    a, b = (features[0, :, place // 7, place % 7] for place in (3, 20))
    tau = float(torch.cosine_similarity(a, b, dim=0))
    change = 1e-7 * torch.randn(features.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(
        normalized_cut(features + change, tau=tau), normalized_cut(features, tau=tau), rtol=0, atol=1e-5
    )
