"""Sets of small images that fit in memory: CIFAR-10, CIFAR-100 and SVHN."""

import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.io import loadmat
from sklearn.utils import Bunch

from skdfb.datasets._remote import PathLike, data_folder, local_file

__all__ = ["fetch_cifar10", "fetch_cifar100", "fetch_svhn"]

_SUBSETS = ("train", "test")
_SIDE = 32
_PIXELS = 3 * _SIDE**2

_UInt8 = npt.NDArray[np.uint8]

_CIFAR = """\
{name}
{line}

:Images: 50,000 training and 10,000 test images, 32 x 32 pixels, RGB, uint8 0..255
:Classes: {n_classes}, the same number of images in each
:Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
    https://www.cs.toronto.edu/~kriz/cifar.html
:Terms: the publisher states no licence
"""

_DESCR_SVHN = """\
Street View House Numbers, cropped digits
-----------------------------------------

:Images: 73,257 training and 26,032 test images, 32 x 32 pixels, RGB, uint8 0..255
:Classes: 10 digits, of different sizes; beside the digit in the middle there are often parts of others
:Source: Y. Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning", 2011,
    http://ufldl.stanford.edu/housenumbers
:Terms: for non-commercial use only
"""


def fetch_cifar10(
    *, subset: str = "train", data_home: PathLike | None = None, download_if_missing: bool = True
) -> Bunch:
    """Load CIFAR-10, small photographs of ten classes; download it if needed (170 MB).

    The file is compared with its known SHA-256 digest each time. It is the binary version of the set, so nothing is
    unpickled.

    Parameters
    ----------
    subset : {"train", "test"}, default="train"
        The 50,000 training or the 10,000 test images.
    data_home : path, default=None
        Folder of the file. None is the folder of the environment variable ``SKDFB_DATA_HOME``, or else
        ``pooch.os_cache("skdfb")``.
    download_if_missing : bool, default=True
        Whether to download the file if it is not in the folder. Otherwise that is an error.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the following attributes.

        images : ndarray of shape (n, 32, 32, 3)
            The images, uint8 0..255.
        target : ndarray of shape (n,)
            The name of the class of each image.
        target_names : list of str
            The names of the classes.
        DESCR : str
            Source and terms of use.

    Raises
    ------
    ValueError
        If ``subset`` is not one of the two, or the file has another digest.
    OSError
        If the file is missing and cannot be downloaded. The message has its address and the place for it.
    ImportError
        If pooch is needed and not installed: ``pip install skdfb[data]``.

    Examples
    --------
    >>> from skdfb.datasets import fetch_cifar10
    >>> data = fetch_cifar10(subset="test")  # doctest: +SKIP
    >>> data.images.shape  # doctest: +SKIP
    (10000, 32, 32, 3)
    """
    batches = {"train": [f"data_batch_{batch}" for batch in range(1, 6)], "test": ["test_batch"]}
    members = [f"cifar-10-batches-bin/{name}.bin" for name in batches[_checked(subset)]]
    path = local_file("cifar10", data_folder(data_home), download_if_missing)
    return _cifar(path, members, "cifar-10-batches-bin/batches.meta.txt", n_label_bytes=1)


