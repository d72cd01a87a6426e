"""The checks of augmentations."""

from skdfb.testing._augmentations._suite import SUITE, check_augmentation

__all__ = ["SUITE", "check_augmentation"]
