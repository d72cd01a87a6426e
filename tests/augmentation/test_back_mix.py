"""BackMix against a slow oracle: images that carry their number and coordinates tell where each pixel came from."""

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from skdfb.augmentation import Augmentation, BackMix, Batch
from skdfb.augmentation._batch import IGNORED
from skdfb.utils import spawn_seeds

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
    sources = batch.images.numpy() if batch.donors is None else batch.donors.images.numpy()
    masks = None if batch.masks is None else np.array([scaled(mask, *size) for mask in batch.masks.numpy()])
    for index, (top, left, number, source_top, source_left, height, width) in enumerate(patches):
        for i, j in product(range(height), range(width)):
            source = source_top + i, source_left + j
            hole = foregrounds[number][source]
            images[index, :, top + i, left + j] = 0 if hole else sources[number, :, source[0], source[1]]
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


@settings(deadline=None)  # speed is not tested
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
        {"donors": "everywhere"},
        {"random_state": "one"},
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
    batch = numbered_batch(masks=(4, 4), map_size=8)
    part = replace(batch, donors=numbered_batch(seed=1))[2:5]
    assert {len(value) for value in vars(part).values() if isinstance(value, torch.Tensor)} == {3}
    assert torch.equal(part.donors.images[:, 0, 0, 0], torch.arange(3.0, 6.0, dtype=torch.float64))
    assert part.donors.masks is None
    assert numbered_batch()[:2].masks is None


# --------------------------------------------------------- donors of the training set


def batch_with_donors(n=12, seed=0, **form):
    batch, donors = (numbered_batch(n, **form, seed=each) for each in (seed, seed + 100))
    return replace(batch, donors=replace(donors, images=donors.images + torch.tensor([100.0, 0, 0]).view(3, 1, 1)))


@pytest.mark.parametrize("form", [{"map_size": 5}, {"masks": (16, 16)}, {"masks": (7, 9)}])
def test_donors_against_the_oracle(form):
    n_read = 0
    for seed in range(5):
        batch = batch_with_donors(**form, seed=seed)
        mixed = augmented(batch, seed=seed, donors="training set")
        patches = read_patches(batch, mixed, 0.25)
        readable = [index for index, patch in enumerate(patches) if patch is not None]
        n_read += len(readable)
        assert all(patches[index][2] == 100 + index for index in readable)  # image i has the donor i
        patches = [(*patch[:2], patch[2] - 100, *patch[3:]) if patch else (0,) * 7 for patch in patches]
        images, masks = oracle(batch, oracle_foregrounds(batch.donors, 0.25), patches)
        np.testing.assert_array_equal(mixed.images.numpy()[readable], images[readable])
        if masks is not None:
            np.testing.assert_array_equal(mixed.masks.numpy()[readable], masks[readable])
    assert n_read > 20


def test_donors_count_only_if_asked_for():
    batch = batch_with_donors(map_size=8)
    assert torch.equal(augmented(batch).images, augmented(replace(batch, donors=None)).images)
    with pytest.raises(ValueError, match=r"the batch has no donors: expected donors of shape \(12, 3, 16, 16\)"):
        augmented(replace(batch, donors=None), donors="training set")
    with pytest.raises(ValueError, match=r"has donors of shape \(5, 3, 16, 16\): expected"):
        augmented(replace(batch, donors=batch.donors[:5]), donors="training set")
    with pytest.raises(ValueError, match="has neither masks nor attention_maps"):
        augmented(replace(batch, donors=numbered_batch(12)), donors="training set")
    assert (BackMix().needs_donors, BackMix(donors="training set").needs_donors) == (False, True)


# ------------------------------------------------------------------- arrays of images


def arrays(n=8, height=16, width=16, channels=3, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 256, (n, height, width, channels)).astype(np.uint8)
    return X if dtype == np.uint8 else (X / 255).astype(dtype)


@pytest.mark.parametrize("donors", ["batch", "training set"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.float16, ">f4"])
@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_are_mixed_as_batches(donors, dtype, channels):
    """Pixel by pixel: each is as it was, or that of a background at some place, or blank."""
    X = arrays(channels=channels, dtype=dtype)
    masks = np.random.default_rng(1).random((8, 16, 16)) < 0.5
    kept = X.copy(), masks.copy()
    mixed = BackMix(donors=donors, random_state=0).transform(X, masks=masks)
    assert (mixed.shape, mixed.dtype) == (X.shape, np.dtype(dtype).newbyteorder("="))
    changed = (mixed != X).any(-1)
    assert 0 < changed.sum() <= 8 * 16
    blank = 128 if dtype == np.uint8 else 0.5
    backgrounds = {tuple(pixel) for pixel in X[~masks].tolist()}
    assert {tuple(pixel) for pixel in mixed[changed].tolist()} <= backgrounds | {(blank,) * channels}
    assert (mixed == blank).all(-1).any()
    for value, before in zip((X, masks), kept, strict=True):
        np.testing.assert_array_equal(value, before)


