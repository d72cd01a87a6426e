"""Errors and warnings of the library; all other errors are a plain ``ValueError`` or ``TypeError``."""

import os
from typing import Any

__all__ = [
    "BatchSizeWarning",
    "CheckpointError",
    "CheckpointWarning",
    "CompileWarning",
    "DuplicateImagesWarning",
    "InvalidModelError",
    "TrainingDivergedError",
    "UnreadableImageError",
    "UnreadableImageWarning",
]


class TrainingDivergedError(ArithmeticError):
    """The training loss became NaN or infinite.

    The message names the stage, the step and the learning rate at that step.
    """


class BatchSizeWarning(UserWarning):
    """A batch did not fit into the memory of the device, and the computation continued with smaller batches."""


class CheckpointError(OSError):
    """The folder for checkpoints cannot be written to; raised before any training."""


class CheckpointWarning(UserWarning):
    """A checkpoint could not be written, for example because the disk is full; or a ``fit`` does not continue another.

    Older checkpoints stay complete, and the training continues. A ``fit`` with changed data or parameters starts anew
    beside one that was left unfinished; the message names what changed.
    """


class CompileWarning(UserWarning):
    """A network could not be compiled, and is trained as it is."""


class DuplicateImagesWarning(UserWarning):
    """Images that set the threshold are nearly the same as training images, such as frames of one video.

    New images are less like the training images, so more than ``alpha`` of them are rejected. Pass ``groups``, or other
    images as ``X_calibration``, to ``fit``.
    """


class InvalidModelError(ValueError):
    """A file is not a saved model: it is truncated, was changed, is of another kind or of a later format.

    The message names the file and the defect.
    """


class UnreadableImageError(ValueError):
    """An image of a sequence or a dataset cannot be read: its file is missing, damaged, too large or not an image.

    Where all images are checked first, as in ``fit``, the message names all that cannot be read, or 20 of them and how
    many more; `index`, `path` and `reason` are of the first.

    Parameters
    ----------
    message : str
        Text of the error.
    index : int
        Index of the image in the sequence or dataset.
    path : str, os.PathLike or None, default=None
        File of the image; None if it did not come from a file.
    reason : str, default=None
        Why it cannot be read, without the name of the image; None takes the message.

    Attributes
    ----------
    index : int
        The parameter `index`.
    path : str or None
        The parameter `path` as a string.
    reason : str
        The parameter `reason`, or else the message.
    """

    def __init__(
        self, message: str, index: int, path: str | os.PathLike[str] | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message)
        self.index = index
        self.path = None if path is None else os.fspath(path)
        self.reason = message if reason is None else reason

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to pickle the error."""
        # Exceptions pickle only their message by default, so an error in a worker process would lose all else.
        return type(self), (str(self), self.index, self.path, self.reason)


class UnreadableImageWarning(UserWarning):
    """Images could not be read, and their scores are NaN, because of ``on_error="nan"``."""
