"""The images of each step."""

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


def test_full_epochs_are_different_permutations():
    batches = list(shuffled_batches(12, 4, 0, 6, 0))
    first, second = np.concatenate(batches[:3]), np.concatenate(batches[3:])
    assert sorted(first) == sorted(second) == list(range(12))
    assert list(first) != list(second)
    assert list(first) != list(range(12))


def test_an_epoch_is_shuffled_once():
    batches = list(shuffled_batches(12, 4, 1, 6, 0))
    assert [batch.base is batches[0].base for batch in batches] == [True, True, False, False, False]


def test_all_images_are_used_over_epochs():
    indices = np.concatenate(list(shuffled_batches(10, 7, 0, 30, 0)))
    assert set(indices) == set(range(10))


@pytest.mark.parametrize("start", [0, 1, 3, 4, 7, 11])
def test_resumed_training_has_the_same_batches(start):
    uninterrupted = list(shuffled_batches(11, 3, 0, 12, 5))
    resumed = list(shuffled_batches(11, 3, start, 12, 5))
    assert len(resumed) == 12 - start
    for expected, batch in zip(uninterrupted[start:], resumed, strict=True):
        np.testing.assert_array_equal(batch, expected)


def test_another_seed_gives_another_order():
    first, second = (np.concatenate(list(shuffled_batches(50, 10, 0, 5, seed))) for seed in (0, 1))
    assert list(first) != list(second)


def test_step_seeds_are_distinct_and_fixed():
    """No two steps, streams or processes share their random numbers."""
    seeds = {
        step_seed(seed, step, stream, rank)
        for seed in range(10)
        for step in range(100)
        for stream in (AUGMENTATION, DROPOUT)
        for rank in range(2)
    }
    assert len(seeds) > 3_990  # 32 bits: a repetition among 4,000 has a chance of 0.2 %
    assert step_seed(3, 4, DROPOUT) == step_seed(3, 4, DROPOUT)
    assert step_seed(3, 4, DROPOUT) != step_seed(4, 3, DROPOUT)
