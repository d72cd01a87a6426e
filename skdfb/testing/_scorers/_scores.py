"""Checks of the protocol, of what goes in, and of the scores that come out."""

from dataclasses import replace
from typing import Any

import numpy as np

from skdfb.scorers import activations_needed, check_scorer, scorer_output
from skdfb.testing._scorers._data import Data, new_images, training_data
from skdfb.testing._scorers._demands import (
    TOLERANCE,
    contents,
    demand,
    demand_close,
    demand_same,
    demand_unchanged,
    fitted_copy,
    fresh_copy,
    raw_scores,
    scores_of,
)


def check_scorer_protocol(name: str, scorer: Any) -> None:
    """Check that the methods are there, and that what is declared is known."""
    check_scorer(scorer)
    activations_needed(scorer)
    scorer_output(scorer)
    if hasattr(scorer, "check_sizes"):
        representation = new_images(scorer)
        # These sizes are those of all checks, so they cannot be refused.
        fresh_copy(scorer).check_sizes(representation.n_features, representation.n_classes, len(representation))


def check_scorer_inputs_unchanged(name: str, scorer: Any) -> None:
    """Check that neither method writes to what it is given."""
    # Early, because a scorer that does so confuses the other checks.
    fresh, (train, y), new = fresh_copy(scorer), training_data(scorer), new_images(scorer)
    before = contents(train, y)
    fresh.fit(train, y)
    demand_unchanged(name, "fit", before, contents(train, y))
    before = contents(new)
    fresh.score_samples(new)
    demand_unchanged(name, "score_samples", before, contents(new))


def check_scorer_output(name: str, scorer: Any) -> None:
    """Check that scores declared as logarithms of probabilities are at most 0."""
    if scorer_output(scorer) == "log_probability":
        largest = scores_of(fitted_copy(scorer), new_images(scorer)).max()
        demand(
            largest <= TOLERANCE,
            f"{name} declares output 'log_probability' and gave a score of {largest:.3g}; wanted scores <= 0, or "
            "another output.",
        )


def check_scorer_shape(name: str, scorer: Any) -> None:
    """Check that there is one score an image."""
    fitted = fitted_copy(scorer)
    for n in (60, 1):
        shape = raw_scores(fitted, new_images(scorer, n)).shape
        demand(
            shape == (n,),
            f"{name}.score_samples returned shape {shape}, given {n} images; wanted ({n},), one score an image.",
        )


def check_scorer_dtype(name: str, scorer: Any) -> None:
    """Check that scores are real floating-point numbers."""
    dtype = raw_scores(fitted_copy(scorer), new_images(scorer)).dtype
    demand(
        dtype.kind == "f",
        f"{name}.score_samples returned numbers of type {dtype}, given float32; wanted floating-point numbers, such as "
        "float64.",
    )


def check_scorer_finite(name: str, scorer: Any) -> None:
    """Check that scores are neither NaN nor infinite."""
    fitted = fitted_copy(scorer)
    for which, images in (("training", training_data(scorer).representation), ("new", new_images(scorer))):
        bad = np.flatnonzero(~np.isfinite(scores_of(fitted, images)))
        demand(
            bad.size == 0,
            f"{name}.score_samples returned {bad.size} scores that are NaN or infinite, first in row {bad[:1]}, given "
            f"{len(images)} {which} images; wanted finite scores.",
        )


def check_scorer_row_order(name: str, scorer: Any) -> None:
    """Check that each image keeps its score wherever it stands."""
    fitted, images = fitted_copy(scorer), new_images(scorer)
    order = np.random.default_rng(0).permutation(len(images))
    got, wanted = scores_of(fitted, images[order]), scores_of(fitted, images)[order]
    demand_same(name, got, wanted, "given images in another order", "the same score for the same image")


def check_scorer_batches(name: str, scorer: Any) -> None:
    """Check that each image keeps its score in whatever company."""
    fitted, images = fitted_copy(scorer), new_images(scorer)
    wanted = scores_of(fitted, images)
    for given, ends in (("one at a time", range(1, len(images) + 1)), ("in three parts", (7, 8, len(images)))):
        starts = (0, *ends)[:-1]
        parts = [scores_of(fitted, images[start:end]) for start, end in zip(starts, ends, strict=True)]
        got = np.concatenate([np.atleast_1d(part) for part in parts])
        demand_same(name, got, wanted, f"given images {given}", "the scores of all images at once")


def check_scorer_float32(name: str, scorer: Any) -> None:
    """Check that single precision ranks images as double precision does."""
    dtypes = np.float64, np.float32
    train = [training_data(scorer, dtype=dtype) for dtype in dtypes]
    new = [new_images(scorer, dtype=dtype) for dtype in dtypes]
    double, single = (scores_of(fitted_copy(scorer, data), images) for data, images in zip(train, new, strict=True))
    demand_close(name, single, double, "given float32 instead of float64")


def check_scorer_float16(name: str, scorer: Any) -> None:
    """Check that features stored in half precision are computed with in a wider type."""
    # So large that their squares exceed what half precision holds; the logits stay as they are.
    train, new = training_data(scorer, scale=128), new_images(scorer, scale=128)
    scores = []
    for wide in (True, False):
        stored = [replace(images, features=images.features.half()) for images in (train.representation, new)]
        if wide:
            stored = [replace(images, features=images.features.float()) for images in stored]
        scores.append(scores_of(fitted_copy(scorer, Data(stored[0], train.y)), stored[1]))
    demand_close(name, scores[1], scores[0], "given float16 features instead of the same numbers in float32")
