"""Batches that become smaller process all rows, in order, each once."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skdfb.exceptions import BatchSizeWarning
from skdfb.images import BatchSize, _batch_size, is_out_of_memory


@given(n=st.integers(0, 30), size=st.integers(1, 40))
def test_batches(n, size):
    batches = list(BatchSize(size).batches(n))
    assert [int(index) for batch in batches for index in batch] == list(range(n))
    assert all(0 < len(batch) <= size for batch in batches)
    assert len(batches) == -(-n // size)


@given(n=st.integers(0, 60), size=st.integers(1, 80), fitting=st.integers(1, 80))
def test_pieces(n, size, fitting):
    batch_size = BatchSize(size)
    failures = 0

    def process(rows):
        nonlocal failures
        if rows.stop - rows.start > fitting:
            failures += 1
            raise torch.OutOfMemoryError
        return list(range(rows.start, rows.stop))

    # Collecting garbage takes most of the time of a test with so many failures.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_batch_size.gc, "collect", lambda: 0)
        pieces = list(batch_size.pieces(n, process))
    assert [row for piece in pieces for row in piece] == list(range(n))
    assert all(pieces)
    assert failures <= 7
    if min(n, size) > fitting:
        assert fitting / 2 < batch_size.size + 1 <= fitting + 1
    else:
        assert batch_size.size == size


def test_batches_follow_the_size():
    batch_size = BatchSize(8)
    batches = batch_size.batches(20)
    assert len(next(batches)) == 8
    batch_size.size = 3
    assert [len(batch) for batch in batches] == [3, 3, 3, 3]


def test_warns_once():
    batch_size = BatchSize(8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch_size.warn_if_halved()
    batch_size.size = 2
    with pytest.warns(
        BatchSizeWarning, match=r"^8 images do not fit .*; a forward pass took 2 at a time\. Lower batch_size"
    ):
        batch_size.warn_if_halved()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch_size.warn_if_halved()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (MemoryError(), False),
        (ValueError("DefaultCPUAllocator: can't allocate memory"), False),
    ],
)
def test_is_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected


def test_error_of_torch_on_the_cpu():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**62, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)
