"""Folders of images: one sub-folder per class, or images alone."""

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from skdfb.images._files import image_extensions
from skdfb.images._labels import shown

__all__ = ["Folder", "is_folder", "scan_folder"]

# What file managers, notebooks and archives leave behind, in lower case; and all names that begin with a dot.
_HIDDEN = {"__macosx", "__pycache__", "@eadir", "thumbs.db", "ehthumbs.db", "desktop.ini"}
_MOST_SHOWN = 3  # names in a message
_HEIC = {".heic", ".heif"}
_HEIC_REMEDY = "for HEIC files, install pillow-heif and call pillow_heif.register_heif_opener()"
_LAYOUT = "expected images, or one sub-folder of images per class"


@dataclass(frozen=True)
class Folder:
    """The images of a folder, by class and then by name.

    Parameters
    ----------
    paths : list of str
        The n files.
    labels : list of str or None
        The name of the class folder of each file; None if the folder has none.
    """

    paths: list[str]
    labels: list[str] | None


class _Entries(NamedTuple):
    """Sorted names of what lies directly in a folder."""

    images: list[str]
    folders: list[str]
    others: list[str]


def is_folder(X: Any) -> bool:
    """Tell whether ``X`` is the path of a folder."""
    return isinstance(X, str | os.PathLike) and os.path.isdir(_expanded(X))


def scan_folder(path: str | os.PathLike[str], name: str = "X", extensions: Any = None) -> Folder:
    """List the images of a folder; no file is opened.

    Hidden files and folders are left out. With ``extensions=None`` so are files that are no images by their extension,
    with a warning.

    Parameters
    ----------
    path : str or path
        The folder.
    name : str, default="X"
        The name of the argument in error messages.
    extensions : sequence of str, default=None
        The extensions of images, in any case. None takes those of all formats that can be read.

    Returns
    -------
    folder : Folder
        Its images.

    Raises
    ------
    FileNotFoundError, PermissionError
        If there is no such folder, it cannot be read, or it holds a link to a file that is missing.
    ValueError
        If the folder holds no images, images beside class folders, class folders without images, or class folders that
        hold further folders of images.
    """
    root = _expanded(path)
    _check_exists(path, root, name)
    root = "" if root == os.curdir else root  # adds nothing to a path
    taken = image_extensions() if extensions is None else _checked_extensions(extensions)
    top, given = _entries(root, taken), f"{name} is the folder {str(path)!r}"
    if top.images:
        _check_alone(root, top, taken, given)
        paths, labels, others = _joined(root, top.images), None, _joined(root, top.others)
    else:
        classes = {folder: _entries(os.path.join(root, folder), taken) for folder in top.folders}
        _check_classes(root, top, classes, taken, given)
        paths, labels, others = [], [], []
        for label, entries in classes.items():
            paths += _joined(os.path.join(root, label), entries.images)
            labels += [label] * len(entries.images)
            others += _joined(os.path.join(root, label), entries.others)
    if others and extensions is None:
        _warn_of_others(path, paths, others, given)
    return Folder(paths, labels)


# ------------------------------------------------------------------ what a folder holds


def _expanded(path: str | os.PathLike[str]) -> str:
    """Return a path as text, without a slash at its end, and with the home folder in place of ``~``."""
    text = os.fsdecode(path)
    if not text:
        return text
    # A folder may have the name "~".
    return str(Path(text if os.path.lexists(text) else os.path.expanduser(text)))


def _entries(folder: str, extensions: frozenset[str]) -> _Entries:
    found = _Entries([], [], [])
    try:
        # The listing itself tells files from folders, so that no file is looked at.
        with os.scandir(folder or os.curdir) as listing:
            for entry in listing:
                if entry.name.startswith(".") or entry.name.lower() in _HIDDEN:
                    continue
                if entry.is_dir():
                    found.folders.append(entry.name)
                elif entry.is_file():
                    kind = found.images if _extension(entry.name) in extensions else found.others
                    kind.append(entry.name)
                elif entry.is_symlink():
                    raise FileNotFoundError(
                        f"{entry.path!r} is a link to {os.readlink(entry.path)!r}, which is missing: "
                        "expected a file or a folder; mend the link, or remove it."
                    )
    except PermissionError as error:
        raise PermissionError(
            f"the folder {folder or os.curdir!r} cannot be read ({error.strerror}): expected the right to list "
            "its files; change its permissions, or move it away."
        ) from error
    for names in found:
        names.sort()
    return found


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _joined(folder: str, names: Iterable[str]) -> list[str]:
    return [os.path.join(folder, name) for name in names]


def _holder_of_images(folder: str, extensions: frozenset[str], visited: set[tuple[int, int]]) -> str | None:
    """Return the first folder, of this one and those inside, that holds images itself."""
    about = os.stat(folder)
    # A link may lead back to a folder above.
    if (about.st_dev, about.st_ino) in visited:
        return None
    visited.add((about.st_dev, about.st_ino))
    entries = _entries(folder, extensions)
    if entries.images:
        return folder
    inside = (_holder_of_images(os.path.join(folder, name), extensions, visited) for name in entries.folders)
    return next(filter(None, inside), None)


