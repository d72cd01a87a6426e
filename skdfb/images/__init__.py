"""Images: read from any accepted form, checked, and passed to a network in batches."""

from skdfb.images._as_images import as_images
from skdfb.images._batch_size import BatchSize, batch_size_of, is_out_of_memory
from skdfb.images._batches import Preprocessor, read_batches
from skdfb.images._checks import check_images, check_labels, labels_given
from skdfb.images._constraints import N_JOBS
from skdfb.images._containers import opened
from skdfb.images._folders import Folder, scan_folder
from skdfb.images._images import Images, Indices, LenientImages, SingleImages, spread_evenly
from skdfb.images._joined import JoinedImages
from skdfb.images._labels import encode_labels, label_array, label_places, shown
from skdfb.images._near_duplicates import fingerprint, near_duplicates
from skdfb.images._pixels import value_bounds
from skdfb.images._survey import survey

__all__ = [
    "N_JOBS",
    "BatchSize",
    "Folder",
    "Images",
    "Indices",
    "JoinedImages",
    "LenientImages",
    "Preprocessor",
    "SingleImages",
    "as_images",
    "batch_size_of",
    "check_images",
    "check_labels",
    "encode_labels",
    "fingerprint",
    "is_out_of_memory",
    "label_array",
    "label_places",
    "labels_given",
    "near_duplicates",
    "opened",
    "read_batches",
    "scan_folder",
    "shown",
    "spread_evenly",
    "survey",
    "value_bounds",
]
