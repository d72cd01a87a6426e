"""Images in Parquet files, as the hubs of data sets keep them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["iter_parquet"]


def iter_parquet(path: str | os.PathLike[str], column: str | None = None, *, batch_size: int = 128) -> Iterator[bytes]:
    """Read the image files that are kept as bytes in a column of Parquet files, one after the other.

    Parameters
    ----------
    path : path
        A file, or a folder with files ``*.parquet``, which are read in the order of their names.
    column : str, default=None
        The column: of bytes, or of structs with a field ``bytes``, as the data sets of Hugging Face have. None takes
        the only such column.
    batch_size : int, default=128
        Rows that are read at a time.

    Returns
    -------
    images : iterator of bytes
        The contents of image files, such as JPEG; empty where the column has no value.

    Raises
    ------
    ImportError
        If the package pyarrow is not installed: ``pip install skdfb[parquet]``.
    FileNotFoundError
        If there is no such file, or no Parquet file in the folder.
    ValueError
        If there is no such column, or several columns hold bytes and none was chosen.

    See Also
    --------
    skdfb.DFBDetector.iter_scores : Scores such images in memory for a batch.

    Notes
    -----
    A Parquet file is written in groups of rows, which are read as a whole: the memory is that of a group or a batch.

    Examples
    --------
    >>> from skdfb.datasets import iter_parquet
    >>> for row in detector.iter_scores(iter_parquet("new.parquet")):  # doctest: +SKIP
    ...     print(row.index, row.p_value)
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError("reading Parquet files needs the package pyarrow: pip install skdfb[parquet].") from error
    files = _files(Path(path))
    names = [_column(parquet.ParquetFile(file).schema_arrow, column, file) for file in files]
    # Checked now; what follows is a generator, which begins when its first image is asked for.
    return _images(parquet, files, names, batch_size)


def _images(parquet: Any, files: list[Path], names: list[str], batch_size: int) -> Iterator[bytes]:
    for file, name in zip(files, names, strict=True):
        # By default pyarrow keeps all that it has read until the file is closed.
        with parquet.ParquetFile(file, pre_buffer=False) as opened:
            for batch in opened.iter_batches(batch_size, columns=[name]):
                values = batch.column(0)
                for value in values.field("bytes") if values.type.num_fields else values:
                    yield value.as_py() or b""  # a missing image is one that cannot be read


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(path.glob("*.parquet"))
    if not files:
        reason = "has no file *.parquet" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"path={str(path)!r} {reason}: expected a Parquet file, or a folder of them.")
    return files


def _column(schema: Any, column: str | None, file: Path) -> str:
    """Return the name of the column of images."""
    from pyarrow import types

    def holds_bytes(kind: Any) -> bool:
        if types.is_struct(kind):
            return bool(kind.get_field_index("bytes") >= 0) and holds_bytes(kind.field("bytes").type)
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    found = [field.name for field in schema if holds_bytes(field.type)]
    if column is not None and column in found:
        return column
    if column is None and len(found) == 1:
        return str(found[0])
    given = f"column={column!r} is not one of them" if column is not None else "pass column="
    raise ValueError(
        f"{str(file)!r} has the columns {schema.names}, of which {found} hold bytes: expected one column of image "
        f"files; {given}."
    )
