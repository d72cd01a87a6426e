"""BackMix against a slow oracle: images that carry their number and coordinates tell where each pixel came from."""

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone

from skdfb.augmentation import Augmentation, BackMix, Batch
from skdfb.augmentation._batch import IGNORED

N_CLASSES = 3


def numbered_batch(n=8, height=16, width=16, *, masks=None, map_size=None, seed=0):
    """Channels are number, row and column, from 1 on, since 0 is blank."""
    images = np.empty((n, 3, height, width))
    images[:, 0] = np.arange(n)[:, None, None] + 1
    images[:, 1], images[:, 2] = np.arange(height)[None, :, None] + 1, np.arange(width)[None, None, :] + 1
    rng = np.random.default_rng(seed)
    return Batch(
        torch.from_numpy(images),
        torch.eye(N_CLASSES)[torch.from_numpy(rng.integers(0, N_CLASSES, n))],
        None if masks is None else torch.from_numpy(rng.integers(0, N_CLASSES + 1, (n, *masks))),
        None if map_size is None else torch.from_numpy(rng.random((n, map_size, map_size))),
    )


def augmented(batch, *, seed=0, **parameters):
    return BackMix(**parameters).augment(batch, torch.Generator().manual_seed(seed))


def scaled(values, height, width):
    """Enlarge or shrink by the nearest pixel, as loops."""
    return np.array(
        [
            [
                values[int((i + 0.5) * len(values) / height), int((j + 0.5) * len(values[0]) / width)]
                for j in range(width)
            ]
            for i in range(height)
        ]
    )


def oracle_foregrounds(batch, fraction):
    height, width = batch.images.shape[-2:]
    if batch.masks is not None:
        return np.array([scaled(mask, height, width) != N_CLASSES for mask in batch.masks.numpy()])
    foregrounds = []
    for attention in batch.attention_maps.numpy():
        places = sorted(product(*map(range, attention.shape)), key=lambda place: -attention[place])
        highest = np.zeros(attention.shape, dtype=bool)
        for place in places[: round(fraction * attention.size)] if attention.max() > attention.min() else ():
            highest[place] = True
        foregrounds.append(scaled(highest, height, width))
    return np.array(foregrounds)


def read_patches(batch, mixed, patch_size):
    """Return for each image where its patch lies and where it is from; None where too little of it shows."""
    before, after = batch.images.numpy(), mixed.images.numpy()
    height, width = (max(1, round(patch_size * side)) for side in before.shape[-2:])
    found = []
    for old, new in zip(before, after, strict=True):
        changed = (old != new).any(0)
        rows, columns = np.where(changed.any(1))[0], np.where(changed.any(0))[0]
        if not len(rows) or (rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1) != (height, width):
            found.append(None)
            continue
        top, left = rows[0], columns[0]
        visible = np.argwhere(changed & (new[0] > 0))
        if not len(visible):
            found.append(None)
            continue
        number, row, column = new[:, visible[0][0], visible[0][1]].astype(int) - 1
        found.append((top, left, number, row - (visible[0][0] - top), column - (visible[0][1] - left), height, width))
    return found


def oracle(batch, foregrounds, patches):
    """Paste pixel by pixel."""
    images, size = batch.images.numpy().copy(), batch.images.shape[-2:]
    masks = None if batch.masks is None else np.array([scaled(mask, *size) for mask in batch.masks.numpy()])
    for index, (top, left, number, source_top, source_left, height, width) in enumerate(patches):
        for i, j in product(range(height), range(width)):
            source = source_top + i, source_left + j
            hole = foregrounds[number][source]
            images[index, :, top + i, left + j] = 0 if hole else batch.images[number, :, source[0], source[1]]
            if masks is not None:
                masks[index, top + i, left + j] = IGNORED if hole else N_CLASSES
    return images, masks