@pytest.mark.parametrize("form", ["masks", "attention_maps"])
def test_transform_is_augment(form):
    """The seed of the generator follows from random_state."""
    X, rng = arrays(dtype=np.float64), np.random.default_rng(2)
    given_maps = {"masks": rng.random((8, 5, 7)) < 0.3, "attention_maps": rng.random((8, 4, 4))}[form]
    pixels = torch.from_numpy(X - 0.5).movedim(-1, 1)
    tensor = torch.from_numpy(given_maps)
    batch = (
        Batch(pixels, torch.ones(8, 1), (~tensor).long())
        if form == "masks"
        else Batch(pixels, torch.ones(8, 1), attention_maps=tensor)
    )
    (seed,) = spawn_seeds(3, 1)
    expected = augmented(batch, seed=seed, patch_size=0.5).images.movedim(1, -1).numpy() + 0.5
    mixed = BackMix(patch_size=0.5, random_state=3).transform(X, **{form: given_maps})
    np.testing.assert_allclose(mixed, expected, atol=1e-15)


def test_grey_images_and_other_integers():
    X = arrays(channels=1)[..., 0]
    masks = np.zeros(X.shape, dtype=bool)
    mixed = BackMix(random_state=0).transform(X, masks=masks)
    assert mixed.shape == X.shape
    np.testing.assert_array_equal(BackMix(random_state=0).transform(X[..., None], masks=masks)[..., 0], mixed)
    np.testing.assert_array_equal(BackMix(random_state=0).transform(X.astype(np.int64), masks=masks), mixed)
    np.testing.assert_array_equal(BackMix(random_state=0).transform(X.tolist(), masks=masks.tolist()), mixed)
    read_only = X.copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(BackMix(random_state=0).transform(read_only, masks=masks), mixed)


def test_donors_of_arrays():
    numbers = np.repeat(np.arange(200, dtype=np.uint8), 25).reshape(200, 5, 5)
    masks = np.zeros(numbers.shape, dtype=bool)
    circle = BackMix(patch_size=1.0, random_state=0).transform(numbers, masks=masks)[:, 0, 0]
    assert sorted(circle) == list(range(200))
    assert (circle != np.arange(200)).all()
    drawn = BackMix(patch_size=1.0, donors="training set", random_state=0).transform(numbers, masks=masks)[:, 0, 0]
    assert 0.55 < len(set(drawn)) / 200 < 0.72  # 1 - 1/e with replacement


def test_random_state():
    X, masks = arrays(), np.zeros((8, 16, 16), dtype=bool)

    def mixed(random_state):
        return BackMix(random_state=random_state).transform(X, masks=masks)

    np.testing.assert_array_equal(mixed(0), mixed(0))
    assert (mixed(0) != mixed(1)).any()
    state, before = np.random.RandomState(0), torch.get_rng_state()
    first = mixed(state)
    np.testing.assert_array_equal(first, mixed(0))
    assert (mixed(state) != first).any()  # a RandomState moves on
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": None}, "expected masks or attention_maps, to find the foreground, but none of them is given"),
        ({"attention_maps": np.zeros((8, 4, 4))}, "but both are given"),
        ({"masks": np.zeros((7, 16, 16), bool)}, r"masks has shape \(7, 16, 16\) for 8 images: expected \(8, h, w\)"),
        ({"masks": np.zeros((8, 16), bool)}, r"masks has shape \(8, 16\)"),
        ({"masks": np.zeros((8, 16, 16), int)}, "masks has dtype int64: expected booleans.* pass masks != background"),
        ({"masks": None, "attention_maps": np.full((8, 4, 4), np.nan)}, "expected finite numbers"),
        ({"masks": None, "attention_maps": np.zeros((8, 0, 4))}, r"attention_maps has shape \(8, 0, 4\)"),
        ({"X": np.zeros((8, 48))}, r"X has shape \(8, 48\): expected an array of images"),
        ({"X": ["a.png"] * 8}, r"X has shape \(8,\): expected an array of images"),
        ({"X": np.full((8, 16, 16, 3), 2.0)}, "X has float pixels in 2..2"),
        ({"X": np.zeros((8, 16, 16, 4))}, "X has shape .* Drop the alpha channel"),
    ],
)
def test_wrong_arrays_are_refused(change, message):
    given_arrays = {"X": arrays(), "masks": np.zeros((8, 16, 16), bool)} | change
    with pytest.raises(ValueError, match=message):
        BackMix().transform(given_arrays.pop("X"), **given_arrays)


def test_transform_checks_parameters():
    with pytest.raises(ValueError, match="The 'donors' parameter of BackMix must be a str among"):
        BackMix(donors="all").transform(arrays(), masks=np.zeros((8, 16, 16), bool))
