"""Copies of fitted arrays, which a scorer needs on another device or in another type."""

import gc

import numpy as np
import pytest
import torch

from skdfb.scorers import ViM
from skdfb.scorers import _fitted_tensors as module
from skdfb.scorers._fitted_tensors import fitted_tensor
from tests.scorers.helpers import fit, random_representation

CPU = torch.device("cpu")


def test_the_same_memory_where_nothing_has_to_change():
    array = np.arange(6.0)
    assert fitted_tensor(array, CPU).data_ptr() == array.ctypes.data
    assert fitted_tensor(array, CPU, torch.float64).data_ptr() == array.ctypes.data
    array[0] = 7  # there is no copy that could become wrong
    assert fitted_tensor(array, CPU)[0] == 7


def test_a_copy_is_made_once_and_cannot_become_wrong():
    array = np.arange(6.0)
    copy = fitted_tensor(array, CPU, torch.float32)
    assert copy.dtype == torch.float32
    assert copy.tolist() == array.tolist()
    assert fitted_tensor(array, CPU, torch.float32) is copy
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 7


def test_a_copy_lives_as_long_as_its_array():
    before = len(module._COPIES)
    array = np.arange(6.0)
    fitted_tensor(array, CPU, torch.float32)
    assert len(module._COPIES) == before + 1
    del array
    gc.collect()
    assert len(module._COPIES) == before


def test_large_arrays_are_not_kept_twice(monkeypatch):
    monkeypatch.setattr(module, "LARGEST_KEPT", 40)
    array = np.arange(6.0)
    assert fitted_tensor(array, CPU, torch.float32) is not fitted_tensor(array, CPU, torch.float32)
    array[0] = 7
    assert fitted_tensor(array, CPU, torch.float32)[0] == 7


def test_a_second_fit_and_another_array_are_seen():
    representation = random_representation(C=8)
    scorer = fit(ViM(), representation)
    first = scorer.score_samples(representation)
    scorer.residual_basis_ = 2 * scorer.residual_basis_
    assert (scorer.score_samples(representation) < first).all()
    np.testing.assert_array_equal(fit(scorer, representation).score_samples(representation), first)
