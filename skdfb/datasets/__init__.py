"""Small image sets for examples and tests, generated from data that comes with scikit-learn."""

from skdfb.datasets._digits_on_photos import load_digits_on_photos

__all__ = ["load_digits_on_photos"]
