"""Read the images of the DFB paper's experiments: CIFAR-10, CIFAR-100, SVHN, Places365 and Textures (DTD).

Each set is one file of its publisher in a folder of your choice, and is compared with the publisher's MD5 sum before it
is read. Files are downloaded only with ``download=True``. An interrupted download leaves nothing behind, and complete
files are not downloaded again. No file is unpickled: CIFAR is read from its binary version.

Sources, with the terms of use of the images: https://www.cs.toronto.edu/~kriz/cifar.html,
http://ufldl.stanford.edu/housenumbers, http://places2.csail.mit.edu and https://www.robots.ox.ac.uk/~vgg/data/dtd.
"""

import hashlib
import os
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io import loadmat

CIFAR_SIDE = 32
_CIFAR_PIXELS = 3 * CIFAR_SIDE**2
_CIFAR_CLASSES = {"cifar10": (10,), "cifar100": (20, 100)}  # number of values of each label byte of a record


class DataError(Exception):
    """A file is missing, damaged, or another file than its name implies."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a publisher.

    Parameters
    ----------
    name : str
        File name, in the folder and at the publisher.
    url : str
        Address of the file.
    md5 : str
        Its published checksum.
    n_images : mapping of str to int
        Number of images by the name of a member of the archive, a pattern of members, or an array of the file.
    """

    name: str
    url: str
    md5: str
    n_images: Mapping[str, int]


FILES = {
    "cifar10": RemoteFile(
        "cifar-10-binary.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
        {f"cifar-10-batches-bin/data_batch_{batch}.bin": 10_000 for batch in range(1, 6)}
        | {"cifar-10-batches-bin/test_batch.bin": 10_000},
    ),
    "cifar100": RemoteFile(
        "cifar-100-binary.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "03b5dce01913d631647c71ecec9e9cb8",
        {"cifar-100-binary/train.bin": 50_000, "cifar-100-binary/test.bin": 10_000},
    ),
    "svhn": RemoteFile(
        "test_32x32.mat",
        "http://ufldl.stanford.edu/housenumbers/test_32x32.mat",
        "eb5a983be6a315427106f1b164d9cef3",
        {"X": 26_032},
    ),
    "places365": RemoteFile(
        "val_256.tar",
        "http://data.csail.mit.edu/places/places365/val_256.tar",
        "e27b17d8d44f4af9a78502beb927f808",
        {"val_256/*.jpg": 36_500},
    ),
    "textures": RemoteFile(
        "dtd-r1.0.1.tar.gz",
        "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
        "fff73e5086ae6bdbea199a49dfb8a4c1",
        {"dtd/images/*/*.jpg": 5_640},
    ),
}


def is_there(name, folder):
    """Return whether the file of a set, or its extracted content, is in the folder."""
    return (folder / FILES[name].name).is_file() or _extracted(name, folder).is_dir()


def how_to_get(names, folder):
    """Return a text with the missing files and how to get them."""
    lines = [f"  {name}: {FILES[name].url} (MD5 {FILES[name].md5})" for name in names]
    return "\n".join(
        [
            f"Not in {folder}:",
            *lines,
            "--download fetches them; or put the files there yourself, under the names that they have at their source.",
        ]
    )


