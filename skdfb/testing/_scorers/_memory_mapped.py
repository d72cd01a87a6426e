"""The check of features that are stored in files."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from skdfb.scorers import Representation
from skdfb.testing._scorers._data import Data, new_images, training_data
from skdfb.testing._scorers._usage import USAGE
from skdfb.testing._shared._demands import demand_same, demand_unchanged


def check_scorer_memory_mapped(name: str, scorer: Any) -> None:
    """Check that read-only features in a file give the scores of features in memory."""
    data, new = training_data(scorer), new_images(scorer)
    expected = USAGE.result(USAGE.fitted(scorer, data), new)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        mapped_train, mapped_new = (_mapped(images, folder) for images in (data.representation, new))
        before = USAGE.contents(mapped_train), USAGE.contents(mapped_new)
        got = USAGE.result(USAGE.fitted(scorer, Data(mapped_train, data.y)), mapped_new)
        demand_unchanged(name, "fit", before[0], USAGE.contents(mapped_train))
        demand_unchanged(name, "score_samples", before[1], USAGE.contents(mapped_new))
    given, meaning = "memory-mapped features and logits", "the scores of those in memory"
    demand_same(name, got, expected, given=given, meaning=meaning)


def _mapped(representation: Representation, folder: str) -> Representation:
    """Return the representation with features and logits in read-only files."""
    mapped = {}
    for field in ("features", "logits"):
        path = Path(folder) / f"{field}{len(representation)}.npy"
        np.save(path, getattr(representation, field).numpy())
        # Copy-on-write: torch ignores the flag and may write. The changed bytes show it, and the process survives.
        mapped[field] = np.load(path, mmap_mode="c")
        mapped[field].flags.writeable = False
    head = {field: getattr(representation, field).numpy() for field in ("weight", "bias")}
    viewed = Representation.from_numpy(**mapped, **head)
    return replace(representation, features=viewed.features, logits=viewed.logits)
