"""The images and the random numbers of a step."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdfb.training._sampling import AUGMENTATION, DROPOUT, shuffled_batches, step_seed


@given(st.integers(1, 50), st.integers(1, 60), st.integers(0, 2**31 - 1))
def test_an_epoch_has_no_image_twice(n_images, batch_size, seed):
    size = min(batch_size, n_images)
    steps_per_epoch = n_images // size
    batches = list(shuffled_batches(n_images, batch_size, 0, 2 * steps_per_epoch, seed))
    assert all(len(batch) == size for batch in batches)
    for epoch in (batches[:steps_per_epoch], batches[steps_per_epoch:]):
        indices = np.concatenate(epoch)
        assert len(set(indices)) == len(indices) == steps_per_epoch * size
        assert set(indices) <= set(range(n_images))


def test_each_full_epoch_is_another_permutation():
    batches = list(shuffled_batches(12, 4, 0, 6, 0))
    first, second = np.concatenate(batches[:3]), np.concatenate(batches[3:])
    assert sorted(first) == sorted(second) == list(range(12))
    assert list(first) != list(second)
    assert list(first) != list(range(12))


def test_each_image_is_in_some_epoch():
    indices = np.concatenate(list(shuffled_batches(10, 7, 0, 30, 0)))
    assert set(indices) == set(range(10))


@pytest.mark.parametrize("start", [0, 1, 3, 4, 7, 11])
def test_a_resumed_training_has_the_same_batches(start):
    uninterrupted = list(shuffled_batches(11, 3, 0, 12, 5))
    resumed = list(shuffled_batches(11, 3, start, 12, 5))
    assert len(resumed) == 12 - start
    for expected, batch in zip(uninterrupted[start:], resumed, strict=True):
        np.testing.assert_array_equal(batch, expected)


def test_another_seed_gives_another_order():
    first, second = (np.concatenate(list(shuffled_batches(50, 10, 0, 5, seed))) for seed in (0, 1))
    assert list(first) != list(second)


def test_step_seeds_are_distinct_and_fixed():
    seeds = {step_seed(seed, step, AUGMENTATION) for seed in range(20) for step in range(200)}
    assert len(seeds) > 3_990  # 32 bits: a repetition among 4,000 has a chance of 0.2 %
    assert step_seed(3, 4, AUGMENTATION) == step_seed(3, 4, AUGMENTATION)
    assert step_seed(3, 4, AUGMENTATION) != step_seed(4, 3, AUGMENTATION)


def test_streams_and_processes_have_independent_seeds():
    keys = list(product(range(10), range(100), (AUGMENTATION, DROPOUT), range(4)))
    seeds = [step_seed(*key) for key in keys]
    assert len(set(seeds)) > len(seeds) - 5  # 32 bits: one repetition is expected among 8,000 in a hundred runs
    for seed, step, rank in product(range(10), range(100), range(4)):
        assert step_seed(seed, step, AUGMENTATION, rank) != step_seed(seed, step, DROPOUT, rank)
    # Not only different: the bits of both streams agree as often as those of unrelated numbers.
    first, second = (
        np.array([step_seed(0, step, stream) for step in range(2000)], dtype=np.uint32)
        for stream in (AUGMENTATION, DROPOUT)
    )
    agreement = np.unpackbits(~(first ^ second).view(np.uint8)).mean()
    assert abs(agreement - 0.5) < 4 * 0.5 / np.sqrt(32 * 2000)
