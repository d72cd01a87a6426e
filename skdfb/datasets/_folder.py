"""Folders of images, listed with their labels."""

import os
from collections.abc import Sequence

import numpy as np
from sklearn.utils import Bunch

from skdfb.images import scan_folder

__all__ = ["load_image_folder"]


def load_image_folder(path: str | os.PathLike[str], *, extensions: Sequence[str] | None = None) -> Bunch:
    """List the images of a folder with their labels; no image is read.

    A folder has one sub-folder per class, whose name is the label of its images, or it holds images itself, which then
    have no labels. Detectors take such a folder as it is, ``fit("images/")``: this function is for its labels, for
    other extensions, and for cross-validation, which needs a list.

    Parameters
    ----------
    path : str or path
        The folder. Hidden files and folders in it are left out.
    extensions : sequence of str, default=None
        The only extensions to take, such as ``(".jpg", ".heic")``, in any case. None takes those of all formats that
        can be read; other files beside images are left out with a warning.

    Returns
    -------
    data : Bunch
        With the keys

        - ``paths``: list of n str, ordered by class and then by name: the order of all results for this folder;
        - ``labels``: ndarray of str of shape (n,), the name of the class folder of each image; None for a folder that
          holds images itself;
        - ``classes``: sorted list of the names of the class folders; None where there are no labels.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, PermissionError
        If there is no such folder, it cannot be read, or it holds a link to a file that is missing.
    ValueError
        If the folder holds no images, images beside class folders, class folders without images, or class folders that
        hold further folders of images, as ``images/train/cat`` is to ``images``.
    TypeError
        If `path` or `extensions` is of another type.

    See Also
    --------
    load_image_table : Paths and labels from a CSV file or a data frame.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from skdfb.datasets import load_image_folder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ["cat/1.png", "cat/2.png", "dog/1.png"]:
    ...         (Path(folder) / name).parent.mkdir(exist_ok=True)
    ...         Image.new("RGB", (8, 8)).save(Path(folder) / name)
    ...     data = load_image_folder(folder)
    >>> [Path(path).name for path in data.paths]
    ['1.png', '2.png', '1.png']
    >>> data.labels.tolist(), data.classes
    (['cat', 'cat', 'dog'], ['cat', 'dog'])
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path has type {type(path).__name__}: expected the path of a folder.")
    folder = scan_folder(path, "path", extensions)
    if folder.labels is None:
        return Bunch(paths=folder.paths, labels=None, classes=None)
    labels = np.array(folder.labels)
    return Bunch(paths=folder.paths, labels=labels, classes=np.unique(labels).tolist())
