"""Figures of merit of out-of-distribution scores; in all of them a higher score is more in-distribution."""

from skdfb.metrics._ood import aupr_score, auroc_score, fpr_at_tpr

__all__ = ["aupr_score", "auroc_score", "fpr_at_tpr"]
