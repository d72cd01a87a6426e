"""The threshold: held-out images, conformal p-values and the offset they give."""

from skdfb._registry import register_classes
from skdfb.calibration._conformal import ConformalCalibrator
from skdfb.calibration._split import stratified_holdout

__all__ = ["ConformalCalibrator", "stratified_holdout"]

register_classes(__name__)
