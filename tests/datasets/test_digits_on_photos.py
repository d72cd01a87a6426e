"""The generated images: shapes, masks, balance, and no data in common between training and test images."""

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_sample_image
from sklearn.utils import Bunch

from skdfb.datasets import _digits_on_photos as module
from skdfb.datasets import load_digits_on_photos

OOD_SETS = {"unseen_digits", "unseen_photo_with_digits", "background_only", "unseen_photo"}
LUMINANCE = np.array([0.299, 0.587, 0.114])


@pytest.fixture(scope="module")
def data():
    return load_digits_on_photos(n_train=200, n_test=100, n_ood=50)


def arrays(bunch):
    names = ("images", "target", "masks", "images_test", "target_test", "masks_test")
    return {name: bunch[name] for name in names} | bunch.ood_images


def test_shapes_and_dtypes(data):
    for part, n in (("", 200), ("_test", 100)):
        assert data[f"images{part}"].shape == (n, 32, 32, 3)
        assert data[f"masks{part}"].shape == (n, 32, 32)
        assert data[f"target{part}"].shape == (n,)
        assert data[f"images{part}"].dtype == np.uint8
        assert data[f"masks{part}"].dtype == data[f"target{part}"].dtype == np.int64
    assert set(data.ood_images) == OOD_SETS
    for images in data.ood_images.values():
        assert images.shape == (50, 32, 32, 3)
        assert images.dtype == np.uint8
    assert data.target_names == ["0", "1", "2", "3", "4", "5"]
    assert data.n_classes == 6
    for word in ("200, digits 0-5", "UCI", "creative commons", *OOD_SETS):
        assert word in data.DESCR


@pytest.mark.parametrize("image_size", [16, 48, 128])
def test_other_image_sizes(image_size):
    small = load_digits_on_photos(n_train=6, n_test=6, n_ood=2, image_size=image_size)
    assert small.images.shape == (6, image_size, image_size, 3)
    share = (small.masks != 6).mean(axis=(1, 2))
    assert share.min() > 0.02
    assert share.max() < 0.6


def test_same_seed_same_arrays(data):
    again = arrays(load_digits_on_photos(n_train=200, n_test=100, n_ood=50, random_state=0))
    other = arrays(load_digits_on_photos(n_train=200, n_test=100, n_ood=50, random_state=1))
    for name, array in arrays(data).items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)
        assert not np.array_equal(other[name], array), name


def test_the_size_of_one_part_does_not_change_the_others(data):
    other = load_digits_on_photos(n_train=200, n_test=60, n_ood=50)
    np.testing.assert_array_equal(other.images, data.images)
    np.testing.assert_array_equal(other.ood_images["unseen_photo"], data.ood_images["unseen_photo"])


def test_return_X_y_gives_the_training_images(data):  # noqa: N802
    X, y = load_digits_on_photos(n_train=200, return_X_y=True)
    np.testing.assert_array_equal(X, data.images)
    np.testing.assert_array_equal(y, data.target)


def test_global_random_state_is_untouched():
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    load_digits_on_photos(n_train=6, n_test=6, n_ood=1)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_classes_are_balanced_and_shuffled(data):
    for target in (data.target, data.target_test):
        counts = np.bincount(target, minlength=6)
        assert len(counts) == 6
        assert counts.max() - counts.min() <= 1
        assert np.any(np.diff(target) < 0)


def test_masks_hold_the_class_and_background(data):
    for target, masks in ((data.target, data.masks), (data.target_test, data.masks_test)):
        foreground = masks != 6
        share = foreground.mean(axis=(1, 2))
        assert share.min() > 0.02
        assert share.max() < 0.6
        assert np.all(np.where(foreground, masks, target[:, None, None]) == target[:, None, None])


def test_digits_differ_in_size_place_and_colour(data):
    rows, columns = (np.where((data.masks != 6).any(axis=axis), 1.0, 0.0) for axis in (2, 1))
    heights = rows.sum(axis=1)
    assert heights.min() >= 11
    assert heights.max() <= 28
    assert np.ptp(heights) >= 8
    centres = np.stack([(side @ np.arange(32)) / side.sum(axis=1) for side in (rows, columns)])
    assert np.all(np.ptp(centres, axis=1) >= 8)
    foreground = (data.masks != 6)[..., None]
    colours = (data.images * foreground).sum(axis=(1, 2)) / foreground.sum(axis=(1, 2))
    assert np.all(colours.std(axis=0) > 40)


def test_digits_differ_from_the_pixels_they_cover():
    rng = np.random.default_rng(0)
    covered = np.concatenate([rng.uniform(0, 255, (500, 3)), np.linspace(0, 255, 500)[:, None].repeat(3, axis=1)])
    colours = module._contrasting_colours(covered, rng)
    assert np.abs((colours - covered) @ LUMINANCE).min() >= 70
    assert colours.min() >= 0
    assert colours.max() <= 255


