"""Measures of out-of-distribution scores, where higher is more in-distribution, of open-set labels, and of masks."""

from skdfb.metrics._masks import foreground_fraction, mask_iou
from skdfb.metrics._ood import aupr_score, auroc_score, fpr_at_tpr
from skdfb.metrics._open_set import open_set_f1_score, oscr_score

__all__ = [
    "aupr_score",
    "auroc_score",
    "foreground_fraction",
    "fpr_at_tpr",
    "mask_iou",
    "open_set_f1_score",
    "oscr_score",
]
