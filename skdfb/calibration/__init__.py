"""The threshold: held-out images, conformal p-values and the offset they give."""

from skdfb.calibration._conformal import ConformalCalibrator
from skdfb.calibration._split import stratified_holdout

__all__ = ["ConformalCalibrator", "stratified_holdout"]
