"""Frames of one video are found on both sides of a split; different images that share their layout are not."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.datasets import load_digits

from skdfb.datasets import load_digits_on_photos
from skdfb.images import fingerprint, near_duplicates
from tests.detector.conftest import make_images


def fingerprints(images):
    """Of an array (n, H, W, 3) or (n, H, W)."""
    images = images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=-1)
    return np.stack([fingerprint(image) for image in images])


def videos(n_videos, n_frames, seed=0):
    """Each has an object of one of three colours in the middle, as the videos of one class do."""
    rng, frames = np.random.default_rng(seed), []
    for label in rng.integers(0, 3, n_videos):
        base = rng.integers(0, 90, (32, 32, 3))
        base[8:24, 8:24, label] += rng.integers(60, 150)
        bright = rng.uniform(0.5, 1)
        frames += [np.clip(base * bright + rng.integers(-2, 3, base.shape), 0, 255) for _ in range(n_frames)]
    return np.stack(frames).astype(np.uint8)


def split(images, seed=0):
    order = np.random.default_rng(seed).permutation(len(images))
    found = fingerprints(images)[order]
    return found[: len(found) * 4 // 5], found[len(found) * 4 // 5 :]


def test_frames_of_videos_on_both_sides_are_found():
    train, held_out = split(videos(40, 15))
    assert near_duplicates(train, held_out) > 0.7 * len(held_out)
    # Held out as whole videos, they have no duplicate.
    found = fingerprints(videos(40, 15))
    assert near_duplicates(found[:480], found[480:]) == 0


@pytest.mark.parametrize(
    "images",
    [
        videos(300, 1),
        make_images(300)[0],
        load_digits().images.astype(np.float32) / 16,
        load_digits_on_photos(n_train=300, n_test=10, n_ood=10, random_state=0).images,
        np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3)).astype(np.uint8),
    ],
    ids=["frames of different videos", "coloured squares", "digits", "digits on photos", "noise"],
)
def test_no_false_alarm(images):
    assert near_duplicates(*split(images)) == 0


def test_the_same_image_in_other_light_size_and_numbers_is_found():
    images = videos(30, 1)
    darker = fingerprints(np.round(images * 0.6 + 20).astype(np.uint8))
    larger = fingerprints(images.repeat(2, axis=1).repeat(2, axis=2))
    for other in (darker, larger, fingerprints(images.astype(np.float32) / 255), fingerprints(images)):
        assert near_duplicates(fingerprints(images), other[:10]) == 10


def test_a_fingerprint_is_the_normalised_means_of_64_cells():
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)
    cells = image.mean(2).reshape(8, 2, 8, 3).mean((1, 3)).ravel()
    expected = (cells - cells.mean()) / np.linalg.norm(cells - cells.mean())
    found = fingerprint(image)
    assert found.dtype == np.float32
    assert_allclose(found, expected, atol=1e-5)
    for size in ((3, 1, 1), (3, 5, 300)):
        assert fingerprint(torch.rand(size).movedim(0, -1).numpy()).shape == (64,)
    assert not fingerprint(np.full((9, 9, 3), 200, np.uint8)).any()


def test_few_or_equal_images():
    found = fingerprints(videos(5, 1))
    assert near_duplicates(found[:0], found) == near_duplicates(found, found[:0]) == 0
    assert near_duplicates(np.zeros((5, 64)), np.zeros((5, 64))) == 0
    many = np.repeat(found, 200, axis=0)
    assert near_duplicates(many[:1], many[600:]) == 0
    assert near_duplicates(many, many[:700]) == 700
