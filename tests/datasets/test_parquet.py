"""Image files in Parquet files: found in their column, read in order, refused with a reason."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from skdfb.datasets import iter_parquet

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def files(n: int) -> list[bytes]:
    buffers = [io.BytesIO() for _ in range(n)]
    for value, buffer in enumerate(buffers):
        Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(buffer, "png")
    return [buffer.getvalue() for buffer in buffers]


@pytest.mark.parametrize("binary", [pa.binary(), pa.large_binary()])
def test_a_column_of_bytes(tmp_path, binary):
    images = files(10)
    pq.write_table(pa.table({"name": list("abcdefghij"), "image": pa.array(images, binary)}), tmp_path / "a.parquet")
    assert list(iter_parquet(tmp_path / "a.parquet", batch_size=3)) == images
    assert list(iter_parquet(str(tmp_path / "a.parquet"), "image")) == images


def test_structs_and_several_files(tmp_path):
    images = files(6)
    for name, part in (("1", images[3:]), ("0", images[:3])):
        rows = [{"bytes": image, "path": f"{place}.png"} for place, image in enumerate(part)]
        pq.write_table(pa.table({"image": rows, "label": [1, 2, 3]}), tmp_path / f"{name}.parquet", row_group_size=2)
    assert list(iter_parquet(tmp_path)) == images


def test_the_memory_is_that_of_a_group(tmp_path):
    rng = np.random.default_rng(0)  # as JPEG files, noise cannot be compressed
    with pq.ParquetWriter(tmp_path / "a.parquet", pa.schema([("image", pa.binary())])) as writer:
        for _ in range(40):
            writer.write_table(pa.table({"image": [rng.bytes(100_000)]}))
    before = pa.total_allocated_bytes()
    largest = max(pa.total_allocated_bytes() - before for _ in iter_parquet(tmp_path / "a.parquet", batch_size=2))
    assert largest < 1_000_000  # of 4,000,000


def test_a_missing_image_has_no_bytes(tmp_path):
    (image,) = files(1)
    pq.write_table(pa.table({"image": pa.array([image, None], pa.binary())}), tmp_path / "a.parquet")
    assert list(iter_parquet(tmp_path / "a.parquet")) == [image, b""]


def test_errors_come_before_the_first_image(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist: expected a Parquet file"):
        iter_parquet(tmp_path / "a.parquet")
    with pytest.raises(FileNotFoundError, match=r"has no file \*\.parquet"):
        iter_parquet(tmp_path)
    pq.write_table(pa.table({"a": files(1), "b": files(1), "c": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"\['a', 'b'\] hold bytes: expected one column of image files; pass column="):
        iter_parquet(tmp_path)
    with pytest.raises(ValueError, match="column='c' is not one of them"):
        iter_parquet(tmp_path, "c")


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install skdfb\[parquet\]"):
        iter_parquet("a.parquet")
