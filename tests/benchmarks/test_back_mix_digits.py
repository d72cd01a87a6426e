"""The benchmark of BackMix on backgrounds that give the class away, end to end on a few images."""

import json

import numpy as np
import pytest
import torch

from skdfb.augmentation import BackMix, Batch
from skdfb.datasets._digits_on_photos import _digit_pools
from tests.benchmarks.test_real_images import benchmark


@pytest.fixture(scope="module")
def back_mix_digits():
    return benchmark("back_mix_digits")


@pytest.mark.parametrize("share", [0.0, 0.9, 1.0])
def test_a_share_of_digits_lies_on_the_picture_of_its_class(back_mix_digits, share):
    photos = [np.full((64, 64, 3), 40 * number, dtype=np.uint8) for number in range(6)]
    images, target, masks, picture = back_mix_digits.digits_on_pictures(
        photos, _digit_pools()["train"], 600, share, 16, np.random.default_rng(0)
    )
    assert (images.shape, images.dtype, masks.dtype) == ((600, 16, 16, 3), np.uint8, bool)
    assert (picture == target).mean() == pytest.approx(share + (1 - share) / 6, abs=0.05)
    assert np.bincount(target).tolist() == [100] * 6
    corners = np.median(images.reshape(600, -1), axis=1)  # most pixels are the picture
    assert (corners == 40 * picture).mean() > 0.95


def test_training_and_test_pictures_share_no_pixel(back_mix_digits):
    halves = back_mix_digits.pictures()
    for left, right in zip(halves["train"], halves["test"], strict=True):
        assert left.shape == right.shape == (427, 320, 3)
        assert (left != right).any()
    assert len({picture.tobytes() for half in halves.values() for picture in half}) == 12


@pytest.mark.parametrize("donors", ["batch", "training set"])
def test_true_masks_take_the_place_of_attention_maps(back_mix_digits, donors):
    rng = np.random.default_rng(0)
    masks = rng.random((6, 8, 8)) < 0.3
    back_mix = BackMix(patch_size=1.0, donors=donors)
    augmentation = back_mix_digits.BackMixWithMasks(back_mix, masks)
    bank = augmentation.attention_bank(6)
    bank.update([0], torch.ones(1, 8, 8))
    images = torch.arange(1.0, 7).view(6, 1, 1, 1).expand(6, 3, 8, 8)
    batch = Batch(images, torch.eye(6), attention_maps=bank[range(6)])
    batch = Batch(images, torch.eye(6), attention_maps=bank[range(6)], donors=batch)
    mixed = augmentation.augment(batch, torch.Generator().manual_seed(0))
    assert mixed.masks is None
    for image in mixed.images[:, 0].numpy():
        np.testing.assert_array_equal(image == 0, masks[int(image.max()) - 1])


def test_all_variants_are_measured_and_reported(back_mix_digits, tmp_path, capsys):
    file = tmp_path / "results.json"
    settings = ["--seeds", "0", "1", "--images", "60", "--test-images", "30", "--steps", "1", "--patches", "0.75"]
    back_mix_digits.main([*settings, "--json", str(file)])
    rows = json.loads(file.read_text())["rows"]
    variants = [
        "plain",
        "attention",
        "attention, patch 0.75",
        "true masks",
        "true masks, patch 0.75",
        "random pictures",
    ]
    assert [row["variant"] for row in rows] == variants * 2
    assert [row["seed"] for row in rows] == [0] * 6 + [1] * 6
    assert all(0 <= row[figure] <= 100 for row in rows for figure in back_mix_digits.TITLES)
    printed = capsys.readouterr().out
    back_mix_digits.main(["--report", str(file)])
    tables = capsys.readouterr().out
    assert tables
    assert printed.endswith(tables)


def test_gains_are_differences_of_the_same_seed(back_mix_digits, capsys):
    figures = dict.fromkeys(back_mix_digits.TITLES, 0.0)
    rows = [
        figures | {"share": 0.9, "variant": variant, "seed": seed, "accuracy": accuracy}
        for seed, variant, accuracy in [
            (0, "plain", 50.0),
            (0, "attention", 53.0),
            (1, "plain", 60.0),
            (1, "attention", 65.0),
        ]
    ]
    back_mix_digits.report(rows)
    assert "+4.0 ± 1.4" in capsys.readouterr().out.split("Change against plain")[1]
