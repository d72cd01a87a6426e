"""The checks of mask generators."""

from skdfb.testing._mask_generators._suite import SUITE, check_mask_generator

__all__ = ["SUITE", "check_mask_generator"]
