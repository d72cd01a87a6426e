"""Errors as one line on stderr and an exit code."""

import os
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager

from skdfb.cli._output import in_options, say

__all__ = ["CommandError", "InterruptedCommandError", "failed", "interruptible"]

_FAILED, _INTERRUPTED = 1, 130  # 2, wrong usage, is the exit code of typer's own errors

# What the library raises on purpose: the message alone says what to do. Others are named by their type as well.
_EXPECTED = (OSError, ValueError, TypeError, ImportError, ArithmeticError)


class CommandError(Exception):
    """An error in what a command was given; the message is all that the user needs."""


class InterruptedCommandError(Exception):
    """Ctrl-C; the message says what is kept."""


@contextmanager
def interruptible(kept: str) -> Generator[None]:
    """Turn Ctrl-C in the block into an error that says what is kept."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise InterruptedCommandError(kept) from error


def failed(error: BaseException, *, debug: bool) -> int:
    """Report an error and return the exit code."""
    if isinstance(error, BrokenPipeError):
        _close_stdout()
        return 0
    code = getattr(error, "exit_code", None)
    # typer leaves by an exception after --help and --version, too.
    if code is not None and not hasattr(error, "format_message"):
        return int(code)
    if debug:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt | InterruptedCommandError):
        say(f"interrupted: {error}" if str(error) else "interrupted")
        return _INTERRUPTED
    if code is not None:
        say(f"error: {_usage(error)}")
        return int(code)
    say(f"error: {_message(error)}")
    return _FAILED


def _usage(error: BaseException) -> str:
    """Return the message of an error in the command line, with the command whose help explains it."""
    context = getattr(error, "ctx", None)
    hint = "" if context is None else f" (see {context.command_path} --help)"
    return f"{error.format_message().rstrip('.')}{hint}"  # type: ignore[attr-defined]


def _message(error: BaseException) -> str:
    if isinstance(error, CommandError):
        return str(error)
    # The system's errors have number, file and reason; those of the library have a message alone.
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{os.fsdecode(error.filename)!r}: {error.strerror}"
    if isinstance(error, _EXPECTED) and str(error):
        return in_options(str(error))
    if isinstance(error, MemoryError):
        return "out of memory: expected smaller images or batches, such as --image-size 128"
    return f"{type(error).__name__}: {error} (add --debug for the traceback)"


def _close_stdout() -> None:
    """Let what is still buffered go nowhere: the reader, such as ``head``, has read enough."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # replaced by a stream without a file
        return
    # Python flushes stdout at its end, which would fail again.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
