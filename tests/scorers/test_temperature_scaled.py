import math

import numpy as np
import pytest
from sklearn.base import clone

from skdfb.scorers import MSP, ODIN, Energy, MaxLogit, TemperatureScaled, ViM, scorer_output
from tests.scorers.early_errors import assert_same_error_early, early_error
from tests.scorers.helpers import cyclic_labels, random_representation


def negative_log_likelihood(logits, labels, temperature):
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        scaled = [float(z) / temperature for z in row]
        largest = max(scaled)
        total += largest + math.log(math.fsum(math.exp(z - largest) for z in scaled)) - scaled[label]
    return total / len(logits)


def sampled_labels(logits, temperature, seed=0):
    """Classes that are drawn from the softmax at a temperature, which is then the true temperature."""
    noise = np.random.default_rng(seed).gumbel(size=logits.shape)
    return (logits / temperature + noise).argmax(axis=1)


@pytest.mark.parametrize("scale", [0.01, 1.0, 20.0])
def test_temperature_is_better_than_others(scale):
    representation = random_representation(n=200, scale=scale)
    labels = sampled_labels(representation.logits.numpy() / scale, 1.0)
    T = TemperatureScaled(MSP()).fit(representation, labels).temperature_
    best = negative_log_likelihood(representation.logits.numpy(), labels, T)
    for other in T * np.array([0.5, 0.9, 0.999, 1.001, 1.1, 2.0]):
        assert best < negative_log_likelihood(representation.logits.numpy(), labels, other)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_true_temperature_is_found(temperature):
    representation = random_representation(n=20_000)
    labels = sampled_labels(representation.logits.numpy(), temperature)
    assert TemperatureScaled(MSP()).fit(representation, labels).temperature_ == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("scorer", [MSP(), Energy(), MaxLogit(), ViM(n_components=3)])
def test_scores_are_those_of_scaled_logits(scorer):
    representation, new = random_representation(n=60), random_representation(1)
    labels = sampled_labels(representation.logits.numpy(), 2.0)
    scaled = TemperatureScaled(scorer).fit(representation, labels)
    T = scaled.temperature_
    by_hand = [
        type(part).from_numpy(
            features=part.features.numpy(), weight=part.weight.numpy() / T, bias=part.bias.numpy() / T
        )
        for part in (representation, new)
    ]
    expected = clone(scorer).fit(by_hand[0], labels).score_samples(by_hand[1])
    np.testing.assert_allclose(scaled.score_samples(new), expected, rtol=1e-9)
    assert scorer_output(scaled) == scorer_output(scorer)


def test_temperature_comes_from_held_out_images():
    representation, held_out = random_representation(n=100), random_representation(1, n=100)
    labels = cyclic_labels(representation)
    held_out_labels = sampled_labels(held_out.logits.numpy(), 4.0)
    given = TemperatureScaled(MSP()).fit(representation, labels, held_out=(held_out, held_out_labels))
    alone = TemperatureScaled(MSP()).fit(held_out, held_out_labels)
    assert given.temperature_ == alone.temperature_
    assert given.temperature_ != TemperatureScaled(MSP()).fit(representation, labels).temperature_


def test_one_class_is_not_scaled():
    representation = random_representation(K=1)
    scaled = TemperatureScaled(Energy()).fit(representation)
    assert scaled.temperature_ == 1
    np.testing.assert_array_equal(
        scaled.score_samples(representation), Energy().fit(representation).score_samples(representation)
    )


def test_inner_parameters_can_be_set():
    scaled = TemperatureScaled(ViM()).set_params(scorer__n_components=3)
    assert scaled.scorer.n_components == 3
    assert clone(scaled).get_params()["scorer__n_components"] == 3


def test_bad_input():
    representation = random_representation()
    with pytest.raises(ValueError, match=r"scorer=ODIN\(\) needs perturbed images"):
        TemperatureScaled(ODIN()).fit(representation, cyclic_labels(representation))
    with pytest.raises(ValueError, match="y is None"):
        TemperatureScaled(MSP()).fit(representation)
    with pytest.raises(ValueError, match="'scorer' parameter"):
        TemperatureScaled(None).fit(representation, cyclic_labels(representation))
    with pytest.raises(ValueError, match="n_components=8"):
        TemperatureScaled(ViM(n_components=8)).fit(representation, cyclic_labels(representation))


@pytest.mark.parametrize("n", [1, 2, 5, 6])
@pytest.mark.parametrize("scorer", [MSP(), ViM(), ViM(n_components=5)])
def test_sizes_are_checked_early(monkeypatch, scorer, n):
    representation = random_representation(n=n)
    assert_same_error_early(monkeypatch, TemperatureScaled(scorer), representation, cyclic_labels(representation))
    assert early_error(TemperatureScaled(scorer), representation) == early_error(scorer, representation)


def test_parameters_are_checked_early():
    with pytest.raises(ValueError, match="'scorer' parameter"):
        TemperatureScaled(None).check_sizes(8, 4, 30)


def test_the_device_is_that_of_the_fitted_scorer():
    class OnTheCPU:
        def fit(self, representation, y):
            return self

        def score_samples(self, representation):
            return np.zeros(len(representation))

    representation = random_representation()
    scaled = TemperatureScaled(OnTheCPU()).fit(representation, cyclic_labels(representation))
    scaled.set_params(scorer=MSP())  # for the next fit
    assert not hasattr(scaled, "score_on_device")
    assert not hasattr(TemperatureScaled(OnTheCPU()), "score_on_device")
    scaled.fit(representation, cyclic_labels(representation)).set_params(scorer=OnTheCPU())
    np.testing.assert_array_equal(scaled.score_on_device(representation), scaled.score_samples(representation))
