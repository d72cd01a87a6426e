"""The image sets of the paper are read as they are in the files, and other files are refused."""

import io
import re
import sys
import tarfile

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.io import savemat
from torchvision.datasets import DTD, SVHN, Places365

from tests.benchmarks.conftest import cifar_record, random_images, register, tar

CIFAR10_TEST = "cifar-10-batches-bin/test_batch.bin"
CIFAR100_TEST = "cifar-100-binary/test.bin"


def names_in(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


# ------------------------------------------------------------ the registry


def test_sources_are_those_of_torchvision(modules):
    files = modules[0].FILES
    assert [files["svhn"].url, files["svhn"].name, files["svhn"].md5] == list(SVHN.split_list["test"])
    assert (files["textures"].url, files["textures"].md5) == (DTD._URL, DTD._MD5)
    name, md5 = Places365._IMAGES_META["val", True]
    assert (files["places365"].url, files["places365"].md5) == (Places365._BASE_URL + name, md5)


@pytest.mark.parametrize(("name", "n"), [("cifar10", 60_000), ("cifar100", 60_000), ("svhn", 26_032)])
def test_number_of_images(modules, name, n):
    assert sum(modules[0].FILES[name].n_images.values()) == n


def test_file_names_are_those_of_the_addresses(modules):
    for file in modules[0].FILES.values():
        assert file.url.endswith(f"/{file.name}")
        assert re.fullmatch("[0-9a-f]{32}", file.md5)


# -------------------------------------------------------------------- CIFAR


def test_cifar10_records_become_images_and_labels(paper_data, tmp_path):
    images = random_images(3)
    content = b"".join(cifar_record((label,), image) for label, image in zip((7, 0, 9), images, strict=True))
    register(paper_data, "cifar10", tar({CIFAR10_TEST: content}, "w:gz"), {CIFAR10_TEST: 3}, tmp_path)
    X, y = paper_data.read_cifar("cifar10", "test", tmp_path)
    assert_array_equal(X, images)
    assert_array_equal(y, [7, 0, 9])
    assert X.dtype == np.uint8


def test_a_cifar_image_pixel_by_pixel(paper_data, tmp_path):
    content = bytes([4]) + bytes((7 * place) % 256 for place in range(3072))
    register(paper_data, "cifar10", tar({CIFAR10_TEST: content}, "w:gz"), {CIFAR10_TEST: 1}, tmp_path)
    (image,), _ = paper_data.read_cifar("cifar10", "test", tmp_path)
    for channel, row, column in [(0, 0, 0), (0, 0, 31), (0, 31, 0), (1, 0, 0), (2, 5, 17), (2, 31, 31)]:
        assert image[row, column, channel] == content[1 + 1024 * channel + 32 * row + column]


def test_cifar100_labels_are_the_fine_ones(paper_data, tmp_path):
    images = random_images(2)
    content = cifar_record((19, 99), images[0]) + cifar_record((3, 42), images[1])
    register(paper_data, "cifar100", tar({CIFAR100_TEST: content}, "w:gz"), {CIFAR100_TEST: 2}, tmp_path)
    X, y = paper_data.read_cifar("cifar100", "test", tmp_path)
    assert_array_equal(y, [99, 42])
    assert_array_equal(X, images)


def test_cifar10_has_five_training_batches_in_order(paper_data, published):
    X, y = paper_data.read_cifar("cifar10", "train", published.folder)
    X_test, y_test = paper_data.read_cifar("cifar10", "test", published.folder)
    assert X.shape == (50, 32, 32, 3)
    assert X_test.shape == (10, 32, 32, 3)
    for batch in range(5):
        labels = np.arange(10) % 5
        expected = random_images(10, seed=batch) // 2 + 12 * labels.astype(np.uint8)[:, None, None, None]
        assert_array_equal(X[10 * batch : 10 * batch + 10], expected)
        assert_array_equal(y[10 * batch : 10 * batch + 10], labels)
    assert len(y_test) == 10


def test_the_parts_of_cifar100(paper_data, published):
    assert len(paper_data.read_cifar("cifar100", "train", published.folder)[0]) == 84
    assert len(paper_data.read_cifar("cifar100", "test", published.folder)[0]) == 12


@pytest.mark.parametrize("n_bytes", [2 * 3073 - 1, 3073, 2 * 3073 + 1, 0])
def test_a_cut_cifar_file_is_refused(paper_data, tmp_path, n_bytes):
    register(paper_data, "cifar10", tar({CIFAR10_TEST: bytes(n_bytes)}, "w:gz"), {CIFAR10_TEST: 2}, tmp_path)
    message = rf"{CIFAR10_TEST} has {n_bytes:,} bytes: expected 6,146, which are 2 records of 3,073 bytes"
    with pytest.raises(paper_data.DataError, match=message):
        paper_data.read_cifar("cifar10", "test", tmp_path)


@pytest.mark.parametrize(
    ("name", "member", "labels"),
    [("cifar10", CIFAR10_TEST, (10,)), ("cifar100", CIFAR100_TEST, (0, 100)), ("cifar100", CIFAR100_TEST, (20, 0))],
)
def test_an_impossible_label_is_refused(paper_data, tmp_path, name, member, labels):
    content = cifar_record(labels, random_images(1)[0])
    register(paper_data, name, tar({member: content}, "w:gz"), {member: 1}, tmp_path)
    with pytest.raises(paper_data.DataError, match=f"has label {max(labels)}: expected 0 to {max(labels) - 1}"):
        paper_data.read_cifar(name, "test", tmp_path)


def test_an_archive_without_the_member_is_refused(paper_data, tmp_path):
    register(paper_data, "cifar10", tar({"other.bin": b""}, "w:gz"), {CIFAR10_TEST: 1}, tmp_path)
    with pytest.raises(paper_data.DataError, match=r"cannot be read: .*test_batch\.bin"):
        paper_data.read_cifar("cifar10", "test", tmp_path)


@pytest.mark.parametrize("cut", [200, 3000])
def test_a_cut_archive_is_refused(paper_data, tmp_path, cut):
    content = tar({CIFAR10_TEST: cifar_record((0,), random_images(1)[0])}, "w:gz")
    register(paper_data, "cifar10", content[:-cut], {CIFAR10_TEST: 1}, tmp_path)
    with pytest.raises(paper_data.DataError, match="cannot be read"):
        paper_data.read_cifar("cifar10", "test", tmp_path)


# --------------------------------------------------------------------- SVHN


def svhn_file(X):
    buffer = io.BytesIO()
    savemat(buffer, {"X": X})
    return buffer.getvalue()


def test_svhn_has_its_images_last(paper_data, tmp_path):
    images = random_images(4)
    register(paper_data, "svhn", svhn_file(np.moveaxis(images, 0, -1)), {"X": 4}, tmp_path)
    assert_array_equal(paper_data.read_ood("svhn", tmp_path), images)


@pytest.mark.parametrize(
    "X", [random_images(4), np.moveaxis(random_images(3), 0, -1), np.moveaxis(random_images(4) / 255, 0, -1)]
)
def test_other_arrays_are_not_svhn(paper_data, tmp_path, X):
    register(paper_data, "svhn", svhn_file(X), {"X": 4}, tmp_path)
    with pytest.raises(paper_data.DataError, match=r"expected uint8 \(32, 32, 3, 4\)"):
        paper_data.read_ood("svhn", tmp_path)


@pytest.mark.parametrize("content", [b"", b"not MATLAB's", svhn_file(random_images(4))[:-500]])
def test_files_that_are_not_matlab_files_are_refused(paper_data, tmp_path, content):
    register(paper_data, "svhn", content, {"X": 4}, tmp_path)
    with pytest.raises(paper_data.DataError, match="no readable MATLAB file"):
        paper_data.read_ood("svhn", tmp_path)


# ----------------------------------------------------------------- archives


def test_shapes_and_paths_of_the_other_sets(paper_data, published):
    assert paper_data.read_ood("cifar10", published.folder).shape == (10, 32, 32, 3)
    assert paper_data.read_ood("cifar100", published.folder).shape == (12, 32, 32, 3)
    places = paper_data.read_ood("places365", published.folder)
    assert places == [str(published.folder / f"val_256/Places365_val_{index:08}.jpg") for index in range(1, 8)]
    textures = paper_data.read_ood("textures", published.folder)
    assert len(textures) == 8
    assert textures == sorted(textures)
    assert all(path.endswith(".jpg") for path in textures)


def test_an_extracted_archive_can_be_removed(paper_data, published):
    before = paper_data.read_ood("textures", published.folder)
    (published.folder / paper_data.FILES["textures"].name).unlink()
    assert paper_data.is_there("textures", published.folder)
    assert paper_data.read_ood("textures", published.folder) == before


def test_an_incomplete_folder_is_refused(paper_data, published):
    paths = paper_data.read_ood("places365", published.folder)
    (published.folder / "val_256" / "Places365_val_00000003.jpg").unlink()
    with pytest.raises(paper_data.DataError, match=r"6 images: expected 7. Remove the folder .*val_256"):
        paper_data.read_ood("places365", published.folder)
    for path in (published.folder / "val_256").iterdir():
        path.unlink()
    (published.folder / "val_256").rmdir()
    assert paper_data.read_ood("places365", published.folder) == paths


def link(name, target):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        information = tarfile.TarInfo(name)
        information.type, information.linkname = tarfile.SYMTYPE, target
        archive.addfile(information)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        tar({"val_256/a.jpg": b"", "../evil": b"evil"}),
        tar({"val_256/a.jpg": b"", "val_256/../../evil": b"evil"}),
        link("val_256", "../.."),
        link("val_256", "/"),
    ],
    ids=["above", "above, hidden", "link above", "link to the root"],
)
def test_an_archive_that_reaches_outside_is_refused(paper_data, tmp_path, content):
    folder = tmp_path / "data"
    path = register(paper_data, "places365", content, {"val_256/*.jpg": 1}, folder)
    with pytest.raises(paper_data.DataError, match="cannot be extracted"):
        paper_data.read_ood("places365", folder)
    assert names_in(folder) == [path.name]
    assert names_in(tmp_path) == ["data"]


