"""Pages that sum up a detector for those who have to trust it."""

from skdfb.reports._report import write_report

__all__ = ["write_report"]
