"""Files of publishers: their addresses and digests, the folder where they are kept, downloads and archives."""

import hashlib
import os
import sys
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["FILES", "RemoteFile", "data_folder", "images_of", "is_there", "local_file"]

_ENVIRONMENT = "SKDFB_DATA_HOME"
_TIMEOUT = 60  # seconds without an answer of a server

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class RemoteFile:
    """A file of a publisher.

    Parameters
    ----------
    name : str
        File name, in the folder and at the publisher.
    url : str
        Address of the file.
    digest : str
        Its digest with the name of the algorithm: "sha256:..." or "md5:...".
    pattern : str, default=""
        Pattern of the images in an archive of images.
    n_images : int, default=0
        Number of images in an archive of images.
    """

    name: str
    url: str
    digest: str
    pattern: str = ""
    n_images: int = 0


# SHA-256 digests are those of TensorFlow Datasets 4.9.10. The only published digest of Places.tar.gz is an MD5 sum, in
# the package "detectors" (https://github.com/edadaltocg/detectors).
_CIFAR = "https://www.cs.toronto.edu/~kriz/"
_SVHN = "http://ufldl.stanford.edu/housenumbers/"
FILES = {
    "cifar10": RemoteFile(
        "cifar-10-binary.tar.gz",
        f"{_CIFAR}cifar-10-binary.tar.gz",
        "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ),
    "cifar100": RemoteFile(
        "cifar-100-binary.tar.gz",
        f"{_CIFAR}cifar-100-binary.tar.gz",
        "sha256:58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    ),
    "svhn_train": RemoteFile(
        "train_32x32.mat",
        f"{_SVHN}train_32x32.mat",
        "sha256:435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
    ),
    "svhn_test": RemoteFile(
        "test_32x32.mat",
        f"{_SVHN}test_32x32.mat",
        "sha256:cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
    ),
    "textures": RemoteFile(
        "dtd-r1.0.1.tar.gz",
        "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
        "sha256:e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205",
        "dtd/images/*/*.jpg",
        5_640,
    ),
    "places365_mos": RemoteFile(
        "Places.tar.gz",
        "http://pages.cs.wisc.edu/~huangrui/imagenet_ood_dataset/Places.tar.gz",
        "md5:b5cb5eba2754ae2a28beea8718db699a",
        "**/*.jpg",
        10_000,
    ),
    "places365_validation": RemoteFile(
        "val_256.tar",
        "http://data.csail.mit.edu/places/places365/val_256.tar",
        "sha256:24b4e639ef12a0012af525bc4cb443e4ab4aaea8369a1fb009b70e4a4aad5d48",
        "val_256/*.jpg",
        36_500,
    ),
    "flower_photos": RemoteFile(
        "flower_photos.tgz",
        "https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz",
        "sha256:4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
        "flower_photos/*/*.jpg",
        3_670,
    ),
}


def data_folder(data_home: PathLike | None) -> Path:
    """Return the folder of the files: ``data_home``, the variable ``SKDFB_DATA_HOME``, or pooch's cache."""
    if data_home is not None and not isinstance(data_home, str | os.PathLike):
        raise TypeError(f"data_home={data_home!r}: expected a folder, or None for that of {_ENVIRONMENT} or a cache.")
    chosen = data_home or os.environ.get(_ENVIRONMENT)
    return Path(chosen or _pooch().os_cache("skdfb")).expanduser().absolute()


def is_there(name: str, folder: Path) -> bool:
    """Return whether the file of a set, or its extracted images, are in the folder."""
    return (folder / FILES[name].name).is_file() or (folder / name).is_dir()


def images_of(name: str, folder: Path, download: bool) -> list[str]:
    """Return the sorted paths of the images of an archive, which is downloaded and extracted first if needed.

    Parameters
    ----------
    name : str
        A name of ``FILES``. The images are in the sub-folder of this name.
    folder : Path
        Folder of the files.
    download : bool
        Whether to download the archive if it is missing.

    Returns
    -------
    paths : list of str
        The images.

    Raises
    ------
    ValueError
        If the archive is not the known one, or images are missing.
    OSError
        If the archive is missing, or cannot be downloaded or extracted.
    """
    file, extracted = FILES[name], folder / name
    if not extracted.is_dir():
        _extract(local_file(name, folder, download), extracted)
    # Some systems add hidden files with the name of each image.
    paths = sorted(str(path) for path in extracted.glob(file.pattern) if not path.name.startswith("."))
    if len(paths) != file.n_images:
        raise ValueError(
            f"{extracted / file.pattern} matches {len(paths):,} images: expected {file.n_images:,}. Remove the folder "
            f"{extracted}, so that {file.name} is extracted again."
        )
    return paths


def _extract(archive_path: Path, target: Path) -> None:
    """Extract an archive; the folder ``target`` appears complete or not at all."""
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}-") as unfinished:
            content = Path(unfinished, "content")
            with tarfile.open(archive_path) as archive:
                archive.extractall(content, filter="data")  # refuses members that would land outside
            if not target.is_dir():  # another process may have been faster
                os.replace(content, target)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(f"{archive_path} cannot be extracted: {error}.") from error
    except OSError as error:
        raise OSError(f"{archive_path} cannot be extracted to {target}: {error}.") from error


def local_file(name: str, folder: Path, download: bool) -> Path:
    """Return the path of a file, after a check of its digest.

    Parameters
    ----------
    name : str
        A name of ``FILES``.
    folder : Path
        Folder of the file.
    download : bool
        Whether to download it if it is missing.

    Returns
    -------
    path : Path
        Of the file.

    Raises
    ------
    ValueError
        If it has another digest.
    OSError
        If it is missing or cannot be downloaded.
    ImportError
        If it is missing, and pooch too.
    """
    file = FILES[name]
    path = folder / file.name
    if path.is_file():
        found = _digest(path, file.digest.partition(":")[0])
        if found != file.digest:
            raise ValueError(
                f"{path} has the digest {found}: expected {file.digest}. It is cut, or another file. Remove it, so "
                "that it is downloaded again."
            )
    elif not download:
        raise FileNotFoundError(f"{path} is missing, and download_if_missing=False. {_by_hand(file, folder)}")
    else:
        _download(file, folder)
    return path


def _digest(path: Path, algorithm: str) -> str:
    with open(path, "rb") as handle:
        return f"{algorithm}:{hashlib.file_digest(handle, algorithm).hexdigest()}"


def _by_hand(file: RemoteFile, folder: Path) -> str:
    return f"To do it by hand, put the file of {file.url} at {folder / file.name} ({file.digest})."


def _download(file: RemoteFile, folder: Path) -> None:
    """Download a file; it appears complete, with the known digest, or not at all."""
    try:
        _pooch().retrieve(file.url, file.digest, fname=file.name, path=folder, downloader=_downloader())
    except ValueError as error:  # the message of pooch names the file and both digests
        raise ValueError(f"{file.url} is not the known file. {error}") from error
    except OSError as error:
        reason = str(error).rstrip(".")
        raise OSError(f"{file.url} cannot be downloaded to {folder}: {reason}. {_by_hand(file, folder)}") from error


def _downloader() -> Any:
    """Return the downloader: large pieces, and a progress bar for those who look on."""
    bar = sys.stderr is not None and sys.stderr.isatty()
    return _pooch().HTTPDownloader(progressbar=bar, chunk_size=2**20, timeout=_TIMEOUT)


def _pooch() -> Any:
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            "pooch is needed to find a cache folder and to download image sets: pip install skdfb[data]"
        ) from error
    return pooch