@pytest.mark.parametrize("size", [(16, 16), (24, 16)])
@pytest.mark.parametrize("form", [{"map_size": 8}, {"map_size": 5}, {"masks": (16, 16)}, {"masks": (7, 9)}])
@pytest.mark.parametrize("patch_size", [0.25, 0.4])
def test_against_the_oracle(size, form, patch_size):
    n_read = 0
    for seed in range(5):
        batch = numbered_batch(12, *size, **form, seed=seed)
        mixed = augmented(batch, patch_size=patch_size, seed=seed)
        patches = read_patches(batch, mixed, patch_size)
        readable = [index for index, patch in enumerate(patches) if patch is not None]
        n_read += len(readable)
        assert len({patches[index][2] for index in readable}) == len(readable)  # each gives once,
        assert all(patches[index][2] != index for index in readable)  # and none to itself
        foregrounds = oracle_foregrounds(batch, 0.25)
        # an image whose patch cannot be read is compared with nothing; there are few
        images, masks = oracle(batch, foregrounds, [patch or (0, 0, 0, 0, 0, 0, 0) for patch in patches])
        np.testing.assert_array_equal(mixed.images.numpy()[readable], images[readable])
        if masks is not None:
            np.testing.assert_array_equal(mixed.masks.numpy()[readable], masks[readable])
    assert n_read > 20


def test_patches_lie_anywhere_and_come_from_anywhere():
    batch = numbered_batch(400, 8, 8, map_size=8)
    batch = replace(batch, attention_maps=torch.zeros(400, 8, 8))
    mixed = augmented(batch, patch_size=0.75, foreground_fraction=0.0)
    patches = np.array([patch for patch in read_patches(batch, mixed, 0.75) if patch is not None])
    assert len(patches) > 390
    for corner in patches[:, [0, 1, 3, 4]].T:
        assert np.bincount(corner, minlength=3) / len(corner) == pytest.approx(1 / 3, abs=0.08)
        assert corner.max() == 2
    corners = [patches[:, column] for column in (0, 1, 3, 4)]
    for first, second in pairwise(corners):
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.15


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_a_share_of_images_is_changed(probability):
    batch = numbered_batch(1000, map_size=8)
    mixed = augmented(batch, probability=probability, foreground_fraction=0.0)
    changed = (mixed.images != batch.images).flatten(1).any(1).double().mean()
    assert float(changed) == pytest.approx(probability, abs=0.05 if probability == 0.3 else 0.005)


def test_shares_at_their_ends():
    batch = numbered_batch(map_size=8)
    blank = augmented(batch, foreground_fraction=1.0)
    gone = (blank.images != batch.images).any(1)
    assert (gone.sum((1, 2)) == 16).all()
    assert (blank.images.movedim(1, -1)[gone] == 0).all()
    whole = augmented(batch, patch_size=1.0, foreground_fraction=0.0)
    numbers = whole.images[:, 0, 0, 0]
    assert sorted(numbers.tolist()) == list(range(1, 9))  # whole images have changed places
    assert torch.equal(whole.images, batch.images[numbers.long() - 1])
    dot = augmented(batch, patch_size=0.001, foreground_fraction=0.0)
    assert ((dot.images != batch.images).any(1).sum((1, 2)) <= 1).all()


