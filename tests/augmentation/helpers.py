"""Batches whose pixels tell where they came from."""

import numpy as np
import torch

from skdfb.augmentation import Batch

SIDE = 16


def centres(side):
    """Coordinates of pixel centres in [-1, 1]."""
    return (2 * np.arange(side) + 1) / side - 1


def coordinate_batch(n=8, side=SIDE, mask_side=SIDE, seed=0):
    """Images (x, y, noise), masks of noise."""
    rng = np.random.default_rng(seed)
    images = np.empty((n, 3, side, side))
    images[:, 0], images[:, 1] = centres(side)[None, None, :], centres(side)[None, :, None]
    images[:, 2] = rng.normal(size=(n, side, side))
    masks = rng.integers(0, 5, (n, mask_side, mask_side))
    targets = torch.eye(n, dtype=torch.float64)
    return Batch(torch.from_numpy(images), targets, torch.from_numpy(masks))
