"""Errors that are the library's own; everything else is a plain ``ValueError`` or ``TypeError``."""

__all__ = ["InvalidModelError", "TrainingDivergedError"]


class TrainingDivergedError(ArithmeticError):
    """The training loss turned NaN or infinite.

    The message names the stage, the step and the learning rate at that step.
    """


class InvalidModelError(ValueError):
    """A file that should hold a saved model does not: it is cut, changed, of another kind, or of a later format.

    The message names the file and what is wrong with it.
    """
