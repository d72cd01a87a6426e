"""The listing of a folder; which files are taken is tested beside the images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skdfb.datasets import load_image_folder, load_resized_images
from skdfb.images import as_images
from tests.images.test_folders import CLASSES, IN_ORDER, write


def test_class_folders(tmp_path: Path) -> None:
    data = load_image_folder(write(tmp_path, *CLASSES))
    assert data.paths == as_images(tmp_path).names == [str(tmp_path / name) for name in IN_ORDER]
    assert isinstance(data.labels, np.ndarray)
    assert data.labels.dtype.kind == "U"
    assert data.labels.tolist() == ["cat", "cat", "cat-like", "dog"]
    assert data.classes == ["cat", "cat-like", "dog"]


def test_images_alone(tmp_path: Path) -> None:
    data = load_image_folder(write(tmp_path, "b.png", "a.png"))
    assert data.paths == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert (data.labels, data.classes) == (None, None)


def test_the_remedy_of_the_warning(tmp_path: Path) -> None:
    write(tmp_path, "cat/1.png", "cat/2.raw", "dog/1.png")
    with pytest.warns(UserWarning, match="left out") as found:
        assert len(load_image_folder(tmp_path).paths) == 2
    text = str(found[0].message)
    remedy = text[text.index("load_image_folder(") :].removesuffix(".")
    data = eval(remedy, {"load_image_folder": load_image_folder})
    assert [Path(path).name for path in data.paths] == ["1.png", "2.raw", "1.png"]


@pytest.mark.parametrize("path", [None, 3, ["images"], b"images"])
def test_no_path(path: Any) -> None:
    with pytest.raises(TypeError, match=r"path has type .*: expected the path of a folder"):
        load_image_folder(path)


def test_errors_name_the_argument(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path is the folder '.*', which holds no images"):
        load_image_folder(tmp_path)
    with pytest.raises(NotADirectoryError, match=r"path is the file '.*1\.png': expected a folder"):
        load_image_folder(write(tmp_path, "1.png") / "1.png")
    with pytest.raises(FileNotFoundError, match="path is the path 'gone', which does not exist"):
        load_image_folder("gone")


def test_resized_images(tmp_path: Path) -> None:
    write(tmp_path, *CLASSES)
    np.testing.assert_array_equal(
        load_resized_images(tmp_path, 4), load_resized_images(load_image_folder(tmp_path).paths, 4)
    )
