"""Zooms and mirrors against slow oracles: images that carry their coordinates tell where each pixel came from."""

import numpy as np
import pytest
import torch

from skdfb.augmentation import Batch
from skdfb.augmentation._batch import IGNORED
from skdfb.augmentation._geometry import zoom_and_flip
from tests.augmentation.helpers import SIDE, centres, coordinate_batch


def zoom(batch, scales, *, flip=False, size=SIDE, seed=0):
    return zoom_and_flip(batch, scales, flip, size, torch.Generator().manual_seed(seed))


def read_window(image, valid):
    """Return (slope, offset) of x and of y: source coordinate = slope * output coordinate + offset."""
    side = image.shape[-1]
    rows, columns = np.where(valid.all(1))[0], np.where(valid.all(0))[0]
    if not len(rows):  # a smaller image: its inner pixels
        rows, columns = np.where(valid.any(1))[0][1:-1], np.where(valid.any(0))[0][1:-1]
    else:
        rows, columns = rows[2:-2], columns[2:-2]
    u = centres(side)
    middle_row, middle_column = rows[len(rows) // 2], columns[len(columns) // 2]
    slope_x = (image[0, middle_row, columns[-1]] - image[0, middle_row, columns[0]]) / (u[columns[-1]] - u[columns[0]])
    slope_y = (image[1, rows[-1], middle_column] - image[1, rows[0], middle_column]) / (u[rows[-1]] - u[rows[0]])
    offset_x = image[0, middle_row, columns[0]] - slope_x * u[columns[0]]
    offset_y = image[1, rows[0], middle_column] - slope_y * u[rows[0]]
    return (slope_x, offset_x), (slope_y, offset_y)


def bilinear(channel, x, y):
    """Sample at (x, y) in [-1, 1]; pixels outside count as 0."""
    side = channel.shape[0]
    column, row = ((x + 1) * side - 1) / 2, ((y + 1) * side - 1) / 2
    left, top = int(np.floor(column)), int(np.floor(row))
    total = 0.0
    for i, row_weight in ((top, top + 1 - row), (top + 1, row - top)):
        for j, column_weight in ((left, left + 1 - column), (left + 1, column - left)):
            if 0 <= i < side and 0 <= j < side:
                total += row_weight * column_weight * channel[i, j]
    return total


def nearest(mask, x, y):
    """Return the mask's value at (x, y), IGNORED outside, None where rounding may go either way."""
    side = mask.shape[0]
    column, row = ((x + 1) * side - 1) / 2, ((y + 1) * side - 1) / 2
    if min(abs(column % 1 - 0.5), abs(row % 1 - 0.5)) < 1e-6:
        return None
    i, j = round(row), round(column)
    return mask[i, j] if 0 <= i < side and 0 <= j < side else IGNORED


@pytest.mark.parametrize("mask_side", [SIDE, 11])
@pytest.mark.parametrize("scales", [(0.6, 2.0), (1.25, 1.25), (0.55, 0.9), (1.1, 3.0)])
def test_images_and_masks_against_the_oracle(scales, mask_side):
    batch = coordinate_batch(mask_side=mask_side)
    out = zoom(batch, scales, flip=True)
    u = centres(SIDE)
    for n in range(len(batch.images)):
        image, mask = out.images[n].numpy(), out.masks[n].numpy()
        (slope_x, offset_x), (slope_y, offset_y) = read_window(image, mask != IGNORED)
        assert abs(slope_x) == pytest.approx(slope_y)  # the aspect stays
        assert scales[0] - 1e-9 <= 1 / slope_y <= scales[1] + 1e-9
        for row in range(SIDE):
            for column in range(SIDE):
                x, y = slope_x * u[column] + offset_x, slope_y * u[row] + offset_y
                assert image[2, row, column] == pytest.approx(bilinear(batch.images[n, 2].numpy(), x, y), abs=1e-6)
                expected = nearest(batch.masks[n].numpy(), x, y)
                assert expected is None or mask[row, column] == expected


def test_an_image_painted_from_its_mask_stays_so():
    quadrants = np.kron([[0, 1], [2, 3]], np.ones((SIDE // 2, SIDE // 2), dtype=int))
    masks = torch.from_numpy(np.repeat(quadrants[None], 32, 0))
    images = (masks[:, None] + 1).double().expand(-1, 3, -1, -1)
    out = zoom(Batch(images, torch.eye(32), masks), (0.5, 2.0), flip=True)
    painted = (out.masks[:, None] + 1).double()  # 0 where ignored, as the image is there
    blocks = torch.nn.functional.unfold(painted, 3, padding=1)
    inner = (blocks.amax(1) == blocks.amin(1)).view(32, SIDE, SIDE)  # away from edges
    assert inner.double().mean() > 0.3
    assert set(painted[:, 0][inner].unique().tolist()) >= {1.0, 2.0, 3.0, 4.0}
    torch.testing.assert_close(out.images[:, 0][inner], painted[:, 0][inner], atol=1e-6, rtol=0)


def test_scale_one_is_the_identity():
    batch = coordinate_batch()
    out = zoom(batch, (1.0, 1.0))
    torch.testing.assert_close(out.images, batch.images, atol=1e-9, rtol=0)
    assert torch.equal(out.masks, batch.masks)
    assert out.targets is batch.targets


def test_flip_is_an_exact_mirror_of_about_half():
    batch = coordinate_batch(n=64)
    out = zoom(batch, (1.0, 1.0), flip=True)
    flipped = torch.isclose(out.images, batch.images.flip(-1), atol=1e-9).all(-1).all(-1).all(-1)
    same = torch.isclose(out.images, batch.images, atol=1e-9).all(-1).all(-1).all(-1)
    assert (flipped ^ same).all()
    assert 16 <= int(flipped.sum()) <= 48
    assert torch.equal(out.masks[flipped], batch.masks[flipped].flip(-1))
    assert torch.equal(out.masks[same], batch.masks[same])


def test_enlarging_cuts_a_window_out_of_the_image():
    batch = coordinate_batch(n=32)
    out = zoom(batch, (1.25, 1.25))
    windows = [read_window(image.numpy(), np.ones((SIDE, SIDE), dtype=bool)) for image in out.images]
    for (slope_x, offset_x), (slope_y, offset_y) in windows:
        assert slope_x == pytest.approx(1 / 1.25)
        assert slope_y == pytest.approx(1 / 1.25)
        assert abs(offset_x) <= 1 - 1 / 1.25 + 1e-9  # inside the image
        assert abs(offset_y) <= 1 - 1 / 1.25 + 1e-9
    offsets = np.array([(x[1], y[1]) for x, y in windows])
    assert len(np.unique(offsets.round(9))) == 64  # each its own
    assert (out.masks != IGNORED).all()


def test_shrinking_leaves_zeros_that_are_ignored():
    batch = Batch(torch.ones(16, 3, SIDE, SIDE), torch.eye(16), torch.full((16, SIDE, SIDE), 4))
    out = zoom(batch, (0.5, 0.5))
    inside = out.masks == 4
    assert ((out.masks == IGNORED) | inside).all()
    assert (inside.sum((1, 2)) == (SIDE // 2) ** 2).all()  # the whole image lies in the output
    assert (out.images.amax(1)[~inside] < 0.75).all()  # less than half a pixel of it leaks out
    far = torch.nn.functional.max_pool2d(inside[:, None].float(), 5, 1, 2)[:, 0] == 0
    assert far.any()
    assert (out.images.movedim(1, -1)[far] == 0).all()


def test_factors_differ_and_cover_the_range():
    out = zoom(coordinate_batch(n=200), (1.0, 2.0))
    slopes = [read_window(image.numpy(), np.ones((SIDE, SIDE), dtype=bool))[1][0] for image in out.images]
    factors = 1 / np.array(slopes)
    assert len(np.unique(factors.round(9))) == 200
    assert factors.min() < 1.05
    assert factors.max() > 1.95
    assert factors.mean() == pytest.approx(1.5, abs=0.07)  # uniform


def test_same_generator_same_result():
    batch = coordinate_batch()
    first, again, other = (zoom(batch, (0.5, 2.0), flip=True, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.masks, again.masks)
    assert not torch.equal(first.images, other.images)


def test_inputs_stay_as_they_are_and_dtypes_are_kept():
    batch = coordinate_batch()
    before = batch.images.clone(), batch.masks.clone()
    out = zoom(Batch(batch.images.float(), batch.targets, batch.masks.to(torch.uint8)), (0.5, 2.0), flip=True)
    assert out.images.dtype == torch.float32
    assert out.masks.dtype == torch.int64
    assert torch.equal(batch.images, before[0])
    assert torch.equal(batch.masks, before[1])


def test_masks_are_left_out_where_there_are_none():
    out = zoom(Batch(torch.rand(2, 3, 8, 8), torch.eye(2)), (0.5, 2.0), size=8)
    assert out.masks is None


def test_high_class_indices_survive():
    masks = torch.arange(SIDE * SIDE).reshape(1, SIDE, SIDE) + 60_000
    out = zoom(Batch(torch.rand(1, 3, SIDE, SIDE), torch.eye(1), masks), (1.0, 1.0))
    assert torch.equal(out.masks, masks)


def test_shrinking_large_images_is_antialiased():
    stripes = torch.zeros(4, 3, 64, 64)
    stripes[..., ::2] = 1.0
    out = zoom(Batch(stripes, torch.eye(4)), (0.5, 0.5), size=16)  # each output pixel covers eight columns
    inside = torch.nn.functional.avg_pool2d((out.images > 0.2).float(), 3, 1, 1) == 1
    assert inside.float().mean() > 0.05
    assert (out.images[inside] - 0.5).abs().max() < 0.1
    noise = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    shrunk = zoom(Batch(noise, torch.eye(4)), (0.5, 0.5), size=16).images[inside]
    assert (shrunk - 0.5).std() < 2 * 0.29 / 8  # the mean of 64 pixels each, of which few at the edges


def test_large_images_keep_their_place_when_shrunk():
    batch = coordinate_batch(n=8, side=64)
    out = zoom(batch, (0.5, 1.0), flip=True)
    for image, mask in zip(out.images.numpy(), out.masks.numpy(), strict=True):
        (slope_x, _), (slope_y, _) = read_window(image, mask != IGNORED)
        assert abs(slope_x) == pytest.approx(slope_y, rel=0.02)  # halving bends the ramp at the edges
        assert 0.98 <= slope_y <= 2.02
