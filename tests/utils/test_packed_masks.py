"""PackedMasks: what goes in comes out, in an eighth of the memory where masks have one class each."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skdfb.utils import PackedMasks, _arrays, _files, read_file, temporary_array, write_file

SIZES = st.tuples(st.integers(0, 6), st.integers(1, 9), st.integers(1, 9))


@st.composite
def one_class_masks(draw):
    """Masks of one class each, and K."""
    n_classes = draw(st.sampled_from([1, 2, 3, 254, 255, 256, 300]))
    foreground = draw(hnp.arrays(bool, draw(SIZES)))
    classes = draw(hnp.arrays(np.int64, len(foreground), elements=st.integers(0, n_classes - 1)))
    return np.where(foreground, classes[:, None, None], n_classes), n_classes


@st.composite
def any_masks(draw):
    """Masks of several classes, which may hold values that mean nothing."""
    n_classes = draw(st.sampled_from([2, 255, 300]))
    elements = st.integers(draw(st.sampled_from([0, -1, -200])), n_classes + draw(st.sampled_from([0, 1, 70_000])))
    return draw(hnp.arrays(np.int64, draw(SIZES), elements=elements)), n_classes


def assert_same(packed, masks):
    n, height, width = masks.shape
    assert len(packed) == n
    assert packed.shape == (n, height, width)
    np.testing.assert_array_equal(packed[np.arange(n)], masks)
    np.testing.assert_array_equal(packed[::-1], masks[::-1])
    assert packed[np.arange(n)].dtype == packed.dtype
    np.testing.assert_array_equal(np.asarray(packed), masks)


@given(one_class_masks())
def test_masks_of_one_class_each_take_a_bit_per_pixel(drawn):
    masks, n_classes = drawn
    packed = PackedMasks.pack(masks, n_classes)
    assert_same(packed, masks)
    assert packed.dtype == np.min_scalar_type(n_classes)
    n, height, width = masks.shape
    assert packed.nbytes == n * (-(-height * width // 8) + packed.dtype.itemsize)


@given(any_masks())
def test_any_masks_come_back(drawn):
    masks, n_classes = drawn
    packed = PackedMasks.pack(masks, n_classes)
    assert_same(packed, masks)
    if masks.size and masks.min() >= 0:
        assert packed.dtype == np.min_scalar_type(max(int(masks.max()), n_classes))


@given(st.one_of(one_class_masks(), any_masks()), st.integers(1, 4), st.randoms(use_true_random=False))
def test_batches_in_any_order_give_the_same(drawn, size, random):
    masks, n_classes = drawn
    starts = list(range(0, max(1, len(masks)), size))
    random.shuffle(starts)
    batches = ((np.arange(len(masks))[start : start + size], masks[start : start + size]) for start in starts)
    packed = PackedMasks.from_batches(batches, len(masks), n_classes)
    assert_same(packed, masks)
    whole = PackedMasks.pack(masks, n_classes)
    assert (packed.dtype, packed.nbytes) == (whole.dtype, whole.nbytes)


@given(st.one_of(one_class_masks(), any_masks()))
def test_there_and_back_by_tensors(drawn):
    masks, n_classes = drawn
    packed = PackedMasks.pack(masks, n_classes)
    again = PackedMasks.from_tensors({name: tensor.clone() for name, tensor in packed.tensors().items()})
    assert_same(again, masks)
    assert (again.dtype, again.nbytes) == (packed.dtype, packed.nbytes)


@pytest.mark.parametrize("n_classes", [3, 300])
@pytest.mark.parametrize("several", [False, True])
def test_tensors_in_a_file(tmp_path, n_classes, several):
    packed, masks = few_masks(n_classes, several)
    write_file(tmp_path / "masks", "", packed.tensors())
    for mapped in (False, True):
        _, tensors = read_file(tmp_path / "masks", mapped=mapped)
        assert_same(PackedMasks.from_tensors(tensors), masks)


def few_masks(n_classes, several):
    masks = np.full((4, 5, 7), n_classes)
    masks[:, :2] = np.arange(4)[:, None, None] % n_classes
    masks[0, 3, 3] = 1 if several else n_classes
    return PackedMasks.pack(masks, n_classes), masks


@pytest.mark.parametrize("several", [False, True])
def test_a_file_of_many_masks_is_not_copied_to_memory(tmp_path, monkeypatch, several):
    monkeypatch.setattr(_arrays, "MEMORY_BUDGET", 10)
    packed, _ = few_masks(3, several)
    name = "masks" if several else "bits"
    assert np.shares_memory(packed.tensors()[name].numpy(), packed._values)
    write_file(tmp_path / "masks", "", packed.tensors())
    made = []
    monkeypatch.setattr(_files, "temporary_array", lambda *args: made.append(temporary_array(*args)) or made[-1])
    _, tensors = read_file(tmp_path / "masks", mapped=True)
    assert tensors[name].data_ptr() in [array.ctypes.data for array in made if isinstance(array, np.memmap)]


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.int64])
def test_dtypes_of_the_input(dtype):
    masks = np.array([[[0, 1], [1, 1]], [[1, 0], [0, 0]]], dtype=dtype)
    assert_same(PackedMasks.pack(masks, 1), masks)
    assert_same(PackedMasks.pack(torch.from_numpy(masks.astype(np.int16)), 1), masks)


def test_indexing_is_numpys():
    masks = np.where(np.random.default_rng(0).random((6, 5, 7)) < 0.5, np.arange(6)[:, None, None] % 3, 3)
    for masks_or_others in (masks, np.where(masks == 3, 2, masks + (np.arange(7) > 3))):
        packed = PackedMasks.pack(masks_or_others, 3)
        for indices in (
            2,
            -1,
            [4, 1, 4],
            np.array([], dtype=int),
            slice(1, 4),
            np.arange(6) % 2 == 0,
            np.eye(2, dtype=int),
        ):
            np.testing.assert_array_equal(packed[indices], masks_or_others[indices])
        assert [mask.tolist() for mask in packed] == masks_or_others.tolist()
        with pytest.raises(IndexError):
            packed[6]


def test_nothing_can_be_changed():
    masks = np.zeros((2, 4, 4), dtype=np.uint8)
    packed = PackedMasks.pack(masks, 3)
    masks[:] = 3
    assert not packed[:].any()
    packed[:][:] = 3  # a copy
    tensors = {name: tensor.clone() for name, tensor in packed.tensors().items()}
    for unchanged in (packed, again := PackedMasks.from_tensors(tensors)):
        for array in (unchanged._values, unchanged._classes):
            with pytest.raises(ValueError, match="read-only"):
                array[:] = 1
        assert not unchanged[:].any()
    assert tensors["bits"].numpy().flags.writeable
    assert_same(PackedMasks.from_tensors(again.tensors()), packed[:])
    with pytest.raises(AttributeError):
        packed.shape = (1, 1, 1)


def test_no_batch_is_an_error():
    with pytest.raises(ValueError, match="expected at least one batch of masks"):
        PackedMasks.from_batches(iter([]), 3, 2)


def test_many_masks_are_kept_in_a_file(monkeypatch):
    masks = np.random.default_rng(0).integers(3, 5, (50, 8, 8))
    in_memory = PackedMasks.pack(masks, 4)
    monkeypatch.setattr(_arrays, "MEMORY_BUDGET", 100)
    in_file = PackedMasks.pack(masks, 4)
    assert isinstance(in_file._values.base, np.memmap)
    assert not isinstance(in_memory._values.base, np.memmap)
    np.testing.assert_array_equal(in_file[:], masks)
    np.testing.assert_array_equal(in_file[[3, 7]], in_memory[[3, 7]])
