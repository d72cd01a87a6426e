"""What commands write: results on stdout, as tables or JSON, and messages on stderr."""

import json
import logging
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = [
    "file_size",
    "in_options",
    "messages_on_stderr",
    "on_terminal",
    "one_line",
    "printable",
    "say",
    "write",
    "write_json",
    "write_table",
]

# Parameters and objects in the library's advice, and the options of 'skdfb fit' that are the same.
_AS_OPTIONS: list[tuple[str, Callable[[re.Match[str]], str]]] = [
    # There is no option for None.
    (
        r"\b(backbone|alpha|image_size|n_jobs|device|checkpoint_dir)=(?!None|,)",
        lambda found: f"--{found[1].replace('_', '-')} ",
    ),
    (r"\bTrainer\(max_steps=(\d+)\)", lambda found: f"--steps {found[1]}"),
    (r"\bFrozenDetector\b(?=, which trains)", lambda found: "--preset fast"),
    # What only Python can do is left out, and what the command line does in another way is said in its words.
    (r"\bcalibration_fraction=[\d.]+, or ", lambda found: ""),
    (r", or alpha=None, which sets no threshold\b|\balpha=None, which sets no threshold, or ", lambda found: ""),
    (r" with calibration_fraction='auto', or an X_calibration of at least \d+ \w+", lambda found: ""),
    (r"\bRaise image_size=, or lower the backbone's stride \([^)]*\)", lambda found: "Raise --image-size"),
    (r"(?<=to another folder), or pass the paths in a list\b", lambda found: ""),
    (r"\bX_id is the folder\b", lambda found: "ID_DIR is the folder"),
    (r"\bmove them to ood\. To pass the images without labels, .*", lambda found: "give their folder by --ood."),
]
_WIDE = 10_000  # characters: tables in files and pipes are not cut to the width of a terminal


def say(message: str) -> None:
    """Write a message to stderr, in one line."""
    sys.stderr.write(f"skdfb: {one_line(message)}\n")
    sys.stderr.flush()


def write(text: str = "") -> None:
    """Write a line of the result to stdout."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def write_json(value: Any) -> None:
    """Write a value to stdout as JSON, in one line; NaN and infinity become null."""
    write(json.dumps(_plain(value), allow_nan=False))


def write_table(rows: Sequence[Sequence[Any]], columns: Sequence[str] = (), title: str | None = None) -> None:
    """Write a table to stdout; numbers stand on the right. Without names of columns there is no header."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title and Text(title), title_justify="left", box=box.SIMPLE_HEAD, show_header=bool(columns))
    for place, name in enumerate(columns or [""] * len(rows[0])):
        numeric = any(isinstance(row[place], int | float) for row in rows)
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    # As it is now: tests replace stdout, and so do callers.
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else _WIDE, emoji=False).print(table)


def printable(text: str) -> str:
    """Return a text, such as the name of a file, with escapes in place of what a terminal would obey."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def one_line(text: str) -> str:
    """Return a text as one printable line."""
    return printable(" ".join(text.split()))


def in_options(text: str) -> str:
    """Return a message of the library with "--image-size 128" in place of "image_size=128"."""
    for pattern, option in _AS_OPTIONS:
        text = re.sub(pattern, option, text)
    return text


def on_terminal() -> bool:
    """Tell whether somebody reads stderr, so that progress is shown."""
    return sys.stderr.isatty()


def file_size(n_bytes: int) -> str:
    """Return a size such as "12.3 MB"."""
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:.1f} kB"


@contextmanager
def messages_on_stderr() -> Generator[None]:
    """Show warnings and the library's log as lines on stderr; names of files that are no text do not fail."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    logger, handler = logging.getLogger("skdfb"), _Lines(logging.INFO)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Lines(logging.Handler):
    """Writes each record as a line on stderr, equal ones once."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._written: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        from skdfb._progress import write_line

        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        line = f"skdfb: {one_line(prefix + in_options(record.getMessage()))}"
        # Networks that are built twice name their weights twice.
        if line not in self._written:
            self._written.add(line)
            write_line(line)


def _show_warning(message: Warning | str, *place: Any, **more: Any) -> None:
    say(f"warning: {in_options(str(message))}")


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if hasattr(value, "tolist"):  # arrays and numbers of NumPy
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return os.fsdecode(value) if isinstance(value, os.PathLike) else str(value)
