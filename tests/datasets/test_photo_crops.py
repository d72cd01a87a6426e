"""The crops of photographs: shapes, balance, seeds, and pixels of the right regions."""

import numpy as np
import pytest

from skdfb.datasets import _photo_crops as module
from skdfb.datasets import load_photo_crops


@pytest.fixture(scope="module")
def data():
    return load_photo_crops()


def test_shapes_types_and_balance(data):
    assert data.images.shape == (180, 64, 64, 3)
    assert data.images_test.shape == (60, 64, 64, 3)
    assert {name: X.shape for name, X in data.ood_images.items()} == dict.fromkeys(module._UNKNOWN, (40, 64, 64, 3))
    assert {X.dtype for X in (data.images, data.images_test, *data.ood_images.values())} == {np.dtype("uint8")}
    assert np.unique(data.target, return_counts=True)[1].tolist() == [60, 60, 60]
    assert sorted(data.target_names) == sorted(set(data.target_test.tolist()))
    assert "180, of the three" in data.DESCR


def test_same_seed_same_images_and_parts_do_not_depend_on_each_other(data):
    other = load_photo_crops(n_train=5, n_test=60, n_ood=3, random_state=0)
    np.testing.assert_array_equal(other.images_test, data.images_test)
    np.testing.assert_array_equal(other.ood_images["sky"], data.ood_images["sky"][:3])
    assert not np.array_equal(load_photo_crops(random_state=1).images, data.images)


def test_regions_lie_in_the_photographs():
    for left, top, right, bottom in (box for _, boxes in module._REGIONS.values() for box in boxes):
        assert 0 <= left < right <= 640
        assert 0 <= top < bottom <= 427
        assert min(right - left, bottom - top) > module._SMALLEST


@pytest.mark.parametrize("unknown", module._UNKNOWN)
@pytest.mark.parametrize("known", module._KNOWN)
def test_known_and_unknown_regions_have_no_pixel_in_common(known, unknown):
    (file, boxes), (other_file, other_boxes) = module._REGIONS[known], module._REGIONS[unknown]
    for left, top, right, bottom in boxes:
        for x0, y0, x1, y1 in other_boxes:
            assert file != other_file or left >= x1 or right <= x0 or top >= y1 or bottom <= y0


def test_colours_fit_the_names(data):
    colours = {name: data.images[data.target == name].mean(axis=(0, 1, 2)) for name in data.target_names}
    colours |= {name: X.mean(axis=(0, 1, 2)) for name, X in data.ood_images.items()}
    assert colours["sky"].min() > 200
    assert colours["flower"].argmax() == 0
    assert colours["leaves"][0] < 20


@pytest.mark.parametrize("sizes", [{"n_train": 2}, {"n_test": True}, {"n_ood": 0}, {"image_size": 129}])
def test_bad_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match=f"Expected {next(iter(sizes))} to be an integer"):
        load_photo_crops(**sizes)
