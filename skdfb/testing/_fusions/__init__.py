"""The checks of fusions."""

from skdfb.testing._fusions._suite import SUITE, check_fusion

__all__ = ["SUITE", "check_fusion"]
