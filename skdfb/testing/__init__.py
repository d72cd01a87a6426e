"""Checks of third-party scorers against the protocol of :class:`skdfb.scorers.ForegroundScorer`.

What scikit-learn's ``check_estimator`` is for estimators: a testing tool. Nothing in the package imports it.
"""

from skdfb.testing._scorers import check_foreground_scorer, parametrize_scorers_with_checks

__all__ = ["check_foreground_scorer", "parametrize_scorers_with_checks"]
