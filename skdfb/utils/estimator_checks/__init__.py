"""Checks of anybody's scorer against the protocol of :class:`skdfb.scorers.ForegroundScorer`.

What scikit-learn's ``check_estimator`` is for estimators: a testing tool, which nothing in the package imports.
"""

from skdfb.utils.estimator_checks._suite import check_foreground_scorer, parametrize_scorers_with_checks

__all__ = ["check_foreground_scorer", "parametrize_scorers_with_checks"]
