"""Files of tensors and a text: written in one step, read only if they are as they were written."""

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

__all__ = ["digest_of", "read_file", "write_file"]

_KEY = "skdfb"  # one key of the metadata: the order of several is random


def write_file(path: Path, text: str, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file whose metadata hold a text, with a digest of all of it.

    An older file is replaced at the end, in one step: whatever happens, it or the new one is there, and whole.
    """
    with _replaced(path) as unfinished:
        try:
            save_file(dict(tensors), unfinished, {_KEY: f"{digest_of(text, tensors)} {text}"})
        except SafetensorError as error:  # which a full disk is, too
            raise OSError(f"{str(path)!r} cannot be written: {error}") from error


def read_file(path: Path) -> tuple[str, dict[str, Tensor]]:
    """Return text and tensors of a file that :func:`write_file` has written.

    Raises
    ------
    InvalidModelError
        If it is another kind of file, or was cut or changed since.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: what is mapped to the file would change with it.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise InvalidModelError(f"it is no whole safetensors file ({error})") from error
    if set(metadata) != {_KEY}:
        raise InvalidModelError("it is no file of skdfb's")
    digest, _, text = metadata[_KEY].partition(" ")
    if digest != digest_of(text, tensors):
        raise InvalidModelError("it was changed or damaged after it was written")
    return text, tensors


def digest_of(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a text and of tensors with their names, as hexadecimal digits."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def _replaced(path: Path) -> Generator[Path]:
    """Give a file beside ``path`` to write to, which takes its place once it is written and on the disk."""
    unfinished = path.with_name(f".{path.name}-{uuid.uuid4().hex}.unfinished")
    try:
        with unfinished.open("xb") as file:
            mode = os.fstat(file.fileno()).st_mode
        yield unfinished
        unfinished.chmod(mode)  # safetensors makes files that only their owner may read
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
