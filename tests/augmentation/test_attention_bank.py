"""The attention bank against its formula."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skdfb.augmentation import AttentionBank


@given(momentum=st.floats(0.01, 1), seed=st.integers(0, 100), n_times=st.integers(0, 6))
def test_moving_averages_against_the_oracle(momentum, seed, n_times):
    rng = np.random.default_rng(seed)
    bank, expected = AttentionBank(5, map_size=3, momentum=momentum), np.full((5, 3, 3), 0.5)
    for _ in range(n_times):
        rows, maps = rng.permutation(5)[: rng.integers(1, 6)], rng.random((5, 3, 3))
        bank.update(rows, torch.from_numpy(maps[: len(rows)]))
        for row, new in zip(rows, maps, strict=False):
            expected[row] = (1 - momentum) * expected[row] + momentum * new
    np.testing.assert_allclose(bank.maps.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(bank[[3, 1]].numpy(), expected[[3, 1]], atol=1e-6)


def test_what_was_taken_out_does_not_change():
    bank = AttentionBank(2, map_size=1, momentum=1.0)
    before = bank[[0, 1]]
    bank.update([0, 1], torch.ones(2, 1, 1))
    assert before.flatten().tolist() == [0.5, 0.5]
    assert bank[[0, 1]].flatten().tolist() == [1.0, 1.0]


def test_maps_of_another_shape_are_refused():
    bank = AttentionBank(5, map_size=2)
    for shape in ((1, 1, 2), (2, 2), (3, 2, 2), (2, 4, 4)):
        with pytest.raises(ValueError, match=r"for 2 images: expected \(2, 2, 2\)"):
            bank.update([0, 1], torch.ones(shape))


def test_any_indices_and_no_gradients():
    bank = AttentionBank(5, map_size=2)
    for indices in ([], [1], np.array([1]), torch.tensor([1]), (1,)):
        bank.update(indices, torch.ones(len(indices), 2, 2, requires_grad=True))
        assert bank[indices].shape == (len(indices), 2, 2)
    assert not bank.maps.requires_grad
