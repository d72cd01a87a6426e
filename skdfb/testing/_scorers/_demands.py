"""Demands on scores that only scorers have: finite or refused, and ranks that rounding keeps."""

import warnings
from typing import Any

import numpy as np

from skdfb.scorers import Representation
from skdfb.testing._scorers._data import Data
from skdfb.testing._scorers._usage import USAGE
from skdfb.testing._shared._demands import Array, demand, demand_refusal, largest_difference


def demand_finite_or_refused(name: str, scorer: Any, data: Data, given: str, *new: Representation) -> None:
    """Demand finite scores of the training images and of new ones, or a ValueError with a message."""
    expected = "finite scores, or a ValueError with a message about what cannot be learned from or scored"
    try:
        # A scorer may warn about such data.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = USAGE.fitted(scorer, data)
            scores = [(USAGE.result(fitted, images), len(images)) for images in (data.representation, *new)]
    except Exception as error:
        demand_refusal(name, error, given=given, expected=expected)
        return
    # Not refused: then each score must be usable.
    for values, n in scores:
        demand(values.shape == (n,), f"{name}: expected scores of shape ({n},), got {values.shape}, given {given}.")
        bad = int((~np.isfinite(values)).sum())
        demand(
            bad == 0, f"{name}: expected {expected}, got {bad} scores of {n} that are NaN or infinite, given {given}."
        )


def demand_close(name: str, got: Array, expected: Array, given: str) -> None:
    """Demand scores with the same ranking, except for near ties."""
    apart, spread = largest_difference(got, expected), expected.std()
    demand(
        apart <= 0.01 * spread + 1e-12 * np.abs(expected).max(),  # False for NaN
        f"{name}: expected scores that differ by less than a hundredth of their standard deviation ({spread:.3g}), so "
        f"that the ranking stays, got {apart:.3g}, given {given}; compute in float64.",
    )
