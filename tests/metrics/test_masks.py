"""mask_iou and foreground_fraction against plain counting, and their errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skdfb.metrics import foreground_fraction, mask_iou

K = 3
SHAPE = (4, 3, 5)
INTEGER_MASKS = hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, K))


def oracle(masks, true_masks):
    ious = []
    for mask, true in zip(masks.tolist(), true_masks.tolist(), strict=True):
        both = either = 0
        for row, true_row in zip(mask, true, strict=True):
            for pixel, true_pixel in zip(row, true_row, strict=True):
                both += pixel != K and true_pixel != K
                either += pixel != K or true_pixel != K
        ious.append(both / either if either else 1.0)
    return sum(ious) / len(ious)


@given(masks=INTEGER_MASKS, true_masks=INTEGER_MASKS)
def test_iou_against_counting(masks, true_masks):
    expected = oracle(masks, true_masks)
    assert mask_iou(masks, true_masks, background=K) == pytest.approx(expected)
    assert mask_iou(true_masks, masks, background=K) == pytest.approx(expected)
    assert mask_iou(masks != K, true_masks != K) == pytest.approx(expected)
    assert mask_iou(masks != K, true_masks.astype(np.int64), background=K) == pytest.approx(expected)
    assert 0 <= expected <= 1


@given(masks=INTEGER_MASKS)
def test_fraction_against_counting(masks):
    expected = sum(pixel != K for pixel in masks.ravel().tolist()) / masks.size
    assert foreground_fraction(masks, background=K) == pytest.approx(expected)
    assert foreground_fraction(masks != K) == pytest.approx(expected)


def test_the_mean_is_over_images_not_over_pixels():
    large, small = np.zeros((2, 10, 10), dtype=bool), np.zeros((2, 10, 10), dtype=bool)
    large[0], small[0] = True, True  # IoU 1 with 100 pixels
    large[1, :2, :1] = True  # IoU 1/2 with 2 pixels
    small[1, :1, :1] = True
    assert mask_iou(large, small) == pytest.approx(0.75)


def test_class_does_not_matter():
    masks, true = np.zeros((1, 2, 2), dtype=int), np.ones((1, 2, 2), dtype=int)
    assert mask_iou(masks, true, background=K) == 1.0


def test_empty_and_full_masks():
    nothing, everything = np.zeros(SHAPE, dtype=bool), np.ones(SHAPE, dtype=bool)
    assert mask_iou(nothing, nothing) == 1.0  # both masks agree that there is no foreground
    assert mask_iou(nothing, everything) == mask_iou(everything, nothing) == 0.0
    assert mask_iou(everything, everything) == 1.0
    assert foreground_fraction(nothing) == 0.0
    assert foreground_fraction(everything) == 1.0
    assert type(mask_iou(nothing, nothing)) is type(foreground_fraction(nothing)) is float


@pytest.mark.parametrize(
    ("masks", "background", "message"),
    [
        (np.zeros((2, 3), bool), None, r"has shape \(2, 3\): expected \(n, H, W\)"),
        (np.zeros((0, 3, 3), bool), None, r"has shape \(0, 3, 3\)"),
        (np.zeros(SHAPE), None, "has dtype float64: expected booleans or class indices"),
        (np.zeros(SHAPE, int), None, "holds integers and background is None"),
        (np.full(SHAPE, 4), K, r"has values in 4\.\.4: expected 0\.\.3, where 3 is the background"),
        (np.full(SHAPE, -1), K, r"has values in -1\.\.-1"),
    ],
)
def test_errors_name_the_argument(masks, background, message):
    with pytest.raises(ValueError, match=f"^masks {message}"):
        foreground_fraction(masks, background=background)
    with pytest.raises(ValueError, match=f"^masks {message}"):
        mask_iou(masks, np.zeros(SHAPE, bool), background=background)
    with pytest.raises(ValueError, match=f"^true_masks {message}"):
        mask_iou(np.zeros(SHAPE, bool), masks, background=background)


def test_shapes_must_be_equal():
    with pytest.raises(ValueError, match=r"masks has shape \(4, 3, 5\) and true_masks \(1, 3, 5\)"):
        mask_iou(np.zeros(SHAPE, bool), np.zeros((1, 3, 5), bool))
