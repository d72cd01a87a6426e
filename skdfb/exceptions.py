"""Errors that are the library's own; everything else is a plain ``ValueError`` or ``TypeError``."""

__all__ = ["CheckpointError", "CheckpointWarning", "InvalidModelError", "TrainingDivergedError"]


class TrainingDivergedError(ArithmeticError):
    """The training loss turned NaN or infinite.

    The message names the stage, the step and the learning rate at that step.
    """


class CheckpointError(OSError):
    """The folder for checkpoints cannot be written to; told before any training."""


class CheckpointWarning(UserWarning):
    """A checkpoint could not be written, as on a full disk; older ones are whole, and the training goes on."""


class InvalidModelError(ValueError):
    """A file that should hold a saved model does not: it is cut, changed, of another kind, or of a later format.

    The message names the file and what is wrong with it.
    """
