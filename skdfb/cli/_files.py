"""Files that commands read and write: checked before anything is computed."""

import os
import uuid
from collections.abc import Sequence
from pathlib import Path

from skdfb.cli._errors import CommandError

__all__ = ["check_extension", "check_output", "image_paths"]


def check_extension(path: str, kind: str, extensions: Sequence[str]) -> None:
    """Refuse the name of an output file that ends in none of some extensions, the usual ones first.

    Raises
    ------
    CommandError
        With the reason.
    """
    if os.path.splitext(path)[1].lower() not in extensions:
        raise CommandError(f"-o {path!r}: expected the name of {kind}, which ends in {', '.join(extensions)}")


def check_output(path: str, *, replace: bool) -> None:
    """Refuse a file that cannot be written, or that exists and must not be replaced.

    Raises
    ------
    CommandError
        With the reason.
    """
    if os.path.isdir(path):
        raise CommandError(f"{path!r} is a folder: expected the name of a file to write")
    if os.path.lexists(path) and not replace:
        raise CommandError(f"{path!r} exists already: choose another name, or replace it by --force")
    folder = os.path.dirname(path) or os.curdir
    if not os.path.isdir(folder):
        raise CommandError(f"{path!r} cannot be written: there is no folder {folder!r}; create it first")
    # By trial: os.access says nothing of full disks, read-only mounts and Windows.
    trial = Path(folder, f".skdfb-{uuid.uuid4().hex}.trial")
    try:
        trial.touch()
    except OSError as error:
        raise CommandError(f"{path!r} cannot be written: {error.strerror}") from error
    finally:
        trial.unlink(missing_ok=True)


def image_paths(given: Sequence[str]) -> list[str]:
    """Return the image files in folders and among files, each once, in the order given.

    Raises
    ------
    CommandError
        If a file or folder does not exist.
    OSError, ValueError
        If a folder cannot be read or has no images.
    """
    from skdfb.images import scan_folder

    paths: list[str] = []
    for path in given:
        if os.path.isdir(path):
            paths += scan_folder(path, "IMAGES").paths
        elif os.path.lexists(path):
            paths.append(path)
        else:
            raise CommandError(f"there is no file or folder {path!r}")
    return list(dict.fromkeys(paths))
