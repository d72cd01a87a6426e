"""Mixup: weights and partners are read off targets that name each image."""

import numpy as np
import pytest
import torch

from skdfb.augmentation import Batch
from skdfb.augmentation._mixup import mixup
from tests.augmentation.helpers import coordinate_batch


def read_mixup(batch, out):
    """Return the weight and the partners, from targets that name each image."""
    targets = out.targets.numpy().copy()
    own = targets.diagonal().copy()
    np.fill_diagonal(targets, 0)
    partners = np.where(targets.max(1) > 0, targets.argmax(1), np.arange(len(targets)))
    moved = partners != np.arange(len(targets))
    assert moved.any()
    assert np.ptp(own[moved]) < 1e-12  # one weight
    return own[moved][0], partners


def test_mixup_is_a_convex_combination_of_images_and_targets():
    batch = coordinate_batch(n=16)
    for seed in range(20):
        out = mixup(batch, 1.0, torch.Generator().manual_seed(seed))
        weight, partners = read_mixup(batch, out)
        assert 0 < weight < 1
        assert sorted(partners) == list(range(16))  # a permutation
        expected = weight * batch.images.numpy() + (1 - weight) * batch.images.numpy()[partners]
        np.testing.assert_allclose(out.images.numpy(), expected, atol=1e-12)
        np.testing.assert_allclose(out.targets.numpy().sum(1), 1.0, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 4.0])
def test_mixup_weights_are_beta(alpha):
    batch = Batch(torch.zeros(8, 3, 1, 1), torch.eye(8, dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    # the diagonal holds the weight, or 1 where an image is its own partner, which all eight hardly are
    weights = np.array([float(mixup(batch, alpha, generator).targets.diagonal().min()) for _ in range(3000)])
    assert weights.mean() == pytest.approx(0.5, abs=0.03)
    assert weights.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)


def test_mixup_by_a_tiny_alpha_has_no_nan():
    batch = coordinate_batch()
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        assert torch.isfinite(mixup(batch, 1e-4, generator).images).all()


def test_mixup_is_fixed_by_its_generator():
    batch = coordinate_batch()
    first, again = (mixup(batch, 1.0, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.images, again.images)


def test_inputs_stay_as_they_are_and_dtypes_are_kept():
    batch = coordinate_batch()
    before = batch.images.clone()
    assert mixup(batch, 0.1, torch.Generator().manual_seed(0)).images.dtype == torch.float64
    assert torch.equal(batch.images, before)
