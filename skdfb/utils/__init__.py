"""Checking and reading input, devices and random states; the lowest layer."""

from skdfb.utils._devices import (
    available_device,
    deterministic_algorithms,
    evaluation_mode,
    isolated_rng,
    launched_processes,
    resolve_device,
    spawn_seeds,
)
from skdfb.utils._estimators import numbered, shallow_copy
from skdfb.utils._files import digest_of, read_file, write_file
from skdfb.utils._images import Images, Indices, LenientImages, as_images, spread_evenly
from skdfb.utils._loading import Preprocessor, check_readable, iterate_batches, read_batches
from skdfb.utils._memory import BatchSize, batch_size_of, is_out_of_memory
from skdfb.utils._pixels import value_bounds
from skdfb.utils._scores import check_scores
from skdfb.utils._tail_probability import TailProbability
from skdfb.utils._validation import check_images, check_labels, labels_given

__all__ = [
    "BatchSize",
    "Images",
    "Indices",
    "LenientImages",
    "Preprocessor",
    "TailProbability",
    "as_images",
    "available_device",
    "batch_size_of",
    "check_images",
    "check_labels",
    "check_readable",
    "check_scores",
    "deterministic_algorithms",
    "digest_of",
    "evaluation_mode",
    "is_out_of_memory",
    "isolated_rng",
    "iterate_batches",
    "labels_given",
    "launched_processes",
    "numbered",
    "read_batches",
    "read_file",
    "resolve_device",
    "shallow_copy",
    "spawn_seeds",
    "spread_evenly",
    "value_bounds",
    "write_file",
]
