"""The number of steps and the learning rate of each, against values calculated by hand."""

import math

import pytest

from skdfb.training import Trainer
from skdfb.training._schedule import bit_steps, learning_rate_factor
from tests.training.problems import train


@pytest.mark.parametrize(
    ("n_images", "steps"),
    [(1, 500), (19_999, 500), (20_000, 10_000), (499_999, 10_000), (500_000, 20_000), (5_000_000, 20_000)],
)
def test_bit_rule(n_images, steps):
    assert bit_steps(n_images) == steps
    assert Trainer().n_steps(n_images) == steps


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (0, 1 / 500),
        (249, 0.5),
        (499, 1.0),
        (500, 1.0),
        (5_999, 1.0),
        (6_000, 0.1),
        (11_999, 0.1),
        (12_000, 0.01),
        (17_999, 0.01),
        (18_000, 0.001),
        (19_999, 0.001),
    ],
)
def test_paper_schedule(step, factor):
    assert learning_rate_factor(step, 20_000, 500, "step") == pytest.approx(factor, rel=1e-12)


def test_cosine_falls_from_one_to_zero():
    factors = [learning_rate_factor(step, 110, 10, "cosine") for step in range(110)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == 1.0
    assert factors[60] == pytest.approx(0.5)  # half way
    assert factors[35] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert 0 < factors[-1] < 0.001
    assert factors[10:] == sorted(set(factors[10:]), reverse=True)


def test_constant_stays():
    assert [learning_rate_factor(step, 6, 2, "constant") for step in range(6)] == [0.5, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("schedule", ["step", "cosine", "constant"])
def test_warm_up_may_fill_the_training(schedule):
    assert [learning_rate_factor(step, 4, 8, schedule) for step in range(4)] == [1 / 8, 2 / 8, 3 / 8, 4 / 8]


def test_history_holds_the_rate_of_every_step():
    _, history = train(Trainer(max_steps=10, warmup_steps=2, learning_rate=0.02, schedule="step", batch_size=8))
    expected = [0.01, 0.02, 0.02, 0.002, 0.002, 0.002, 2e-4, 2e-4, 2e-4, 2e-5]
    assert history["learning_rate"] == pytest.approx(expected)
    assert len(history["loss"]) == 10


def test_default_warm_up_is_a_fifth_of_short_trainings():
    _, history = train(Trainer(max_steps=10, learning_rate=1.0, schedule="constant", batch_size=8))
    assert history["learning_rate"][:3] == pytest.approx([0.5, 1.0, 1.0])


@pytest.mark.parametrize(
    ("parameters", "n_images", "steps"),
    [
        ({"max_steps": 7}, 1_000_000, 7),
        ({"max_epochs": 3, "batch_size": 10}, 60, 18),
        ({"max_epochs": 3, "batch_size": 10}, 69, 18),  # an incomplete batch is left out
        ({"max_epochs": 3, "batch_size": 128}, 60, 3),  # a batch is at most all images
        ({"max_epochs": 2, "batch_size": 60}, 60, 2),
    ],
)
def test_number_of_steps(parameters, n_images, steps):
    assert Trainer(**parameters).n_steps(n_images) == steps


def test_epochs_are_counted_in_training():
    _, history = train(Trainer(max_epochs=2, batch_size=16), n=60)
    assert len(history["loss"]) == 6
