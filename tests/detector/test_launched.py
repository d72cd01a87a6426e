"""Launched processes before a fit; a fit in several of them is in ``tests/training/test_launched.py``."""

import torch

from skdfb.detector._calibration import Calibration
from skdfb.detector._launched import joined_processes


def test_alone_no_image_is_read():
    """Large photographs would take a second, and there is nothing to compare them with."""
    device = torch.device("cpu")
    assert joined_processes(device, object(), [0, 1], object(), Calibration(None, None, None)) is device