def read_cifar(name, part, folder, download=False):
    """Read a part of CIFAR-10 or CIFAR-100.

    Parameters
    ----------
    name : {"cifar10", "cifar100"}
        The set.
    part : {"train", "test"}
        Its part.
    folder : Path
        Folder of the files.
    download : bool, default=False
        Whether to download the file if it is missing.

    Returns
    -------
    images : ndarray of shape (n, 32, 32, 3), uint8
        The images.
    labels : ndarray of shape (n,)
        Class indices; for CIFAR-100 the fine ones.

    Raises
    ------
    DataError
        If the file is missing or damaged.
    """
    path = fetch(name, folder, download)
    members = {
        member: n for member, n in FILES[name].n_images.items() if ("test" in Path(member).name) == (part == "test")
    }
    try:
        with tarfile.open(path) as archive:
            records = [
                _cifar_records(archive.extractfile(member).read(), n, _CIFAR_CLASSES[name], f"{path}: {member}")
                for member, n in members.items()
            ]
    except (tarfile.TarError, EOFError, OSError, zlib.error, KeyError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    labels, pixels = (np.concatenate(column) for column in zip(*records, strict=True))
    return pixels, labels


def _cifar_records(content, n, n_values, name):
    """Return labels (n,) and images (n, 32, 32, 3) of records: label bytes, then the red, green and blue plane."""
    length = len(n_values) + _CIFAR_PIXELS
    if len(content) != n * length:
        raise DataError(
            f"{name} has {len(content):,} bytes: expected {n * length:,}, which are {n:,} records of {length:,} bytes. "
            "The file is cut, or another file; remove it and download it again."
        )
    records = np.frombuffer(content, dtype=np.uint8).reshape(n, length)
    for place, values in enumerate(n_values):
        highest = records[:, place].max(initial=0)
        if highest >= values:
            raise DataError(f"{name} has label {highest}: expected 0 to {values - 1}. It is another file.")
    planes = records[:, len(n_values) :].reshape(n, 3, CIFAR_SIDE, CIFAR_SIDE)
    return records[:, len(n_values) - 1].astype(np.intp), np.ascontiguousarray(planes.transpose(0, 2, 3, 1))


def read_ood(name, folder, download=False):
    """Read the OOD images of a set.

    Parameters
    ----------
    name : str
        A name of ``FILES``.
    folder : Path
        Folder of the files.
    download : bool, default=False
        Whether to download the file if it is missing.

    Returns
    -------
    images : ndarray of shape (n, 32, 32, 3), uint8, or list of str
        The test images of CIFAR or SVHN; the paths of all images of DTD or of the validation part of Places365.

    Raises
    ------
    DataError
        If the file is missing or damaged.
    """
    if name in _CIFAR_CLASSES:
        return read_cifar(name, "test", folder, download)[0]
    if name == "svhn":
        return _read_svhn(fetch(name, folder, download))
    return _image_files(name, folder, download)


def _read_svhn(path):
    expected = (32, 32, 3, FILES["svhn"].n_images["X"])  # MATLAB has the images last
    try:
        images = loadmat(path, variable_names=["X"])["X"]
    except Exception as error:  # the parser raises many kinds of errors on damaged files
        raise DataError(f"{path} is no readable MATLAB file with an array X: {error}.") from error
    if images.shape != expected or images.dtype != np.uint8:
        raise DataError(f"{path}: X has shape {images.shape} and dtype {images.dtype}: expected uint8 {expected}.")
    return np.ascontiguousarray(np.moveaxis(images, -1, 0))


def _image_files(name, folder, download):
    """Return the paths of the images of an archive, which is extracted first if needed."""
    extracted = _extracted(name, folder)
    if not extracted.is_dir():
        _extract(fetch(name, folder, download), extracted)
    ((pattern, n),) = FILES[name].n_images.items()
    paths = sorted(map(str, folder.glob(pattern)))
    if len(paths) != n:
        raise DataError(
            f"{folder / pattern} matches {len(paths):,} images: expected {n:,}. Remove the folder {extracted} and run "
            "again, to extract the archive once more."
        )
    return paths


def _extracted(name, folder):
    """Return the folder of the extracted members of an archive."""
    return folder / Path(next(iter(FILES[name].n_images))).parts[0]


def _extract(archive_path, target):
    """Extract an archive; the folder ``target`` appears complete or not at all."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}-") as unfinished:
        try:
            with tarfile.open(archive_path) as archive:
                archive.extractall(unfinished, filter="data")  # refuses members that would land outside
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise DataError(f"{archive_path} cannot be extracted: {error}.") from error
        if not (Path(unfinished) / target.name).is_dir():
            raise DataError(f"{archive_path} holds no folder {target.name!r}: it is another file.")
        os.replace(Path(unfinished) / target.name, target)


def fetch(name, folder, download=False):
    """Return the path of a file after a check of its checksum.

    Parameters
    ----------
    name : str
        A name of ``FILES``.
    folder : Path
        Folder of the file.
    download : bool, default=False
        Whether to download it if it is missing or has another checksum.

    Returns
    -------
    path : Path
        Of the file.

    Raises
    ------
    DataError
        If the file is missing, cannot be downloaded, or has another checksum.
    """
    file = FILES[name]
    path = folder / file.name
    if download:
        _download(file, folder)
    elif not path.is_file():
        raise DataError(how_to_get([name], folder))
    elif _md5(path) != file.md5:
        raise DataError(
            f"{path} has another MD5 sum than {file.md5}: it is cut, or another file. --download replaces it."
        )
    return path


def _md5(path):
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "md5").hexdigest()


def _download(file, folder):
    """Download a file, unless it is there with the right checksum; a file with another checksum is not kept."""
    try:
        import pooch
    except ImportError as error:
        raise DataError("--download needs pooch: pip install '.[benchmarks]'.") from error
    try:
        pooch.retrieve(file.url, f"md5:{file.md5}", fname=file.name, path=folder, downloader=http_downloader())
    except (OSError, ValueError) as error:  # no connection, no such file; another checksum
        raise DataError(
            f"{file.url} could not be downloaded: {str(error).rstrip('.')}. Run again; complete files are kept."
        ) from error


def http_downloader():
    """Return the downloader for pooch, with large pieces and a progress bar."""
    import pooch

    return pooch.HTTPDownloader(progressbar=True, chunk_size=2**20, timeout=60)
