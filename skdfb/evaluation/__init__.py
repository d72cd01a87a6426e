"""Tables of how well detectors do."""

from skdfb.evaluation._compare import class_accuracy, compare_scorers, format_comparison

__all__ = ["class_accuracy", "compare_scorers", "format_comparison"]