def _first_holder(folder: str, names: Sequence[str], extensions: frozenset[str]) -> str | None:
    """Return the first folder of images inside of some of the folders in a folder."""
    visited: set[tuple[int, int]] = set()
    holders = (_holder_of_images(os.path.join(folder, name), extensions, visited) for name in names)
    return next(filter(None, holders), None)


# ------------------------------------------------------------------ checks


def _check_exists(path: Any, root: str, name: str) -> None:
    if os.path.isdir(root):
        return
    if not root:
        raise ValueError(f"{name} is an empty path: expected a folder; for the current folder, pass '.'.")
    if os.path.exists(root):
        raise NotADirectoryError(f"{name} is the file {str(path)!r}: expected a folder of images.")
    pattern = " For all files of a pattern, pass sorted(glob.glob(pattern))." if set("*?[") & set(root) else ""
    where = "" if os.path.isabs(root) else f" in {os.getcwd()!r}"
    raise FileNotFoundError(
        f"{name} is the path {shown(str(path), 300)}, which does not exist{where}: expected a folder of "
        f"images, or a list of paths.{pattern}"
    )


def _checked_extensions(extensions: Any) -> frozenset[str]:
    """Return extensions in lower case, with a dot."""
    listed = [] if isinstance(extensions, str) or not isinstance(extensions, Iterable) else list(extensions)
    if not listed or not all(isinstance(extension, str) for extension in listed):
        raise TypeError(f"extensions={shown(extensions)}: expected a tuple of texts, such as ('.jpg', '.heic').")
    # "" is that of names without an extension.
    return frozenset(f".{extension.lstrip('.').lower()}" if extension else "" for extension in listed)


def _check_alone(root: str, top: _Entries, extensions: frozenset[str], given: str) -> None:
    """Refuse images beside folders of images."""
    holder = _first_holder(root, top.folders, extensions)
    if holder is not None:
        raise ValueError(
            f"{given}, which holds {len(top.images)} images, such as {top.images[0]!r}, beside a folder of "
            f"images, {holder!r}: {_LAYOUT}; move either of them to another folder, or pass the paths in a list."
        )


def _check_classes(
    root: str, top: _Entries, classes: dict[str, _Entries], extensions: frozenset[str], given: str
) -> None:
    """Refuse a folder without images, class folders without images, and folders of images in class folders."""
    # The message names the first: of a "test" and a "train" folder, the latter.
    for label, entries in sorted(classes.items(), key=lambda item: not item[0].lower().startswith("train")):
        folder = os.path.join(root, label)
        holder = _first_holder(folder, entries.folders, extensions)
        if holder is not None:
            remedy = f"pass {os.path.dirname(holder)!r}"
            if entries.images:
                remedy = f"move the images of {holder!r} to {folder!r}, or away"
            raise ValueError(
                f"{given}, whose sub-folder {folder!r} holds a folder of images, {holder!r}: {_LAYOUT}; {remedy}."
            )
    empty = {label: entries for label, entries in classes.items() if not entries.images}
    if len(empty) == len(classes):
        others = [*top.others, *(name for entries in empty.values() for name in entries.others)]
        hint = f"; {_HEIC_REMEDY}" if _HEIC & set(map(_extension, others)) else ""
        raise ValueError(f"{given}, which holds no images{_but(others)}: {_LAYOUT}{hint}.")
    if empty:
        named = [f"{label!r} ({_counted(entries.others) or 'empty'})" for label, entries in empty.items()]
        raise ValueError(
            f"{given}, of which {len(empty)} of {len(classes)} class folders hold no images: {_first(named)}; expected "
            "images in each; add some, or move these folders away."
        )


def _warn_of_others(path: Any, paths: Sequence[str], others: Sequence[str], given: str) -> None:
    found = sorted({_extension(name) for name in [*paths, *others]})
    heic = f" ({_HEIC_REMEDY})" if _HEIC & set(found) else ""
    warnings.warn(
        f"{given}, of which {len(others)} files are left out, since they are no images by their extension: "
        f"{_counted(others)}, such as {others[0]!r}. If they are images, pass the paths and labels of "
        f"load_image_folder({str(path)!r}, extensions={tuple(found)}){heic}.",
        UserWarning,
        stacklevel=4,
    )


def _but(names: Sequence[str]) -> str:
    return f" but {_counted(names)}" if names else " and no other files"


def _counted(names: Sequence[str]) -> str:
    """Return the numbers of files by extension, such as "3 .txt, 2 .heic"."""
    counts = Counter(_extension(name) or "without extension" for name in names)
    return _first([f"{number} {extension}" for extension, number in counts.most_common()])


def _first(texts: Sequence[str]) -> str:
    return ", ".join(texts[:_MOST_SHOWN]) + (", ..." if len(texts) > _MOST_SHOWN else "")
