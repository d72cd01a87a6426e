"""Crops of two photographs: three known kinds of content and three unknown ones."""

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_sample_image
from sklearn.utils import Bunch, check_random_state

from skdfb.datasets._digits_on_photos import _check_size

_SMALLEST, _LARGEST = 56, 120  # side of a crop in pixels of the photograph
_MIRRORED = 0.5  # share of the crops

# Where each kind of content is: the photograph, and boxes of (left, top, right, bottom).
_REGIONS = {
    "building": ("china.jpg", [(65, 30, 345, 360)]),
    "flower": ("flower.jpg", [(185, 100, 430, 345)]),
    "trees": ("china.jpg", [(330, 300, 640, 427), (0, 290, 175, 427), (545, 150, 640, 427)]),
    "lake": ("china.jpg", [(345, 195, 545, 300)]),
    "leaves": ("flower.jpg", [(0, 0, 170, 427), (450, 0, 640, 340)]),
    "sky": ("china.jpg", [(345, 0, 640, 140)]),
}
_KNOWN, _UNKNOWN = ("building", "flower", "trees"), ("lake", "leaves", "sky")

_UInt8 = npt.NDArray[np.uint8]

_DESCR = """\
.. _photo_crops:

Crops of two photographs
------------------------

**Data set characteristics**

:Training images: {n_train}, of the three known classes "building", "flower" and "trees"
:Test images: {n_test} of the same classes
:OOD images: {n_ood} of each of "lake", "leaves" and "sky"
:Format: {image_size} x {image_size} pixels, RGB, uint8 0..255; class sizes differ by at most one image

Every image is a random square crop of a photograph, about half of them mirrored, and resized. Crops overlap, those for
the training and those for the test as well: so the set shows how to use the library, and figures on it are far better
than on photographs that do not overlap. Pre-trained networks tell these classes apart without any training.

**Sources**

`china.jpg` and `flower.jpg` of `sklearn.datasets.load_sample_images`, "released under a creative commons license",
https://creativecommons.org/licenses/by/2.0/, "some rights reserved by danielbuechele",
https://www.flickr.com/photos/danielbuechele/6061409035/ and
https://www.flickr.com/photos/vultilion/6056698931/. The images here are changed: cropped and resized.
"""


def load_photo_crops(
    *,
    n_train: int = 180,
    n_test: int = 60,
    n_ood: int = 40,
    image_size: int = 64,
    random_state: int | np.random.RandomState | None = 0,
) -> Bunch:
    """Generate small photographs of three known and three unknown classes, without a download.

    The images are crops of the two photographs that come with scikit-learn. They are meant for examples and
    demonstrations with a pre-trained network, which needs photographs.

    Parameters
    ----------
    n_train : int, default=180
        Number of training images, at least 3.
    n_test : int, default=60
        Number of in-distribution test images, at least 3.
    n_ood : int, default=40
        Number of images in each OOD set, at least 1.
    image_size : int, default=64
        Height and width in pixels, from 16 to 128.
    random_state : int, RandomState instance or None, default=0
        Seed. The same int and the same sizes give the same arrays. The size of one part does not change the other
        parts.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the following attributes.

        images : ndarray of shape (n_train, image_size, image_size, 3)
            Training images, uint8 0..255.
        target : ndarray of str of shape (n_train,)
            Class of each image: "building", "flower" or "trees".
        images_test, target_test : ndarray
            The same for the `n_test` test images.
        ood_images : dict of str to ndarray of shape (n_ood, image_size, image_size, 3)
            OOD sets: "lake" and "sky" (from the photograph of the building and the trees) and "leaves" (from the
            photograph of the flower).
        target_names : list of str
            Names of the three classes.
        DESCR : str
            Sources, licences and limits.

    Raises
    ------
    ValueError
        If a size is not an integer in its range.

    See Also
    --------
    load_digits_on_photos : A set with true masks, whose training and test images do not overlap.

    Examples
    --------
    >>> from skdfb.datasets import load_photo_crops
    >>> data = load_photo_crops(n_train=12, n_test=6, n_ood=4)
    >>> data.images.shape, data.images.dtype
    ((12, 64, 64, 3), dtype('uint8'))
    >>> sorted(set(data.target.tolist())), sorted(data.ood_images)
    (['building', 'flower', 'trees'], ['lake', 'leaves', 'sky'])
    """
    _check_size("n_train", n_train, len(_KNOWN))
    _check_size("n_test", n_test, len(_KNOWN))
    _check_size("n_ood", n_ood, 1)
    _check_size("image_size", image_size, 16, 128)
    # One seed per part, so that the size of one part does not change the others.
    seeds = check_random_state(random_state).randint(2**31 - 1, size=2 + len(_UNKNOWN))
    rngs = [np.random.default_rng(seed) for seed in seeds]
    images, target = _classes(n_train, image_size, rngs[0])
    images_test, target_test = _classes(n_test, image_size, rngs[1])
    ood = zip(_UNKNOWN, rngs[2:], strict=True)
    return Bunch(
        images=images,
        target=target,
        images_test=images_test,
        target_test=target_test,
        ood_images={name: _crops([name] * n_ood, image_size, rng) for name, rng in ood},
        target_names=list(_KNOWN),
        DESCR=_DESCR.format(n_train=n_train, n_test=n_test, n_ood=n_ood, image_size=image_size),
    )


def _classes(n: int, size: int, rng: np.random.Generator) -> tuple[_UInt8, npt.NDArray[np.str_]]:
    """Return images of the known classes in random order, and their classes."""
    target = rng.permutation(np.resize(np.array(_KNOWN), n))
    return _crops(target.tolist(), size, rng), target


def _crops(names: list[str], size: int, rng: np.random.Generator) -> _UInt8:
    """Return one random crop per name, (n, size, size, 3)."""
    photos = {file: Image.fromarray(load_sample_image(file)) for file in ("china.jpg", "flower.jpg")}
    crops = np.empty((len(names), size, size, 3), dtype=np.uint8)
    for crop, name in zip(crops, names, strict=True):
        file, boxes = _REGIONS[name]
        areas = np.array([(right - left) * (bottom - top) for left, top, right, bottom in boxes], dtype=np.float64)
        left, top, right, bottom = boxes[rng.choice(len(boxes), p=areas / areas.sum())]
        side = int(rng.integers(_SMALLEST, min(_LARGEST, right - left, bottom - top), endpoint=True))
        x = int(rng.integers(left, right - side, endpoint=True))
        y = int(rng.integers(top, bottom - side, endpoint=True))
        crop[:] = np.asarray(
            photos[file].resize((size, size), Image.Resampling.BICUBIC, box=(x, y, x + side, y + side))
        )
        if rng.random() < _MIRRORED:
            crop[:] = crop[:, ::-1].copy()
    return crops
