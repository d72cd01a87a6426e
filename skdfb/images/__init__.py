"""Images: read from any accepted form, checked, and passed to a network in batches."""

from skdfb.images._batch_size import BatchSize, batch_size_of, is_out_of_memory
from skdfb.images._batches import Preprocessor, check_readable, iterate_batches, read_batches
from skdfb.images._checks import check_images, check_labels, labels_given
from skdfb.images._constraints import N_JOBS
from skdfb.images._images import Images, Indices, LenientImages, as_images, spread_evenly
from skdfb.images._joined import JoinedImages
from skdfb.images._near_duplicates import fingerprint, near_duplicates
from skdfb.images._pixels import value_bounds

__all__ = [
    "N_JOBS",
    "BatchSize",
    "Images",
    "Indices",
    "JoinedImages",
    "LenientImages",
    "Preprocessor",
    "as_images",
    "batch_size_of",
    "check_images",
    "check_labels",
    "check_readable",
    "fingerprint",
    "is_out_of_memory",
    "iterate_batches",
    "labels_given",
    "near_duplicates",
    "read_batches",
    "spread_evenly",
    "value_bounds",
]