def fetch_cifar100(
    *, subset: str = "train", data_home: PathLike | None = None, download_if_missing: bool = True
) -> Bunch:
    """Load CIFAR-100, small photographs of a hundred classes; download it if needed (169 MB).

    The file is compared with its known SHA-256 digest each time. It is the binary version of the set, so nothing is
    unpickled.

    Parameters
    ----------
    subset : {"train", "test"}, default="train"
        The 50,000 training or the 10,000 test images.
    data_home : path, default=None
        Folder of the file. None is the folder of the environment variable ``SKDFB_DATA_HOME``, or else
        ``pooch.os_cache("skdfb")``.
    download_if_missing : bool, default=True
        Whether to download the file if it is not in the folder. Otherwise that is an error.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        As from :func:`fetch_cifar10`, with the 100 fine classes.

    Raises
    ------
    ValueError
        If ``subset`` is not one of the two, or the file has another digest.
    OSError
        If the file is missing and cannot be downloaded. The message has its address and the place for it.
    ImportError
        If pooch is needed and not installed: ``pip install skdfb[data]``.

    Examples
    --------
    >>> from skdfb.datasets import fetch_cifar100
    >>> data = fetch_cifar100(subset="test")  # doctest: +SKIP
    >>> data.target_names[:3]  # doctest: +SKIP
    ['apple', 'aquarium_fish', 'baby']
    """
    member = f"cifar-100-binary/{_checked(subset)}.bin"
    path = local_file("cifar100", data_folder(data_home), download_if_missing)
    # The first label of a record is one of 20 groups of classes.
    return _cifar(path, [member], "cifar-100-binary/fine_label_names.txt", n_label_bytes=2)


def fetch_svhn(*, subset: str = "train", data_home: PathLike | None = None, download_if_missing: bool = True) -> Bunch:
    """Load SVHN, the cropped digits of house numbers; download the subset if needed (182 or 64 MB).

    The file is compared with its known SHA-256 digest each time.

    Parameters
    ----------
    subset : {"train", "test"}, default="train"
        The 73,257 training or the 26,032 test images.
    data_home : path, default=None
        Folder of the files. None is the folder of the environment variable ``SKDFB_DATA_HOME``, or else
        ``pooch.os_cache("skdfb")``.
    download_if_missing : bool, default=True
        Whether to download the file if it is not in the folder. Otherwise that is an error.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        As from :func:`fetch_cifar10`, with the classes "0" to "9".

    Raises
    ------
    ValueError
        If ``subset`` is not one of the two, or the file has another digest.
    OSError
        If the file is missing and cannot be downloaded. The message has its address and the place for it.
    ImportError
        If pooch is needed and not installed: ``pip install skdfb[data]``.

    Examples
    --------
    >>> from skdfb.datasets import fetch_svhn
    >>> data = fetch_svhn(subset="test")  # doctest: +SKIP
    >>> data.images.shape  # doctest: +SKIP
    (26032, 32, 32, 3)
    """
    path = local_file(f"svhn_{_checked(subset)}", data_folder(data_home), download_if_missing)
    arrays = loadmat(path, variable_names=["X", "y"])
    images = np.ascontiguousarray(np.moveaxis(arrays["X"], -1, 0))  # MATLAB has the images last
    digits = arrays["y"].ravel() % 10  # the digit 0 has the label 10
    return _bunch(images, digits, [str(digit) for digit in range(10)], _DESCR_SVHN)


def _checked(subset: str) -> str:
    if subset not in _SUBSETS:
        raise ValueError(f"subset={subset!r}: expected 'train' or 'test'.")
    return subset


def _cifar(path: Path, members: list[str], names_member: str, n_label_bytes: int) -> Bunch:
    """Read records of CIFAR's binary version: label bytes, then the red, the green and the blue plane."""
    with tarfile.open(path) as archive:
        content = b"".join(_read(archive, member) for member in members)
        names = _read(archive, names_member).decode("ascii").split()
    records: _UInt8 = np.frombuffer(content, np.uint8).reshape(-1, n_label_bytes + _PIXELS)
    planes = records[:, n_label_bytes:].reshape(-1, 3, _SIDE, _SIDE)
    title = f"CIFAR-{len(names)}"
    descr = _CIFAR.format(name=title, line="-" * len(title), n_classes=len(names))
    return _bunch(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, n_label_bytes - 1], names, descr)


def _read(archive: tarfile.TarFile, member: str) -> bytes:
    file = archive.extractfile(member)
    if file is None:
        raise ValueError(f"the archive has no file {member}.")
    return file.read()


def _bunch(images: _UInt8, labels: npt.NDArray[np.integer], names: list[str], descr: str) -> Bunch:
    return Bunch(images=images, target=np.array(names)[labels], target_names=names, DESCR=descr)
