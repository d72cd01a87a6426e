import dataclasses
from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import MSP, ODIN
from tests.scorers.early_errors import assert_same_error_early, early_error
from tests.scorers.helpers import fit_and_score, quick, random_representation, representation_of_logits
from tests.scorers.test_msp import log_msp_oracle


@pytest.mark.parametrize("temperature", [1.0, 10.0, 1000.0])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 100.0])
@pytest.mark.parametrize("K", [2, 6])
def test_oracle(temperature, scale, K):
    representation = random_representation(n=8, scale=scale, K=K)
    scores = fit_and_score(ODIN(temperature=temperature, input_perturbation=0), representation)
    oracle = log_msp_oracle(representation.logits.numpy(), Decimal(temperature))
    np.testing.assert_allclose(scores, oracle, rtol=1e-12)


def test_small_differences_stay_apart_at_high_temperature():
    logits = np.stack([np.linspace(0, 1, 2001), np.zeros(2001)], axis=1).astype(np.float32)
    scores = fit_and_score(ODIN(input_perturbation=0), representation_of_logits(logits))
    assert (np.diff(scores) > 0).all()


def test_temperature_one_is_msp():
    representation = random_representation()
    scores = fit_and_score(ODIN(temperature=1, input_perturbation=0), representation)
    assert np.array_equal(scores, fit_and_score(MSP(), representation))


@given(seed=st.integers(0, 10**6), shift=st.floats(-100, 100))
@quick
def test_shift_invariant(seed, shift):
    logits = np.random.default_rng(seed).normal(size=(5, 3))
    scorer = ODIN(input_perturbation=0)
    moved = fit_and_score(scorer, representation_of_logits(logits + shift))
    np.testing.assert_allclose(moved, fit_and_score(scorer, representation_of_logits(logits)), rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [1.0, 1000.0])
def test_gradient_of_the_objective(dtype, temperature):
    logits = torch.tensor(np.random.default_rng(0).normal(size=(6, 4)), dtype=dtype, requires_grad=True)
    objective = ODIN(temperature=temperature).perturbation_objective(logits)
    assert objective.shape == (6,)
    objective.sum().backward()
    for row, gradient in zip(logits.detach().double().numpy(), logits.grad.numpy(), strict=True):
        # d log p_k / d z_j = ([j = k] - p_j) / T, where k is the class of the largest logit.
        exponentials = np.exp(row / temperature)
        expected = ((np.arange(4) == row.argmax()) - exponentials / exponentials.sum()) / temperature
        np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_objective_is_the_score():
    representation = random_representation()
    scorer = ODIN(temperature=10, input_perturbation=0)
    objective = scorer.perturbation_objective(representation.logits)
    assert np.array_equal(objective.numpy(), fit_and_score(scorer, representation))


def test_only_images_with_its_own_perturbation_are_accepted():
    plain = random_representation()
    perturbed = dataclasses.replace(plain, input_perturbation=0.0014)
    scorer = ODIN().fit(plain)
    with pytest.raises(ValueError, match=r"^Expected .*input_perturbation=0\.0014, .* got 0\.0\..*detector"):
        scorer.score_samples(plain)
    scores = scorer.score_samples(perturbed)
    unperturbing = ODIN(input_perturbation=0).fit(perturbed)
    assert np.array_equal(scores, unperturbing.score_samples(plain))
    with pytest.raises(ValueError, match=r"^Expected .*input_perturbation=0, .* got 0\.0014\."):
        unperturbing.score_samples(perturbed)


@pytest.mark.parametrize("K", [1, 2, 3])
def test_sizes_are_checked_early(monkeypatch, K):
    assert_same_error_early(monkeypatch, ODIN(), random_representation(n=1, C=1, K=K))
    assert (early_error(ODIN(), random_representation(K=K)) is None) == (K >= 2)


@pytest.mark.parametrize(
    "parameters",
    [{"temperature": 0}, {"temperature": "hot"}, {"input_perturbation": -0.1}, {"input_perturbation": 1.5}],
)
def test_parameters_are_checked(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        ODIN(**parameters).fit(random_representation())
