"""The checks of scorers."""

from skdfb.testing._scorers._suite import SUITE, check_foreground_scorer

__all__ = ["SUITE", "check_foreground_scorer"]
