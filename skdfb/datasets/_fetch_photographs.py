"""Sets of photographs that stay files: textures, places and flowers."""

from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from skdfb.datasets._remote import PathLike, data_folder, images_of

__all__ = ["fetch_flower_photos", "fetch_places365_ood", "fetch_textures"]

_PLACES = ("mos", "validation")

_DESCR_TEXTURES = """\
Describable Textures Dataset (DTD), release 1.0.1
-------------------------------------------------

:Images: 5,640 photographs of textures, 300 x 300 to 640 x 640 pixels, 120 in each class
:Classes: 47, such as banded, dotted, knitted
:Source: M. Cimpoi et al., "Describing Textures in the Wild", CVPR 2014, https://www.robots.ox.ac.uk/~vgg/data/dtd
:Terms: for research
"""

_DESCR_PLACES_MOS = """\
Places365, the OOD images of MOS
--------------------------------

:Images: 10,000 photographs of 50 categories of Places365 that ImageNet-1k does not have: badlands, bamboo forest,
    canals, corn field, creek, crevasse, deserts, fields, forests, gardens, glacier, grotto, hayfield, ice floe, ice
    shelf, iceberg, igloo, islet, lagoon, lawn, marsh, ocean, orchard, pond, rainforest, rice paddy, river, rock arch,
    ski slope, sky, snowfield, swamp, swimming hole, tree farm, trench, tundra, deep ocean, waterfall, wave, wheat field
:Source: R. Huang and Y. Li, "MOS: Towards Scaling Out-of-distribution Detection for Large Semantic Space", CVPR 2021,
    https://github.com/deeplearning-wisc/large_scale_ood; B. Zhou et al., "Places: A 10 Million Image Database for Scene
    Recognition", TPAMI 2017, http://places2.csail.mit.edu
:Terms: for non-commercial research and education; the copyright of the images is that of their owners
"""

_DESCR_PLACES_VALIDATION = """\
Places365, validation images
----------------------------

:Images: 36,500 photographs, 256 x 256 pixels, 100 of each of the 365 categories of scenes
:Source: B. Zhou et al., "Places: A 10 Million Image Database for Scene Recognition", TPAMI 2017,
    http://places2.csail.mit.edu
:Terms: for non-commercial research and education; the copyright of the images is that of their owners
"""

_DESCR_FLOWERS = """\
Flower photographs of TensorFlow
--------------------------------

:Images: 3,670 photographs of different sizes
:Classes: daisy, dandelion, roses, sunflowers, tulips
:Source: The TensorFlow Team, 2019, https://www.tensorflow.org/tutorials/load_data/images
:Terms: Creative Commons Attribution 2.0; the photographers are named in LICENSE.txt beside the folders of the classes
"""


def fetch_textures(*, data_home: PathLike | None = None, download_if_missing: bool = True) -> Bunch:
    """Return the photographs of the Describable Textures Dataset; download them if needed (625 MB).

    The archive is compared with its known SHA-256 digest before it is extracted. The images are not read.

    Parameters
    ----------
    data_home : path, default=None
        Folder of the archive and of the extracted images. None is the folder of the environment variable
        ``SKDFB_DATA_HOME``, or else ``pooch.os_cache("skdfb")``.
    download_if_missing : bool, default=True
        Whether to download the archive if it is not in the folder. Otherwise that is an error.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the following attributes.

        paths : list of str
            The 5,640 files.
        labels : ndarray of shape (n,)
            The name of the class of each file.
        classes : list of str
            The names of the 47 classes.
        DESCR : str
            Source and terms of use.

    Raises
    ------
    ValueError
        If the archive has another digest, or extracted images are missing.
    OSError
        If the archive is missing and cannot be downloaded. The message has its address and the place for it.
    ImportError
        If pooch is needed and not installed: ``pip install skdfb[data]``.

    Examples
    --------
    >>> from skdfb.datasets import fetch_textures
    >>> data = fetch_textures()  # doctest: +SKIP
    >>> data.classes[:3]  # doctest: +SKIP
    ['banded', 'blotchy', 'braided']
    """
    return _with_classes(images_of("textures", data_folder(data_home), download_if_missing), _DESCR_TEXTURES)


