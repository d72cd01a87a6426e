"""Metrics of detectors as tables, splits by classes, and the choice of parameters without OOD data."""

from skdfb.evaluation._compare import class_accuracy, compare_scorers, format_comparison
from skdfb.evaluation._evaluate import evaluate
from skdfb.evaluation._left_out_classes import LeaveClassesOut, left_out_auroc
from skdfb.evaluation._open_set_protocols import open_set_protocol
from skdfb.evaluation._open_set_split import OpenSetSplit
from skdfb.evaluation._sweeps import class_count_sweep, temperature_sweep
from skdfb.evaluation._table import Table

__all__ = [
    "LeaveClassesOut",
    "OpenSetSplit",
    "Table",
    "class_accuracy",
    "class_count_sweep",
    "compare_scorers",
    "evaluate",
    "format_comparison",
    "left_out_auroc",
    "open_set_protocol",
    "temperature_sweep",
]
