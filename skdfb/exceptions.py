"""Errors and warnings that are the library's own; everything else is a plain ``ValueError`` or ``TypeError``."""

import os
from typing import Any

__all__ = [
    "BatchSizeWarning",
    "CheckpointError",
    "CheckpointWarning",
    "InvalidModelError",
    "TrainingDivergedError",
    "UnreadableImageError",
    "UnreadableImageWarning",
]


class TrainingDivergedError(ArithmeticError):
    """The training loss turned NaN or infinite.

    The message names the stage, the step and the learning rate at that step.
    """


class BatchSizeWarning(UserWarning):
    """A batch did not fit into the device's memory, and the work went on in smaller ones."""


class CheckpointError(OSError):
    """The folder for checkpoints cannot be written to; raised before any training."""


class CheckpointWarning(UserWarning):
    """A checkpoint could not be written, as on a full disk; older ones are whole, and the training goes on."""


class InvalidModelError(ValueError):
    """A file that should hold a saved model does not: it is cut, changed, of another kind, or of a later format.

    The message names the file and what is wrong with it.
    """


class UnreadableImageError(ValueError):
    """An image of a sequence or a dataset cannot be read: its file is missing, damaged, too large, or no image.

    Parameters
    ----------
    message : str
        The reason.
    index : int
        Place of the image among the images; also an attribute.
    path : path, default=None
        Its file, if it was given as one; also an attribute, as a str or None.
    """

    def __init__(self, message: str, index: int, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(message)
        self.index = index
        self.path = None if path is None else os.fspath(path)

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep index and path when the error comes from a worker process."""
        return type(self), (str(self), self.index, self.path)


class UnreadableImageWarning(UserWarning):
    """Images could not be read, and have NaN for a score, as ``on_error="nan"`` asks."""
