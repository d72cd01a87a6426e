"""Checks of objects that return one score per image."""

from typing import Any

import numpy as np

from skdfb.testing._shared._demands import demand, demand_same
from skdfb.testing._shared._usage import ScoringUsage


def check_shape(name: str, instance: Any, usage: ScoringUsage) -> None:
    """Check that there is one score per image."""
    fitted = usage.fitted(instance)
    # One image: squeeze() would lose its row.
    for n in (60, 1):
        shape = usage.raw_result(fitted, usage.new_data(instance, n=n)).shape
        demand(
            shape == (n,),
            f"{name}.{usage.result_method}: expected shape ({n},), one score per image, got {shape}, given {n} images.",
        )


def check_dtype(name: str, instance: Any, usage: ScoringUsage) -> None:
    """Check that scores are real floating-point numbers."""
    dtype = usage.raw_result(usage.fitted(instance), usage.new_data(instance)).dtype
    demand(
        dtype.kind == "f",
        f"{name}.{usage.result_method}: expected floating-point numbers, such as float64, got {dtype}.",
    )


def check_finite(name: str, instance: Any, usage: ScoringUsage) -> None:
    """Check that scores are neither NaN nor infinite."""
    fitted = usage.fitted(instance)
    for which, images in (("training", usage.training_images(instance)), ("new", usage.new_data(instance))):
        # Training images may have a distance of 0, to themselves.
        bad = np.flatnonzero(~np.isfinite(usage.result(fitted, images)))
        demand(
            bad.size == 0,
            f"{name}.{usage.result_method}: expected finite scores, got {bad.size} that are NaN or infinite, the first "
            f"in row {bad[:1]}, given {len(images)} {which} images.",
        )


def check_row_order(name: str, instance: Any, usage: ScoringUsage) -> None:
    """Check that the score of an image does not depend on its row."""
    fitted, images = usage.fitted(instance), usage.new_data(instance)
    order = np.random.default_rng(0).permutation(len(images))
    got, expected = usage.result(fitted, images[order]), usage.result(fitted, images)[order]
    demand_same(name, got, expected, given="images in another order", meaning="the same score for the same image")


def check_batches(name: str, instance: Any, usage: ScoringUsage) -> None:
    """Check that the score of an image does not depend on the other images of the batch."""
    fitted, images = usage.fitted(instance), usage.new_data(instance)
    expected = usage.result(fitted, images)
    for given, ends in (("one at a time", range(1, len(images) + 1)), ("in three batches", (7, 8, len(images)))):
        # One at a time, and batches of very different sizes.
        starts = (0, *ends)[:-1]
        batches = [usage.result(fitted, images[start:end]) for start, end in zip(starts, ends, strict=True)]
        got = np.concatenate([np.atleast_1d(batch) for batch in batches])
        meaning = "the scores of all images at once"
        demand_same(name, got, expected, given=f"images {given}", meaning=meaning)


CHECKS = (check_shape, check_dtype, check_finite, check_row_order, check_batches)
