"""Handwritten digits on crops of photographs, with true masks and four sets of OOD images."""

from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image
from sklearn.utils import Bunch, check_random_state

_N_CLASSES = 6  # digits 0-5 are in-distribution, digits 6-9 are OOD
_TRAIN_SHARE = 0.7  # of the handwritten samples of each known digit
_MIN_CONTRAST = 70.0  # between a digit and its surroundings, in luminance 0..255
_LUMINANCE = np.array([0.299, 0.587, 0.114])

_UInt8 = npt.NDArray[np.uint8]
_Float = npt.NDArray[np.float64]

_DESCR = """\
.. _digits_on_photos:

Handwritten digits on photographs
---------------------------------

**Data set characteristics**

:Training images: {n_train}, digits 0-5 on crops of the left half of a photograph
:Test images: {n_test}, other handwritten samples of digits 0-5 on crops of its right half
:OOD images: {n_ood} in each of 4 sets
:Format: {image_size} x {image_size} pixels, RGB, uint8 0..255
:Classes: {n_classes} digits; class sizes differ by at most one image
:Masks: integers, the class on the digit and {n_classes} (background) elsewhere

Every image is a random square crop of a photograph, resized, with at most one digit. The digit has a random size, place
and colour. It is at least {min_contrast:.0f} of 255 brighter or darker than the pixels that it covers. Training and
test images have no pixel of a photograph and no handwritten sample in common. The two halves of the photograph have
similar content in different shares: the left half has more of the building, the right half has more sky and trees. So
training and test images are similar but not exchangeable.

**Protocol**

Train on `images`, `target`. Measure the accuracy on `images_test`, `target_test`. Measure how well scores separate
`images_test` (in-distribution) from each set of `ood_images`:

- `unseen_digits`: digits 6-9 on the right half of the known photograph: new foreground, known background;
- `unseen_photo_with_digits`: the test samples of digits 0-5 on a photograph that is not used for training or test
  images: known foreground, new background;
- `background_only`: the right half of the known photograph without a digit;
- `unseen_photo`: the photograph that is not used for training or test images, without a digit.

**Sources**

Digits: "Optical recognition of handwritten digits" of E. Alpaydin and C. Kaynak, UCI Machine Learning Repository,
8 x 8 pixels, as `sklearn.datasets.load_digits` gives them. scikit-learn states no licence for them.

Photographs: `china.jpg` (known) and `flower.jpg` (unseen) of `sklearn.datasets.load_sample_images`, "released under a
creative commons license", https://creativecommons.org/licenses/by/2.0/, "some rights reserved by danielbuechele",
https://www.flickr.com/photos/danielbuechele/6061409035/ and
https://www.flickr.com/photos/vultilion/6056698931/. The images here are changed: cropped, resized and written over.
"""


