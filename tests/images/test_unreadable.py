"""The errors of images that cannot be read: all of a set are found in one pass, and each is named once."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.base import BaseEstimator

from skdfb.exceptions import UnreadableImageError
from skdfb.images import as_images, check_images

N = 10
REMEDY = "Move these files away, or leave them out."


class Estimator(BaseEstimator):
    """Has what ``check_images`` reads of an estimator."""

    def __init__(self, image_shape: tuple[int, ...] | None = None, n_jobs: int | None = None) -> None:
        self.image_shape, self.n_jobs = image_shape, n_jobs


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    paths = [str(tmp_path / f"{index}.png") for index in range(N)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return paths


def refused(function: Any) -> UnreadableImageError:
    with pytest.raises(UnreadableImageError) as info:
        function()
    return info.value


@pytest.mark.parametrize("n_jobs", [None, 3])
def test_fit_names_all(paths: list[str], n_jobs: int | None) -> None:
    """Also the damage that shows only when an image is decoded, and pixels that cannot be used."""
    Path(paths[2]).write_bytes(b"")
    Path(paths[5]).write_bytes(Path(paths[5]).read_bytes()[:-60])
    paths[6] = paths[6].replace("png", "npy")
    np.save(paths[6], np.full((8, 8, 3), np.nan))
    Path(paths[9]).write_bytes(b"")
    error = refused(lambda: check_images(Estimator(n_jobs=n_jobs), paths, reset=True))
    truncated = refused(lambda: as_images(paths[5:6]).read_one(0)).reason
    assert str(error) == (
        f"4 of 10 images cannot be read: {paths[2]!r}, {paths[9]!r}: it is empty (0 bytes); {paths[5]!r}: {truncated}; "
        f"{paths[6]!r}: it contains NaN or infinity: expected finite pixels. {REMEDY}"
    )
    assert (error.index, error.path, error.reason) == (2, paths[2], "it is empty (0 bytes)")


def test_headers_are_read_before_any_image(paths: list[str]) -> None:
    for index in (1, 3):
        Path(paths[index]).unlink()
    Path(paths[4]).write_text("no image")
    assert str(refused(lambda: as_images(paths))) == (
        f"3 of 10 images cannot be read: {paths[1]!r}, {paths[3]!r}: it is missing; {paths[4]!r}: it is no image of a "
        f"known format. {REMEDY}"
    )


def test_images_without_a_file_are_named_by_their_number(paths: list[str]) -> None:
    contents = [Path(path).read_bytes() for path in paths]
    contents[3] = contents[7] = b"text"
    assert str(refused(lambda: as_images(contents))) == (
        "2 of 10 images cannot be read: image 3, image 7: these bytes are no image of a known format. Leave them out."
    )


def test_one_has_its_number_and_its_file(paths: list[str]) -> None:
    Path(paths[8]).write_bytes(b"")
    for function in (lambda: as_images(paths), lambda: check_images(Estimator(), paths, reset=True)):
        error = refused(function)
        assert str(error) == f"image 8 cannot be read: file {paths[8]!r}: it is empty (0 bytes)."
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.index, again.path, again.reason) == (str(error), 8, paths[8], error.reason)


def test_many_are_counted(paths: list[str]) -> None:
    missing = [f"{index:02}.jpg" for index in range(40)]
    message = str(refused(lambda: as_images([*paths, *missing])))
    assert message.startswith("40 of 50 images cannot be read: '00.jpg', '01.jpg'")
    assert message.endswith(f"'19.jpg': it is missing; and 20 more. {REMEDY}")


def test_none_can_be_read() -> None:
    error = refused(lambda: as_images(["a.png", "b.png"]))
    assert str(error) == "none of 2 images can be read: image 0 is missing: there is no file 'a.png'."


@pytest.mark.parametrize("make", [str, Path])
@pytest.mark.parametrize("address", ["https://x.y/z.jpg", "s3://bucket/z.npy"])
def test_web_addresses_are_not_read(paths: list[str], address: str, make: Any) -> None:
    error = refused(lambda: as_images([*paths, make(address)]))
    assert error.reason == "web addresses are not read; download the file first, and pass its path"
    with pytest.raises(ValueError, match=r"^X is the web address '(https|s3):.*: expected images; download them first"):
        as_images(make(address))


def test_a_missing_file_is_no_web_address() -> None:
    for path in ("C:/new/a.png", "a:b.png", "a/b:/c.png"):
        assert refused(lambda path=path: as_images([path])).reason == "it is missing"