@pytest.mark.parametrize("grey", [0.0, 127.5, 255.0])
def test_contrast_is_sufficient_if_no_random_colour_is_suitable(grey):
    class ConstantGenerator:
        def uniform(self, low, high, size):
            return np.full(size, grey)

    colours = module._contrasting_colours(np.full((2, 3), grey), ConstantGenerator())
    assert np.abs((colours - grey) @ LUMINANCE).min() >= 70


def test_a_mask_is_where_the_digit_is(monkeypatch):
    # On a black photograph, only the digit is bright.
    monkeypatch.setattr(module, "load_sample_image", lambda name: np.zeros((427, 640, 3), dtype=np.uint8))
    data = load_digits_on_photos(n_train=60, n_test=6, n_ood=2)
    for image, mask in zip(data.images, data.masks, strict=True):
        brightness = image.max(axis=2)
        colour = int(brightness[mask != 6].max())
        # A half covered pixel has half the brightness. Colours are rounded to integers, so one step is not compared.
        assert np.all(mask[brightness > colour / 2 + 1] != 6)
        assert np.all(mask[brightness < colour / 2 - 1] == 6)
        # The soft edge is narrow.
        assert (brightness > 0).mean() < 3 * (mask != 6).mean()
    assert {name for name, images in data.ood_images.items() if images.max() == 0} == {
        "background_only",
        "unseen_photo",
    }


def test_labels_are_those_of_the_digits_pasted(monkeypatch):
    # Digit d is replaced by a bar of height d + 1 and width 8, so the shape of a mask determines the digit.
    digits = load_digits()
    bars = (np.arange(8)[:, None] <= digits.target[:, None, None]) * np.full(8, 16.0)
    monkeypatch.setattr(module, "load_digits", lambda: Bunch(images=bars, target=digits.target))
    data = load_digits_on_photos(n_train=60, n_test=60, n_ood=1, image_size=128)
    for target, masks in ((data.target, data.masks), (data.target_test, data.masks_test)):
        foreground = masks != 6
        height, width = foreground.any(axis=2).sum(axis=1), foreground.any(axis=1).sum(axis=1)
        np.testing.assert_array_equal(np.rint(8 * height / width) - 1, target)


def test_training_and_test_share_no_pixel_of_the_photograph(monkeypatch):
    # The left half is black, the right half white and the other photograph grey, so a pixel of another region would
    # change a minimum or maximum.
    def photo(name):
        image = np.full((427, 640, 3), 127, dtype=np.uint8)
        if name == "china.jpg":
            image[:, :320], image[:, 320:] = 0, 255
        return image

    monkeypatch.setattr(module, "load_sample_image", photo)
    monkeypatch.setattr(module, "_mattes", lambda pools, size, rng: np.full((len(pools), size, size), 1e-9))
    data = load_digits_on_photos(n_train=300, n_test=300, n_ood=300)
    assert data.images.max() == 0
    assert data.images_test.min() == 255
    assert data.ood_images["unseen_digits"].min() == data.ood_images["background_only"].min() == 255
    for name in ("unseen_photo", "unseen_photo_with_digits"):
        assert set(np.unique(data.ood_images[name])) == {127}


def test_regions_are_parts_of_the_photographs():
    regions = module._photo_regions()
    known = np.concatenate([regions["train"], regions["test"]], axis=1)
    np.testing.assert_array_equal(known, load_sample_image("china.jpg"))
    np.testing.assert_array_equal(regions["unseen"], load_sample_image("flower.jpg"))


def test_training_and_test_share_no_handwritten_sample():
    pools = module._digit_pools()
    assert list(pools["train"]) == list(pools["test"]) == [0, 1, 2, 3, 4, 5]
    assert list(pools["unseen"]) == [6, 7, 8, 9]
    digits = load_digits()
    for digit in range(6):
        together = np.concatenate([pools["train"][digit], pools["test"][digit]]) * 16
        np.testing.assert_array_equal(together, digits.images[digits.target == digit])
        assert len(pools["test"][digit]) > 40
    train = {sample.tobytes() for pool in pools["train"].values() for sample in pool}
    assert not any(sample.tobytes() in train for pool in pools["test"].values() for sample in pool)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("n_train", 5, "of at least 6"),
        ("n_test", 0, "of at least 6"),
        ("n_ood", 0, "of at least 1"),
        ("n_ood", 2.0, "of at least 1"),
        ("n_train", True, "of at least 6"),
        ("n_train", "10", "of at least 6"),
        ("image_size", 15, "from 16 to 128"),
        ("image_size", 129, "from 16 to 128"),
    ],
)
def test_bad_sizes_are_refused(name, value, expected):
    with pytest.raises(ValueError, match=rf"^Expected {name} to be an integer {expected}, got {value!r}\.$"):
        load_digits_on_photos(**{name: value})
