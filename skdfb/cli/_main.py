"""Entry point: a command's results go to stdout, all else to stderr, an error is one line and an exit code."""

import importlib.util
import sys
from collections.abc import Sequence

from skdfb.cli._errors import CommandError, failed
from skdfb.cli._output import messages_on_stderr

__all__ = ["main"]

_NEEDED = ("typer", "rich")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, as the program ``skdfb`` does.

    Parameters
    ----------
    argv : sequence of str, default=None
        The command and its options. None takes those of the program.

    Returns
    -------
    code : int
        The exit code: 0 after success, 1 after an error in data, files or models, 2 after a wrong command or option,
        130 after an interrupt.

    Examples
    --------
    >>> from skdfb.cli import main
    >>> main(["--version"])
    skdfb 0.1.0
    0
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    with messages_on_stderr():
        try:
            _run(arguments or ["--help"])
        # SystemExit is let through: nothing here raises it.
        except (Exception, KeyboardInterrupt) as error:
            # Read here, since an error may come before the options are parsed.
            return failed(error, debug="--debug" in arguments)
    return 0


def _run(arguments: list[str]) -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise CommandError(f"the command line needs {' and '.join(missing)}: run pip install 'skdfb[cli]'")
    from skdfb.cli._app import run

    run(arguments)
