"""Errors that are the library's own; everything else is a plain ``ValueError`` or ``TypeError``."""

__all__ = ["TrainingDivergedError"]


class TrainingDivergedError(ArithmeticError):
    """The training loss turned NaN or infinite.

    The message names the stage, the step and the learning rate at that step.
    """
