"""What the tables of this package share."""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from skdfb.metrics import aupr_score, auroc_score, fpr_at_tpr

__all__ = ["METRICS", "as_frame", "check_ood", "metric_values"]

METRICS = ("auroc", "aupr_in", "aupr_out", "fpr95")


def metric_values(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike) -> dict[str, float]:
    """Return the metrics by the name of their column; in-distribution is positive, except for ``aupr_out``."""
    return {
        "auroc": auroc_score(id_scores, ood_scores),
        "aupr_in": aupr_score(id_scores, ood_scores, positive="id"),
        "aupr_out": aupr_score(id_scores, ood_scores, positive="ood"),
        "fpr95": fpr_at_tpr(id_scores, ood_scores, tpr=0.95),
    }


def as_frame(columns: dict[str, list[Any]]) -> Any:
    """Return columns as a pandas.DataFrame, or as they are where pandas is absent."""
    try:
        import pandas as pd
    except ImportError:
        return columns
    return pd.DataFrame(columns)


def check_ood(ood: Any) -> None:
    """Refuse OOD images that have no names."""
    if not isinstance(ood, Mapping) or not ood:
        given = "empty" if isinstance(ood, Mapping) else f"a {type(ood).__name__}"
        raise TypeError(f"ood is {given}; OOD images by name are wanted, like {{'noise': X_noise}}.")
