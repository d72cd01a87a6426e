"""Checks of a scorer's protocol, of its output kind, and of the precision of its scores."""

from dataclasses import replace
from typing import Any

import numpy as np

from skdfb.scorers import activations_needed, check_scorer, scorer_output
from skdfb.testing._scorers._data import Data, new_images, training_data
from skdfb.testing._scorers._demands import demand_close
from skdfb.testing._scorers._usage import USAGE
from skdfb.testing._shared._demands import TOLERANCE, demand, fresh_copy


def check_scorer_protocol(name: str, scorer: Any) -> None:
    """Check that the methods exist, and that the declared attributes have known values."""
    check_scorer(scorer)
    activations_needed(scorer)
    scorer_output(scorer)
    if hasattr(scorer, "check_sizes"):
        representation = new_images(scorer)
        # All checks use these sizes, so the scorer cannot refuse them.
        fresh_copy(scorer).check_sizes(representation.n_features, representation.n_classes, len(representation))


def check_scorer_output(name: str, scorer: Any) -> None:
    """Check that scores declared as logarithms of probabilities are at most 0."""
    if scorer_output(scorer) == "log_probability":
        largest = USAGE.result(USAGE.fitted(scorer), new_images(scorer)).max()
        demand(
            largest <= TOLERANCE,
            f"{name}: expected scores <= 0 for the declared output 'log_probability', got {largest:.3g}; correct the "
            "scores or declare another output.",
        )


def check_scorer_float32(name: str, scorer: Any) -> None:
    """Check that single precision ranks images as double precision does."""
    # The same numbers in both types, except for rounding.
    dtypes = np.float64, np.float32
    train = [training_data(scorer, dtype=dtype) for dtype in dtypes]
    new = [new_images(scorer, dtype=dtype) for dtype in dtypes]
    double, single = (USAGE.result(USAGE.fitted(scorer, data), images) for data, images in zip(train, new, strict=True))
    demand_close(name, single, double, "float32 instead of float64")


def check_scorer_float16(name: str, scorer: Any) -> None:
    """Check that features in half precision are converted to a wider type before any computation."""
    # So large that their squares exceed the range of half precision; the logits stay as they are.
    train, new = training_data(scorer, scale=128), new_images(scorer, scale=128)
    scores = []
    for wide in (True, False):
        stored = [replace(images, features=images.features.half()) for images in (train.representation, new)]
        if wide:
            stored = [replace(images, features=images.features.float()) for images in stored]
        scores.append(USAGE.result(USAGE.fitted(scorer, Data(stored[0], train.y)), stored[1]))
    demand_close(name, scores[1], scores[0], "float16 features instead of the same numbers in float32")
