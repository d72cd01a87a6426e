"""Files of tensors and a text: written in one step, and refused if they were cut or changed."""

import hashlib
import os
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from skdfb.exceptions import InvalidModelError
from skdfb.utils._arrays import temporary_array

__all__ = ["digest_of", "read_file", "write_file", "write_text"]

_KEY = "skdfb"  # the only key of the metadata: safetensors writes several keys in random order


def write_file(path: Path, text: str, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file with a text, and a digest of everything, in its metadata.

    An older file is replaced at the end, in one step: at any time either the old or the new file is there, complete.

    Parameters
    ----------
    path : Path
        The file.
    text : str
        The text.
    tensors : mapping of str to Tensor
        Tensors by name, on the CPU.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    # The digest stands before the text and covers it: see read_file.
    with _replaced(path) as unfinished:
        try:
            save_file(dict(tensors), unfinished, {_KEY: f"{digest_of(text, tensors)} {text}"})
        except SafetensorError as error:  # safetensors raises it also for a full disk
            raise OSError(f"{str(path)!r} cannot be written: {error}") from error


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8; an older file is replaced at the end, in one step."""
    with _replaced(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")


def read_file(path: Path, *, mapped: bool = False) -> tuple[str, dict[str, Tensor]]:
    """Return the text and the tensors of a file that :func:`write_file` wrote.

    Parameters
    ----------
    path : Path
        The file.
    mapped : bool, default=False
        Whether tensors of more than a GiB are mapped to a temporary file, instead of in memory.

    Returns
    -------
    text : str
        The text.
    tensors : dict of str to Tensor
        Copies of the tensors, by name.

    Raises
    ------
    InvalidModelError
        If it is another kind of file, or was cut or changed.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: tensors that are mapped to the file would change if it changes.
            copied = _mapped_copy if mapped else torch.clone
            tensors = {name: copied(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise InvalidModelError(f"it is not a complete safetensors file ({error})") from error
    if set(metadata) != {_KEY}:
        raise InvalidModelError("it was not written by skdfb")
    digest, _, text = metadata[_KEY].partition(" ")
    if digest != digest_of(text, tensors):
        raise InvalidModelError("it was changed or damaged after it was written")
    return text, tensors


def _mapped_copy(tensor: Tensor) -> Tensor:
    copy = torch.from_numpy(temporary_array(tuple(tensor.shape), tensor.numpy().dtype))
    return copy.copy_(tensor)


def digest_of(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a text and of tensors with their names, as hexadecimal digits."""
    digest = hashlib.sha256(text.encode())
    # Name, dtype and shape too: the same bytes can be several tensors.
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def _replaced(path: Path) -> Generator[Path]:
    """Yield a new file beside ``path``; at the end of the block, when it is on the disk, it replaces ``path``."""
    # In the same folder, since a rename is one step only within a file system.
    unfinished = path.with_name(f".{path.name}-{uuid.uuid4().hex}.unfinished")
    try:
        with unfinished.open("xb") as file:
            mode = os.fstat(file.fileno()).st_mode
        yield unfinished
        unfinished.chmod(mode)  # safetensors writes files that only their owner may read
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
