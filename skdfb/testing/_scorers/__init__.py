"""The checks of scorers."""

from skdfb.testing._scorers._suite import check_foreground_scorer, parametrize_scorers_with_checks

__all__ = ["check_foreground_scorer", "parametrize_scorers_with_checks"]
