from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import GradNorm, Representation
from tests.scorers.helpers import fit_and_score, quick, random_arrays, random_representation
from tests.scorers.softmax_oracle import decimal_softmax, long_decimals


def divergence_from_uniform(weight, bias, h, temperature):
    z = (weight @ h + bias) / temperature
    log_p = z - max(z) - np.log(np.exp(z - max(z)).sum())
    return -np.log(len(z)) - log_p.mean()


def finite_difference_oracle(arrays, temperature, step=1e-5):
    """The sum of the absolute central differences with respect to single weights."""
    scores = []
    for h in arrays["features"]:
        total = 0.0
        for k, c in np.ndindex(arrays["weight"].shape):
            change = np.zeros_like(arrays["weight"])
            change[k, c] = step
            up, down = (
                divergence_from_uniform(arrays["weight"] + sign * change, arrays["bias"], h, temperature)
                for sign in (1, -1)
            )
            total += abs(up - down) / (2 * step)
        scores.append(total)
    return np.array(scores)


def backward_oracle(arrays, temperature):
    """One backward pass per image through the layer."""
    scores = []
    for h in arrays["features"]:
        layer = torch.nn.Linear(*arrays["weight"].shape[::-1], dtype=torch.float64)
        layer.load_state_dict({name: torch.from_numpy(arrays[name]) for name in ("weight", "bias")})
        uniform = torch.full((len(arrays["bias"]),), 1 / len(arrays["bias"]), dtype=torch.float64)
        log_p = (layer(torch.from_numpy(h)) / temperature).log_softmax(dim=0)
        (uniform * (uniform.log() - log_p)).sum().backward()
        scores.append(float(layer.weight.grad.abs().sum()))
    return np.array(scores)


def outer_product_oracle(representation, temperature):
    """The sum over the entries of the gradient of each image, in long decimals, from the logits."""
    scores = []
    with long_decimals(100):
        for h, z in zip(representation.features.numpy(), representation.logits.numpy(), strict=True):
            p = decimal_softmax(z, temperature)
            gradient = [
                (pk - 1 / Decimal(len(p))) / Decimal(temperature) * Decimal(float(value)) for pk in p for value in h
            ]
            scores.append(float(sum(abs(entry) for entry in gradient)))
    return np.array(scores)


@given(seed=st.integers(0, 10**6), K=st.integers(2, 5), temperature=st.floats(0.5, 10))
@quick
def test_finite_differences(seed, K, temperature):
    arrays = random_arrays(seed, n=2, C=3, K=K)
    scores = fit_and_score(GradNorm(temperature=temperature), Representation.from_numpy(**arrays))
    np.testing.assert_allclose(scores, finite_difference_oracle(arrays, temperature), rtol=1e-6, atol=1e-8)


@given(seed=st.integers(0, 10**6), K=st.integers(2, 8), temperature=st.floats(0.1, 1000))
@quick
def test_backward_passes(seed, K, temperature):
    arrays = random_arrays(seed, n=5, K=K)
    scores = fit_and_score(GradNorm(temperature=temperature), Representation.from_numpy(**arrays))
    np.testing.assert_allclose(scores, backward_oracle(arrays, temperature), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1.0, 1e3, 1e30])
@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("temperature", [1.0, 1000.0])
def test_oracle_at_any_scale(scale, rank, temperature):
    representation = random_representation(n=5, rank=rank, scale=scale)
    scores = fit_and_score(GradNorm(temperature=temperature), representation)
    np.testing.assert_allclose(scores, outer_product_oracle(representation, temperature), rtol=1e-9)
    assert (scores > 0).all()


def test_many_classes():
    representation = random_representation(n=3, K=300)
    np.testing.assert_allclose(
        fit_and_score(GradNorm(), representation), outer_product_oracle(representation, 1.0), rtol=1e-9
    )


def test_equal_logits_and_features_of_zero():
    zero = Representation.from_numpy(
        features=np.array([[1.0, 2.0], [0.0, 0.0]]),
        weight=np.zeros((3, 2)),
        bias=np.zeros(3),
        logits=np.array([[5.0, 5.0, 5.0], [9.0, 0.0, 0.0]]),
    )
    assert fit_and_score(GradNorm(), zero).tolist() == [0, 0]


def test_certain_prediction():
    # |1/K - 1| + (K - 1) / K
    certain = Representation.from_numpy(
        features=np.array([[1.0, -2.0]]), weight=np.zeros((4, 2)), bias=np.zeros(4), logits=[[1e308, -1e308, 0.0, 0.0]]
    )
    np.testing.assert_allclose(fit_and_score(GradNorm(), certain), [3 * 1.5], rtol=1e-12)


@given(seed=st.integers(0, 10**6), factor=st.floats(1e-3, 1e3))
@quick
def test_grows_with_the_features(seed, factor):
    arrays = random_arrays(seed)
    scaled = {**arrays, "features": arrays["features"] * factor, "weight": arrays["weight"] / factor}
    np.testing.assert_allclose(
        fit_and_score(GradNorm(), Representation.from_numpy(**scaled)),
        factor * fit_and_score(GradNorm(), Representation.from_numpy(**arrays)),
        rtol=1e-9,
    )


@given(seed=st.integers(0, 10**6), shift=st.floats(-100, 100))
@quick
def test_shift_and_order_of_classes_do_not_matter(seed, shift):
    arrays = random_arrays(seed)
    order = np.random.default_rng(seed).permutation(4)
    moved = {**arrays, "weight": arrays["weight"][order], "bias": arrays["bias"][order] + shift}
    np.testing.assert_allclose(
        fit_and_score(GradNorm(), Representation.from_numpy(**moved)),
        fit_and_score(GradNorm(), Representation.from_numpy(**arrays)),
        rtol=1e-9,
    )


@pytest.mark.parametrize("temperature", [0, -1.0, float("inf"), float("nan"), "1", None])
def test_temperature_is_checked(temperature):
    with pytest.raises(ValueError, match="temperature"):
        GradNorm(temperature=temperature).fit(random_representation())


def test_one_class_raises_an_error():
    with pytest.raises(ValueError, match="1 class"):
        GradNorm().fit(random_representation(K=1))


def test_output():
    assert GradNorm.output == "logit"
