"""Checks that nothing changes but what `fit` learns, and that this lasts."""

import io
import pickle
import random
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch

from skdfb.scorers import Representation
from skdfb.testing._scorers._data import Data, new_images, training_data
from skdfb.testing._scorers._demands import (
    contents,
    demand,
    demand_same,
    demand_unchanged,
    fitted_copy,
    fresh_copy,
    scores_of,
)


def check_scorer_memory_mapped(name: str, scorer: Any) -> None:
    """Check that read-only features in a file are as good as those in memory."""
    data, new = training_data(scorer), new_images(scorer)
    wanted = scores_of(fitted_copy(scorer, data), new)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        mapped_train, mapped_new = (_mapped(images, folder) for images in (data.representation, new))
        before = contents(mapped_train), contents(mapped_new)
        got = scores_of(fitted_copy(scorer, Data(mapped_train, data.y)), mapped_new)
        demand_unchanged(name, "fit", before[0], contents(mapped_train))
        demand_unchanged(name, "score_samples", before[1], contents(mapped_new))
    demand_same(name, got, wanted, "given memory-mapped features and logits", "the scores of those in memory")


def _mapped(representation: Representation, folder: str) -> Representation:
    """Return the representation with features and logits in read-only files."""
    mapped = {}
    for field in ("features", "logits"):
        path = Path(folder) / f"{field}{len(representation)}.npy"
        np.save(path, getattr(representation, field).numpy())
        # Copy-on-write: a scorer that writes all the same is found by the changed bytes, and does not kill the process.
        mapped[field] = np.load(path, mmap_mode="c")
        mapped[field].flags.writeable = False
    head = {field: getattr(representation, field).numpy() for field in ("weight", "bias")}
    viewed = Representation.from_numpy(**mapped, **head)
    return replace(representation, features=viewed.features, logits=viewed.logits)


def check_scorer_global_random_state(name: str, scorer: Any) -> None:
    """Check that the random states of Python, NumPy and torch are as before, for others to draw from."""
    fresh, data, new = fresh_copy(scorer), training_data(scorer), new_images(scorer)
    python, numpy, pytorch = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        # No state that plain seeding leads to: a scorer may have seeded in an earlier check.
        random.seed(20240731)
        np.random.seed(20240731)  # noqa: NPY002
        torch.default_generator.manual_seed(20240731)
        random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002
        before = _random_states()
        fresh.fit(*data)
        fresh.score_samples(new)
        changed = [package for package, state in _random_states().items() if state != before[package]]
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(pytorch)
    demand(
        not changed,
        f"{name} changed the global random state of {' and '.join(changed)}, given random_state=0 if it has one; "
        "wanted them as before: draw from check_random_state(self.random_state) of sklearn.utils.",
    )


def _random_states() -> dict[str, bytes]:
    numpy = np.random.get_state()  # noqa: NPY002
    states = {"Python": random.getstate(), "NumPy": numpy, "torch": torch.get_rng_state().numpy()}
    return {package: pickle.dumps(state) for package, state in states.items()}


def check_scorer_scoring_keeps_state(name: str, scorer: Any) -> None:
    """Check that scoring learns nothing."""
    fitted, images = fitted_copy(scorer), new_images(scorer)
    wanted = scores_of(fitted, images)
    fitted.score_samples(training_data(scorer, seed=2).representation)
    got = scores_of(fitted, images)
    demand_same(name, got, wanted, "given other images to score in between", "the scores of before")


def check_scorer_refit(name: str, scorer: Any) -> None:
    """Check that a second `fit` forgets the first."""
    data, images = training_data(scorer), new_images(scorer)
    again = fitted_copy(scorer, training_data(scorer, seed=2))
    again.fit(*data)
    got, wanted = scores_of(again, images), scores_of(fitted_copy(scorer, data), images)
    demand_same(name, got, wanted, "given a fit on other images before", "the scores of a scorer fitted once")


def check_scorer_deterministic(name: str, scorer: Any) -> None:
    """Check that the same data give the same scores."""
    images = new_images(scorer)
    got, wanted = (scores_of(fitted_copy(scorer), images) for _ in range(2))
    given = "given the same images twice, and random_state=0 if it has one"
    demand_same(name, got, wanted, given, "the same scores")


def check_scorer_pickle(name: str, scorer: Any) -> None:
    """Check that pickle keeps the scores."""
    _demand_kept(name, scorer, "pickle", lambda fitted: pickle.loads(pickle.dumps(fitted)))


def check_scorer_joblib(name: str, scorer: Any) -> None:
    """Check that joblib keeps the scores."""

    def round_trip(fitted: Any) -> Any:
        buffer = io.BytesIO()
        joblib.dump(fitted, buffer)
        buffer.seek(0)
        return joblib.load(buffer)

    _demand_kept(name, scorer, "joblib", round_trip)


def _demand_kept(name: str, scorer: Any, by: str, round_trip: Callable[[Any], Any]) -> None:
    fitted, images = fitted_copy(scorer), new_images(scorer)
    wanted = scores_of(fitted, images)
    try:
        got = scores_of(round_trip(fitted), images)
    except Exception as error:
        raise AssertionError(
            f"{name} cannot be stored by {by} and score again, given a fitted one ({type(error).__name__}: {error}); "
            "wanted a class at the top of a module, whose attributes can be stored."
        ) from error
    demand_same(name, got, wanted, f"given a round trip through {by}", "the scores of before")