@overload
def load_digits_on_photos(
    *,
    n_train: int = ...,
    n_test: int = ...,
    n_ood: int = ...,
    image_size: int = ...,
    random_state: int | np.random.RandomState | None = ...,
    return_X_y: Literal[False] = ...,
) -> Bunch: ...
@overload
def load_digits_on_photos(
    *,
    n_train: int = ...,
    n_test: int = ...,
    n_ood: int = ...,
    image_size: int = ...,
    random_state: int | np.random.RandomState | None = ...,
    return_X_y: Literal[True],
) -> tuple[_UInt8, npt.NDArray[np.int64]]: ...
def load_digits_on_photos(
    *,
    n_train: int = 2000,
    n_test: int = 500,
    n_ood: int = 500,
    image_size: int = 32,
    random_state: int | np.random.RandomState | None = 0,
    return_X_y: bool = False,
) -> Any:
    """Generate small images of digits on photographs, without a download.

    The data set has six classes, true masks of the foreground, and OOD images whose foreground, background or both
    are new. The digits and the photographs come with scikit-learn.

    Parameters
    ----------
    n_train : int, default=2000
        Number of training images, at least 6.
    n_test : int, default=500
        Number of in-distribution test images, at least 6.
    n_ood : int, default=500
        Number of images in each OOD set, at least 1.
    image_size : int, default=32
        Height and width in pixels, from 16 to 128.
    random_state : int, RandomState instance or None, default=0
        Seed. The same int and the same sizes give the same arrays. The size of one part does not change the other
        parts.
    return_X_y : bool, default=False
        If True, return ``(images, target)`` of the training images instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the following attributes.

        images : ndarray of shape (n_train, image_size, image_size, 3)
            Training images, uint8 0..255.
        target : ndarray of shape (n_train,)
            Class of each image, int64 0..5.
        masks : ndarray of shape (n_train, image_size, image_size)
            True masks, int64: the class on the digit, 6 (background) elsewhere.
        images_test, target_test, masks_test : ndarray
            The same for the `n_test` test images.
        ood_images : dict of str to ndarray of shape (n_ood, image_size, image_size, 3)
            OOD sets: "unseen_digits" (digits 6-9 on known background), "unseen_photo_with_digits" (digits 0-5
            on an unseen photograph), "background_only" (known background without digit), "unseen_photo" (unseen
            photograph without digit).
        target_names : list of str
            Names of the six classes.
        n_classes : int
            Number of classes, which is also the value of the background in the masks.
        DESCR : str
            Sources, licences and protocol.
    (images, target) : tuple
        If `return_X_y` is True.

    Raises
    ------
    ValueError
        If a size is not an integer in its range.

    See Also
    --------
    sklearn.datasets.load_digits : The digits.
    sklearn.datasets.load_sample_images : The photographs.

    Examples
    --------
    >>> from skdfb.datasets import load_digits_on_photos
    >>> data = load_digits_on_photos(n_train=12, n_test=6, n_ood=4)
    >>> data.images.shape, data.images.dtype
    ((12, 32, 32, 3), dtype('uint8'))
    >>> sorted(data.ood_images)
    ['background_only', 'unseen_digits', 'unseen_photo', 'unseen_photo_with_digits']
    >>> X, y = load_digits_on_photos(n_train=12, return_X_y=True)
    >>> sorted(y.tolist())
    [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    """
    _check_size("n_train", n_train, _N_CLASSES)
    _check_size("n_test", n_test, _N_CLASSES)
    _check_size("n_ood", n_ood, 1)
    _check_size("image_size", image_size, 16, 128)
    # One seed per part, so that the size of one part does not change the others.
    seeds = check_random_state(random_state).randint(2**31 - 1, size=6)
    rngs = [np.random.default_rng(seed) for seed in seeds]
    photos, digits = _photo_regions(), _digit_pools()

    images, target, masks = _paste(photos["train"], digits["train"], n_train, image_size, rngs[0])
    if return_X_y:
        return images, target
    images_test, target_test, masks_test = _paste(photos["test"], digits["test"], n_test, image_size, rngs[1])
    ood_images = {
        "unseen_digits": _paste(photos["test"], digits["unseen"], n_ood, image_size, rngs[2])[0],
        "unseen_photo_with_digits": _paste(photos["unseen"], digits["test"], n_ood, image_size, rngs[3])[0],
        "background_only": _crop(photos["test"], n_ood, image_size, rngs[4]),
        "unseen_photo": _crop(photos["unseen"], n_ood, image_size, rngs[5]),
    }
    return Bunch(
        images=images,
        target=target,
        masks=masks,
        images_test=images_test,
        target_test=target_test,
        masks_test=masks_test,
        ood_images=ood_images,
        target_names=[str(digit) for digit in range(_N_CLASSES)],
        n_classes=_N_CLASSES,
        DESCR=_DESCR.format(
            n_train=n_train,
            n_test=n_test,
            n_ood=n_ood,
            image_size=image_size,
            n_classes=_N_CLASSES,
            min_contrast=_MIN_CONTRAST,
        ),
    )


def _check_size(name: str, value: Any, low: int, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low or (high and value > high):
        expected = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"Expected {name} to be an integer {expected}, got {value!r}.")


def _photo_regions() -> dict[str, _UInt8]:
    """Return the regions of the photographs that training, test and OOD images are cropped from."""
    # Both halves hold sky, water, trees and buildings, so test crops are similar to training crops.
    known, unseen = load_sample_image("china.jpg"), load_sample_image("flower.jpg")
    middle = known.shape[1] // 2
    return {"train": known[:, :middle], "test": known[:, middle:], "unseen": unseen}


def _digit_pools() -> dict[str, dict[int, _Float]]:
    """Return handwritten samples by pool and digit, each (n, 8, 8) in [0, 1]."""
    digits = load_digits()
    # The pixel values of these images are 0..16.
    samples = {digit: digits.images[digits.target == digit] / 16.0 for digit in range(10)}
    known = {digit: samples[digit] for digit in range(_N_CLASSES)}
    cuts = {digit: round(_TRAIN_SHARE * len(samples[digit])) for digit in known}
    return {
        "train": {digit: known[digit][: cuts[digit]] for digit in known},
        "test": {digit: known[digit][cuts[digit] :] for digit in known},
        "unseen": {digit: samples[digit] for digit in range(_N_CLASSES, 10)},
    }