@pytest.mark.parametrize("content", [tar({"val_256/a.jpg": bytes(9000), "val_256/b.jpg": bytes(9000)})[:12000], b"x"])
def test_a_cut_archive_leaves_nothing_behind(paper_data, tmp_path, content):
    path = register(paper_data, "places365", content, {"val_256/*.jpg": 2}, tmp_path)
    with pytest.raises(paper_data.DataError, match="cannot be extracted"):
        paper_data.read_ood("places365", tmp_path)
    assert names_in(tmp_path) == [path.name]


def test_an_archive_of_something_else_is_refused(paper_data, tmp_path):
    path = register(paper_data, "places365", tar({"other/a.jpg": b""}), {"val_256/*.jpg": 1}, tmp_path)
    with pytest.raises(paper_data.DataError, match="holds no folder 'val_256'"):
        paper_data.read_ood("places365", tmp_path)
    assert names_in(tmp_path) == [path.name]


# ---------------------------------------------------- checksums and download


def test_without_download_a_missing_file_is_named(paper_data, published, tmp_path):
    with pytest.raises(paper_data.DataError, match=r"svhn: http://ufldl\.stanford\.edu(.|\n)*--download fetches"):
        paper_data.fetch("svhn", tmp_path / "data")
    assert published.served == []
    assert not (tmp_path / "data").exists()