def test_class_targets_and_the_input_stay_as_they_are():
    for form in ({"map_size": 8}, {"masks": (16, 16)}, {"masks": (9, 9)}):
        batch = numbered_batch(**form)
        kept = [None if value is None else value.clone() for value in vars(batch).values()]
        mixed = augmented(batch)
        assert mixed.targets is batch.targets
        for value, before in zip(vars(batch).values(), kept, strict=True):
            assert value is before is None or torch.equal(value, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("mask_dtype", [torch.int64, torch.int32, torch.uint8])
def test_dtypes(dtype, mask_dtype):
    batch = numbered_batch(masks=(8, 8))
    batch = replace(batch, images=batch.images.to(dtype), masks=batch.masks.to(mask_dtype))
    mixed = augmented(batch)
    assert (mixed.images.dtype, mixed.masks.dtype) == (dtype, torch.int64)
    assert mixed.masks.shape == (8, 16, 16)
    assert set(mixed.masks.unique().tolist()) == {IGNORED, *range(N_CLASSES + 1)}


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_images(n):
    batch = numbered_batch(n, map_size=8)
    whole = augmented(batch, patch_size=1.0, foreground_fraction=0.0)
    givers = [int(number) - 1 for number in whole.images[:, 0, 0, 0]]
    assert sorted(givers) == list(range(n))
    assert n == 1 or all(giver != index for index, giver in enumerate(givers))


def test_where_attention_is_the_same_everywhere_nothing_is_foreground():
    batch = replace(numbered_batch(), attention_maps=torch.full((8, 4, 4), 0.45))
    assert (augmented(batch, foreground_fraction=0.5).images != 0).all()
    batch.attention_maps[3] = torch.arange(16).view(4, 4) / 16  # one among them of which something is known
    blank = (augmented(batch, foreground_fraction=0.5, patch_size=1.0).images == 0).all(1)
    assert blank.flatten(1).any(1).sum() == 1
    assert blank.sum() == 16 * 16 / 2


def test_masks_go_before_attention():
    batch = numbered_batch(masks=(16, 16), map_size=8)
    assert torch.equal(augmented(batch).images, augmented(replace(batch, attention_maps=None)).images)


@given(
    n=st.integers(1, 5),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    map_size=st.integers(1, 25),
    patch_size=st.floats(0.01, 1),
    fraction=st.floats(0, 1),
    probability=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_pixels_stay_come_from_a_background_or_are_blank(
    n, height, width, map_size, patch_size, fraction, probability, seed
):
    batch = numbered_batch(n, height, width, map_size=map_size, seed=seed)
    mixed = augmented(
        batch, patch_size=patch_size, foreground_fraction=fraction, probability=probability, seed=seed
    ).images.numpy()
    foregrounds, before = oracle_foregrounds(batch, fraction), batch.images.numpy()
    area = max(1, round(patch_size * height)) * max(1, round(patch_size * width))
    for index in range(n):
        changed = (mixed[index] != before[index]).any(0)
        assert changed.sum() <= area
        for pixel in mixed[index][:, changed].T.astype(int):
            if pixel.any():
                number, row, column = pixel - 1
                assert not foregrounds[number][row, column]


def test_it_is_fixed_by_its_generator():
    batch, before = numbered_batch(map_size=8), torch.get_rng_state()
    first, again, other = (augmented(batch, seed=seed, probability=0.5).images for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_without_masks_and_attention_maps_is_refused():
    with pytest.raises(ValueError, match="BackMix: the batch has neither masks nor attention_maps"):
        augmented(numbered_batch())


@pytest.mark.parametrize(
    "parameters",
    [
        {"patch_size": 0},
        {"patch_size": 1.5},
        {"foreground_fraction": -0.1},
        {"probability": 2},
        {"momentum": 0},
        {"map_size": 0},
        {"map_size": 2.5},
    ],
)
def test_parameters_are_checked(parameters):
    (name,) = parameters
    with pytest.raises(ValueError, match=f"The '{name}' parameter of BackMix must be"):
        augmented(numbered_batch(map_size=8), **parameters)


def test_it_is_a_parameter_object():
    back_mix = BackMix(patch_size=0.5)
    assert clone(back_mix).get_params() == back_mix.get_params()
    assert repr(back_mix) == "BackMix(patch_size=0.5)"
    assert isinstance(back_mix, Augmentation)
    bank = BackMix(map_size=4, momentum=0.3).attention_bank(7)
    assert (bank.maps.shape, bank.momentum) == ((7, 4, 4), 0.3)


def test_slices_of_a_batch_keep_together():
    part = numbered_batch(masks=(4, 4), map_size=8)[2:5]
    assert {len(value) for value in vars(part).values()} == {3}
    assert numbered_batch()[:2].masks is None
