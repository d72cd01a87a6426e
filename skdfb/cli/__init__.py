"""The command line: ``skdfb fit``, ``skdfb score`` and others; ``skdfb --help`` lists them."""

from skdfb.cli._main import main

__all__ = ["main"]