def _crop(photo: _UInt8, n: int, size: int, rng: np.random.Generator) -> _UInt8:
    """Return random square crops of a photograph, about half of them mirrored, (n, size, size, 3)."""
    height, width = photo.shape[:2]
    # A copy, since the resampling filter also reads pixels outside its box and must not read another region.
    region = Image.fromarray(np.ascontiguousarray(photo))
    # Each crop is reduced by a factor of at most four, and never enlarged.
    sides = rng.integers(size, min(4 * size, height, width), endpoint=True, size=n)
    lefts, tops = rng.integers(0, width - sides, endpoint=True), rng.integers(0, height - sides, endpoint=True)
    crops = np.empty((n, size, size, 3), dtype=np.uint8)
    for crop, left, top, side in zip(crops, lefts.tolist(), tops.tolist(), sides.tolist(), strict=True):
        box = (left, top, left + side, top + side)
        crop[:] = np.asarray(region.resize((size, size), Image.Resampling.BICUBIC, box=box))
    mirrored = rng.random(n) < 0.5
    crops[mirrored] = crops[mirrored, :, ::-1]
    return crops


def _paste(
    photo: _UInt8, digits: dict[int, _Float], n: int, size: int, rng: np.random.Generator
) -> tuple[_UInt8, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return images, digits and masks; each image is a crop with one digit, and the digits are balanced."""
    crops = _crop(photo, n, size, rng).astype(np.float64)
    # `np.resize` repeats the digits, so their numbers differ by at most one.
    target = rng.permutation(np.resize(np.array(list(digits), dtype=np.int64), n))
    mattes = _mattes([digits[digit] for digit in target.tolist()], size, rng)[..., np.newaxis]
    # The mean colour of the pixels that the digit covers. The colour of the digit must differ from it.
    covered = (mattes * crops).sum(axis=(1, 2)) / mattes.sum(axis=(1, 2))  # (n, 3)
    colours = _contrasting_colours(covered, rng)[:, np.newaxis, np.newaxis]
    images = np.rint(mattes * colours + (1 - mattes) * crops).astype(np.uint8)
    # A pixel belongs to the digit if the digit covers more than half of it.
    masks = np.where(mattes[..., 0] > 0.5, target[:, np.newaxis, np.newaxis], _N_CLASSES)
    return images, target, masks


def _mattes(pools: list[_Float], size: int, rng: np.random.Generator) -> _Float:
    """Return the share of each pixel that a digit covers, (n, size, size) in [0, 1]; one random sample of each pool."""
    mattes = np.zeros((len(pools), size, size))
    smallest = round(0.55 * size)  # with the margin; the digit itself takes 8 / 10 of the side
    for matte, pool in zip(mattes, pools, strict=True):
        # With the margin, strokes at the edge of the 8 x 8 image fade out and are not cut off.
        sample = np.pad(pool[rng.integers(len(pool))], 1).astype(np.float32)
        side = int(rng.integers(smallest, size, endpoint=True))
        left, top = rng.integers(0, size - side, endpoint=True, size=2)
        enlarged = np.asarray(Image.fromarray(sample).resize((side, side), Image.Resampling.BICUBIC))
        # A higher contrast about 1/2 gives sharp strokes with a soft edge of about one pixel.
        matte[top : top + side, left : left + side] = np.clip(2.5 * (enlarged - 0.5) + 0.5, 0.0, 1.0)
    return mattes


def _contrasting_colours(covered: _Float, rng: np.random.Generator) -> _Float:
    """Return random colours (n, 3) whose luminance differs from that of the given colours by `_MIN_CONTRAST`."""
    n = len(covered)
    luminance = covered @ _LUMINANCE
    candidates = rng.uniform(0, 255, size=(n, 32, 3))
    # The further one of black and white always differs enough. It is the last candidate, in case no other one does.
    candidates[:, -1] = np.where(luminance > 127.5, 0.0, 255.0)[:, np.newaxis]
    suitable = np.abs(candidates @ _LUMINANCE - luminance[:, np.newaxis]) >= _MIN_CONTRAST
    # `argmax` gives the first suitable candidate.
    colours: _Float = candidates[np.arange(n), suitable.argmax(axis=1)]
    return colours
