"""Checks of third-party objects against the protocols of this library, for their authors' tests.

They do for the parts of a detector what scikit-learn's ``check_estimator`` does for estimators. Nothing in the package
imports them.
"""

from skdfb.testing._augmentations import check_augmentation
from skdfb.testing._fusions import check_fusion
from skdfb.testing._mask_generators import check_mask_generator
from skdfb.testing._parametrize import parametrize_with_checks
from skdfb.testing._scorers import check_foreground_scorer

__all__ = [
    "check_augmentation",
    "check_foreground_scorer",
    "check_fusion",
    "check_mask_generator",
    "parametrize_with_checks",
]
