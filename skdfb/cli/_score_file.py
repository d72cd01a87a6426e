"""The CSV file of ``skdfb score``: rows are appended, and an interrupted run goes on where it was."""

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, Self

from skdfb.cli._errors import CommandError
from skdfb.cli._rows import Row

__all__ = ["ScoreFile", "digest_of_file"]

# The last column says by which model a row was made: rows of two models in one file could not be compared.
_COLUMNS = ("path", "score", "p_value", "verdict", "label", "error", "model")


class ScoreFile:
    """A CSV file with one row per image.

    Names of files that are no UTF-8 keep their bytes (``surrogateescape``).

    Parameters
    ----------
    path : str
        The file. Without one, a header is written first.
    model : str
        The digest of the model.
    replace : bool, default=False
        Whether to drop the rows of an existing file.

    Raises
    ------
    CommandError
        If the file holds anything else than rows by this model.
    OSError
        If it cannot be read and written.
    """

    def __init__(self, path: str, model: str, replace: bool = False) -> None:
        self.path, self.model = path, model
        if replace and os.path.isfile(path):
            os.truncate(path, 0)
        # Binary: places in a text file cannot be computed.
        self._file: BinaryIO = open(path, "a+b")  # noqa: SIM115 (closed by __exit__)
        try:
            self._prepare()
        except BaseException:
            self._file.close()
            raise

    def _prepare(self) -> None:
        """Check what is there, and cut off a row that was being written when the program ended."""
        size, first = 0, True
        for record in _records(self._file):
            values = _values(record)
            if first and tuple(values) != _COLUMNS:
                raise CommandError(
                    f"{self.path!r} was not written by skdfb score: expected the first line {','.join(_COLUMNS)}; "
                    "choose another --csv, or replace the file by --force"
                )
            if not first and (len(values) != len(_COLUMNS) or values[-1] != self.model):
                raise CommandError(
                    f"{self.path!r} holds scores of another model, or was edited: choose another --csv, or replace the "
                    "file by --force"
                )
            size, first = size + len(record), False
        if first and os.path.getsize(self.path) and not _is_cut_header(self._file):
            raise CommandError(
                f"{self.path!r} was not written by skdfb score: choose another --csv, or replace the file by --force"
            )
        self._file.truncate(size)
        if first:
            self._write([_COLUMNS])

    def rows(self) -> Iterator[Row]:
        """Yield the rows that are there."""
        records = _records(self._file)
        next(records)  # the header
        for record in records:
            path, score, p_value, verdict, label, error, _ = _values(record)
            yield Row(path, _number(score), _number(p_value), verdict, label or None, error)

    def append(self, rows: Iterable[Row]) -> None:
        """Write rows, so that they are kept whatever happens next."""
        self._write([[*row.to_dict().values(), self.model] for row in rows])

    def _write(self, rows: Sequence[Sequence[Any]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode("utf-8", "surrogateescape"))
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def digest_of_file(path: str) -> str:
    """Return what identifies a model: the first digits of the SHA-256 of its file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _records(file: BinaryIO) -> Iterator[bytes]:
    """Yield the rows of a file as bytes, from the start; a row that is cut off is left out."""
    file.seek(0)
    record = b""
    for line in file:
        record += line
        # A name with a newline goes on in the next line, inside of quotes.
        if record.endswith(b"\n") and record.count(b'"') % 2 == 0:
            yield record
            record = b""


def _values(record: bytes) -> list[str]:
    text = io.StringIO(record.decode("utf-8", "surrogateescape"), newline="")
    return next(csv.reader(text), [])


def _is_cut_header(file: BinaryIO) -> bool:
    file.seek(0)
    return ",".join(_COLUMNS).encode().startswith(file.read(1000))


def _number(text: str) -> float | None:
    return float(text) if text else None