def fetch_places365_ood(
    *, subset: str = "mos", data_home: PathLike | None = None, download_if_missing: bool = True
) -> Bunch:
    """Return photographs of Places365 that serve as OOD images; download them if needed (about 500 MB).

    Both subsets are known as "Places" or "Places365": the first is used beside ImageNet, the second beside CIFAR. The
    images are not read.

    Parameters
    ----------
    subset : {"mos", "validation"}, default="mos"
        "mos" is the list of Huang and Li (MOS, CVPR 2021): 10,000 images of 50 categories that ImageNet-1k does not
        have. No SHA-256 digest of this archive is published, so it is compared with its MD5 digest, which finds
        damage but not a forged file. "validation" are all 36,500 validation images of Places365 at 256 pixels; their
        archive is compared with its SHA-256 digest.
    data_home : path, default=None
        Folder of the archive and of the extracted images. None is the folder of the environment variable
        ``SKDFB_DATA_HOME``, or else ``pooch.os_cache("skdfb")``.
    download_if_missing : bool, default=True
        Whether to download the archive if it is not in the folder. Otherwise that is an error.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the following attributes.

        paths : list of str
            The files.
        labels : None
            OOD images need no labels.
        classes : None
            As labels.
        DESCR : str
            Source and terms of use.

    Raises
    ------
    ValueError
        If ``subset`` is not one of the two, the archive has another digest, or extracted images are missing.
    OSError
        If the archive is missing and cannot be downloaded. The message has its address and the place for it.
    ImportError
        If pooch is needed and not installed: ``pip install skdfb[data]``.

    Examples
    --------
    >>> from skdfb.datasets import fetch_places365_ood
    >>> len(fetch_places365_ood().paths)  # doctest: +SKIP
    10000
    """
    if subset not in _PLACES:
        raise ValueError(f"subset={subset!r}: expected 'mos' or 'validation'.")
    paths = images_of(f"places365_{subset}", data_folder(data_home), download_if_missing)
    descr = _DESCR_PLACES_MOS if subset == "mos" else _DESCR_PLACES_VALIDATION
    return Bunch(paths=paths, labels=None, classes=None, DESCR=descr)


def fetch_flower_photos(*, data_home: PathLike | None = None, download_if_missing: bool = True) -> Bunch:
    """Return TensorFlow's photographs of five kinds of flowers; download them if needed (229 MB).

    The archive is compared with its known SHA-256 digest before it is extracted. The images are not read.

    Parameters
    ----------
    data_home : path, default=None
        Folder of the archive and of the extracted images. None is the folder of the environment variable
        ``SKDFB_DATA_HOME``, or else ``pooch.os_cache("skdfb")``.
    download_if_missing : bool, default=True
        Whether to download the archive if it is not in the folder. Otherwise that is an error.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the following attributes.

        paths : list of str
            The 3,670 files.
        labels : ndarray of shape (n,)
            The name of the class of each file.
        classes : list of str
            The names of the five classes.
        DESCR : str
            Source and terms of use.

    Raises
    ------
    ValueError
        If the archive has another digest, or extracted images are missing.
    OSError
        If the archive is missing and cannot be downloaded. The message has its address and the place for it.
    ImportError
        If pooch is needed and not installed: ``pip install skdfb[data]``.

    Examples
    --------
    >>> from skdfb.datasets import fetch_flower_photos
    >>> data = fetch_flower_photos()  # doctest: +SKIP
    >>> data.classes  # doctest: +SKIP
    ['daisy', 'dandelion', 'roses', 'sunflowers', 'tulips']
    """
    return _with_classes(images_of("flower_photos", data_folder(data_home), download_if_missing), _DESCR_FLOWERS)


def _with_classes(paths: list[str], descr: str) -> Bunch:
    """Return the paths with labels, the names of their folders."""
    labels = np.array([Path(path).parent.name for path in paths])
    return Bunch(paths=paths, labels=labels, classes=np.unique(labels).tolist(), DESCR=descr)
