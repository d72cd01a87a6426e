"""Two sets of images as one: the same pixels, in any order."""

import numpy as np
import pytest
import torch
from PIL import Image

from skdfb.images import JoinedImages, as_images

RNG = np.random.default_rng(0)
ARRAY = RNG.integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
OTHER = RNG.integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)
LARGER = RNG.integers(0, 256, (3, 8, 5, 3), dtype=np.uint8)
PILS = [Image.fromarray(image) for image in OTHER]


@pytest.mark.parametrize(
    ("second", "size"),
    [(OTHER, (6, 5)), (LARGER, None), (PILS, None), (OTHER.astype(np.float32) / 255, None)],
    ids=["one size", "two sizes", "PIL images", "floats"],
)
def test_pixels_and_their_order(second, size):
    joined = JoinedImages(as_images(ARRAY), as_images(second))
    assert (len(joined), joined.size, joined.labels()) == (7, size, None)
    both = [*as_images(ARRAY).read(np.arange(4)), *as_images(second).read(np.arange(3))]
    for rows in ([5, 0, 6, 1, 5], [2, 1], [6, 4], [3]):
        pixels = joined.read(np.array(rows))
        assert isinstance(pixels, torch.Tensor) == (size is not None)
        assert all(torch.equal(read, both[row]) for read, row in zip(pixels, rows, strict=True))
    assert torch.equal(joined.subset(np.array([6])).read(np.array([0]))[0], both[6])