def test_without_download_another_checksum_is_refused(paper_data, published):
    path = published.folder / paper_data.FILES["svhn"].name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(paper_data.DataError, match=r"another MD5 sum than [0-9a-f]{32}.*--download replaces it"):
        paper_data.fetch("svhn", published.folder)
    assert path.exists()  # the user's file is not removed
    assert published.served == []


def test_a_download_with_another_checksum_is_refused_and_not_kept(paper_data, published, tmp_path):
    pytest.importorskip("pooch")
    (published.folder / paper_data.FILES["svhn"].name).write_bytes(b"an error page")
    with pytest.raises(paper_data.DataError, match="could not be downloaded"):
        paper_data.fetch("svhn", tmp_path / "data", download=True)
    assert names_in(tmp_path / "data") == []


def test_an_interrupted_download_is_not_kept(paper_data, published, tmp_path, monkeypatch):
    pytest.importorskip("pooch")

    def interrupted(url, output_file, pooch):
        with open(output_file, "wb") as handle:
            handle.write(b"half of it")
        raise OSError("connection reset")

    with monkeypatch.context() as patch:
        patch.setattr(paper_data, "http_downloader", lambda: interrupted)
        with pytest.raises(paper_data.DataError, match=r"could not be downloaded: connection reset.*Run again"):
            paper_data.fetch("svhn", tmp_path / "data", download=True)
    assert names_in(tmp_path / "data") == []
    path = paper_data.fetch("svhn", tmp_path / "data", download=True)
    assert path.read_bytes() == (published.folder / path.name).read_bytes()


def test_a_complete_file_is_downloaded_once_and_a_damaged_one_again(paper_data, published, tmp_path):
    pytest.importorskip("pooch")
    path = paper_data.fetch("svhn", tmp_path / "data", download=True)
    assert paper_data.fetch("svhn", tmp_path / "data", download=True) == path
    assert paper_data.fetch("svhn", tmp_path / "data") == path
    assert published.served == [paper_data.FILES["svhn"].url]
    content = path.read_bytes()
    path.write_bytes(content[:100])
    paper_data.fetch("svhn", tmp_path / "data", download=True)
    assert path.read_bytes() == content
    assert len(published.served) == 2


def test_without_pooch_the_error_names_the_remedy(paper_data, published, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(paper_data.DataError, match=r"needs pooch: pip install"):
        paper_data.fetch("svhn", tmp_path, download=True)


def test_downloads_use_http_and_large_pieces(modules):
    pooch = pytest.importorskip("pooch")
    downloader = modules[0].http_downloader()
    assert isinstance(downloader, pooch.HTTPDownloader)
    assert downloader.chunk_size >= 2**16
