"""Read the images of the DFB paper's experiments: CIFAR-10, CIFAR-100, SVHN, Places365 and Textures (DTD).

The files are in a folder of your choice. They are downloaded only with ``download=True``; see ``skdfb.datasets``.
"""

from skdfb.datasets import _remote, fetch_cifar10, fetch_cifar100, fetch_places365_ood, fetch_svhn, fetch_textures

_CIFAR = {"cifar10": fetch_cifar10, "cifar100": fetch_cifar100}
# The file that a run needs of each set.
_FILES = {
    "cifar10": "cifar10",
    "cifar100": "cifar100",
    "svhn": "svhn_test",
    "places365": "places365_validation",
    "textures": "textures",
}


def file_of(name):
    """Return the file of a set."""
    return _remote.FILES[_FILES[name]]


def is_there(name, folder):
    """Return whether the file of a set, or its extracted content, is in the folder."""
    return _remote.is_there(_FILES[name], folder)


def how_to_get(names, folder):
    """Return a text with the missing files and how to get them."""
    lines = [f"  {name}: {file_of(name).url} ({file_of(name).digest})" for name in names]
    return "\n".join(
        [
            f"Not in {folder}:",
            *lines,
            "--download fetches them; or put the files there yourself, under the names that they have at their source.",
        ]
    )


def read_cifar(name, part, folder, download=False):
    """Return images (n, 32, 32, 3) and class names (n,) of a part, "train" or "test", of "cifar10" or "cifar100"."""
    data = _CIFAR[name](subset=part, data_home=folder, download_if_missing=download)
    return data.images, data.target


def read_ood(name, folder, download=False):
    """Return the OOD images of a set.

    Parameters
    ----------
    name : str
        The set.
    folder : Path
        Folder of the files.
    download : bool, default=False
        Whether to download the file if it is missing.

    Returns
    -------
    images : ndarray of shape (n, 32, 32, 3), uint8, or list of str
        The test images of CIFAR or SVHN; the paths of all images of DTD or of the validation part of Places365.
    """
    options = {"data_home": folder, "download_if_missing": download}
    if name in _CIFAR:
        return _CIFAR[name](subset="test", **options).images
    if name == "svhn":
        return fetch_svhn(subset="test", **options).images
    data = fetch_textures(**options) if name == "textures" else fetch_places365_ood(subset="validation", **options)
    return data.paths
