"""Published sets are read as they are in their files; other files are refused, and nothing half done is left."""

import io
import pickle
import re
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from torchvision.datasets import DTD, SVHN, Places365

from skdfb import datasets
from skdfb.datasets import (
    _remote,
    fetch_cifar10,
    fetch_cifar100,
    fetch_flower_photos,
    fetch_places365_ood,
    fetch_svhn,
    fetch_textures,
)
from tests.published_sets import cifar10, cifar100, cifar_record, random_images, register, svhn, tar

FUNCTIONS = [getattr(datasets, name) for name in datasets.__all__ if name.startswith("fetch_")]
ARRAYS = [fetch_cifar10, fetch_cifar100, fetch_svhn]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


# ------------------------------------------------------------ the registry


def test_addresses_are_those_of_torchvision():
    files = _remote.FILES
    for subset in ("train", "test"):
        assert [files[f"svhn_{subset}"].url, files[f"svhn_{subset}"].name] == list(SVHN.split_list[subset][:2])
    assert files["textures"].url == DTD._URL
    assert files["places365_validation"].url == Places365._BASE_URL + Places365._IMAGES_META["val", True][0]


def test_file_names_are_those_of_the_addresses():
    for file in _remote.FILES.values():
        assert file.url.endswith(f"/{file.name}")
        assert re.fullmatch("sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", file.digest)


def test_only_one_set_has_no_sha256():
    assert [name for name, file in _remote.FILES.items() if file.digest.startswith("md5")] == ["places365_mos"]


# -------------------------------------------------------------------- CIFAR


def test_a_cifar_image_pixel_by_pixel(registry, tmp_path):
    record = bytes([4]) + bytes((7 * place) % 256 for place in range(3072))
    register("cifar10", cifar10({"test_batch": record}), tmp_path)
    data = fetch_cifar10(subset="test", data_home=tmp_path)
    (image,) = data.images
    assert data.images.dtype == np.uint8
    for channel, row, column in [(0, 0, 0), (0, 0, 31), (0, 31, 0), (1, 0, 0), (2, 5, 17), (2, 31, 31)]:
        assert image[row, column, channel] == record[1 + 1024 * channel + 32 * row + column]
    assert data.target.tolist() == ["deer"]


def test_cifar100_has_the_fine_classes(registry, tmp_path):
    images = random_images(2)
    content = cifar_record((19, 99), images[0]) + cifar_record((3, 42), images[1])
    register("cifar100", cifar100({"test": content}), tmp_path)
    data = fetch_cifar100(subset="test", data_home=tmp_path)
    assert data.target.tolist() == ["fine_99", "fine_42"]
    assert len(data.target_names) == 100
    assert "CIFAR-100" in data.DESCR
    assert_array_equal(data.images, images)


def test_cifar10_has_five_training_batches_in_order(published):
    data = fetch_cifar10(data_home=published.folder)
    assert data.images.shape == (50, 32, 32, 3)
    labels = np.arange(10) % 5
    assert_array_equal(data.target, np.tile(np.array(data.target_names)[labels], 5))
    for batch in range(5):
        expected = random_images(10, seed=batch) // 2 + 12 * labels.astype(np.uint8)[:, None, None, None]
        assert_array_equal(data.images[10 * batch : 10 * batch + 10], expected)
    assert data.images.flags.writeable


def test_subsets(published):
    home = published.folder
    sizes = {(f, s): len(f(subset=s, data_home=home).target) for f in ARRAYS for s in ("train", "test")}
    assert list(sizes.values()) == [50, 10, 84, 12, 4, 9]
    assert published.served == []


# --------------------------------------------------------------------- SVHN


def test_svhn_has_its_images_last_and_ten_for_zero(registry, tmp_path):
    images = random_images(4)
    register("svhn_test", svhn(images, [10, 1, 9, 5]), tmp_path)
    data = fetch_svhn(subset="test", data_home=tmp_path)
    assert_array_equal(data.images, images)
    assert data.target.tolist() == ["0", "1", "9", "5"]
    assert data.target_names == list("0123456789")


# -------------------------------------------------------------- photographs


@pytest.mark.parametrize(
    ("fetch", "classes"), [(fetch_textures, ["banded", "waffled"]), (fetch_flower_photos, ["daisy", "roses", "tulips"])]
)
def test_paths_have_the_names_of_their_folders_as_labels(published, fetch, classes):
    data = fetch(data_home=published.folder)
    assert data.classes == classes
    assert data.labels.tolist() == [name for name in classes for _ in range(4)]
    assert [Path(path).parent.name for path in data.paths] == data.labels.tolist()
    assert data.paths == sorted(data.paths)
    assert all(Path(path).is_file() for path in data.paths)


@pytest.mark.parametrize(("subset", "n"), [("mos", 6), ("validation", 7)])
def test_places_have_no_labels(published, subset, n):
    data = fetch_places365_ood(subset=subset, data_home=published.folder)
    assert len(data.paths) == n
    assert not any(Path(path).name.startswith(".") for path in data.paths)
    assert data.labels is None
    assert data.classes is None


def test_an_extracted_archive_can_be_removed(published):
    before = fetch_textures(data_home=published.folder).paths
    (published.folder / _remote.FILES["textures"].name).unlink()
    assert fetch_textures(data_home=published.folder, download_if_missing=False).paths == before


def test_an_incomplete_folder_is_refused(published):
    first, *others = fetch_flower_photos(data_home=published.folder).paths
    Path(first).unlink()
    with pytest.raises(ValueError, match=r"11 images: expected 12\. Remove the folder .*flower_photos, so that"):
        fetch_flower_photos(data_home=published.folder)
    for path in others:
        assert Path(path).is_file()


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
        tar({"dtd/a.jpg": b"", "../../evil": b"evil"}),
        tar({"dtd/a.jpg": b"", "dtd/../../../evil": b"evil"}),
        link("dtd", "../../.."),
        link("dtd", "/"),
    ],
    ids=["above", "above, hidden", "link above", "link to the root"],
)
def test_an_archive_that_reaches_outside_is_refused(registry, tmp_path, content):
    path = register("textures", content, tmp_path / "data")
    with pytest.raises(ValueError, match="cannot be extracted"):
        fetch_textures(data_home=tmp_path / "data")
    assert names_in(tmp_path / "data") == [path.name]
    assert names_in(tmp_path) == ["data"]


@pytest.mark.parametrize("content", [tar({"dtd/a.jpg": bytes(9000), "dtd/b.jpg": bytes(9000)})[:12000], b"x"])
def test_a_broken_archive_leaves_nothing_behind(registry, tmp_path, content):
    path = register("textures", content, tmp_path)
    with pytest.raises(ValueError, match="cannot be extracted"):
        fetch_textures(data_home=tmp_path)
    assert names_in(tmp_path) == [path.name]


def test_a_broken_extraction_leaves_nothing_behind(published, monkeypatch):
    before = names_in(published.folder)

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "makefile", full)
    with pytest.raises(OSError, match=r"cannot be extracted to .*textures: .*No space left"):
        fetch_textures(data_home=published.folder)
    assert names_in(published.folder) == before


# --------------------------------------------------------- files and digests


@pytest.mark.parametrize("fetch", FUNCTIONS)
def test_a_missing_file_is_downloaded_once(published, tmp_path, fetch):
    home = tmp_path / "new" / "home"
    first = fetch(data_home=home)
    second = fetch(data_home=str(home), download_if_missing=False)
    assert len(published.served) == 1
    assert "Terms" in first.DESCR
    assert first.keys() == second.keys()


@pytest.mark.parametrize("fetch", FUNCTIONS)
def test_a_missing_file_is_named_if_downloads_are_not_wanted(published, tmp_path, fetch):
    with pytest.raises(FileNotFoundError, match="is missing, and download_if_missing=False") as caught:
        fetch(data_home=tmp_path / "data", download_if_missing=False)
    assert re.search(rf"put the file of https?://\S+ at {re.escape(str(tmp_path / 'data'))}", str(caught.value))
    assert published.served == []
    assert not (tmp_path / "data").exists()


def test_without_a_network_the_error_has_the_address_and_the_place(registry, tmp_path, monkeypatch):
    def offline(url, output_file, pooch):
        raise ConnectionError("name resolution failed.")

    monkeypatch.setattr(_remote, "_downloader", lambda: offline)
    file = registry["svhn_test"]
    with pytest.raises(OSError, match="cannot be downloaded") as caught:
        fetch_svhn(subset="test", data_home=tmp_path)
    message = str(caught.value)
    for part in (file.url, str(tmp_path / file.name), file.digest, "name resolution failed. To do it by hand"):
        assert part in message
    assert names_in(tmp_path) == []


def test_a_file_with_another_digest_is_refused_and_kept(published):
    path = published.folder / _remote.FILES["svhn_test"].name
    path.write_bytes(path.read_bytes()[:-1])
    expected = _remote.FILES["svhn_test"].digest
    with pytest.raises(ValueError, match=rf"test_32x32\.mat has the digest sha256:[0-9a-f]{{64}}: expected {expected}"):
        fetch_svhn(subset="test", data_home=published.folder)
    assert path.exists()  # the user's file is not removed
    assert published.served == []


@pytest.mark.parametrize("fetch", FUNCTIONS)
def test_a_download_with_another_digest_is_refused_and_not_kept(published, tmp_path, fetch):
    for path in published.folder.iterdir():
        path.write_bytes(b"an error page")
    with pytest.raises(ValueError, match=r"is not the known file\. .*expected \S+ but got \S+"):
        fetch(data_home=tmp_path / "data")
    assert names_in(tmp_path / "data") == []


def test_an_interrupted_download_is_not_kept(published, tmp_path, monkeypatch):
    def interrupted(url, output_file, pooch):
        Path(output_file).write_bytes(b"half of it")
        raise OSError("connection reset")

    with monkeypatch.context() as patch:
        patch.setattr(_remote, "_downloader", lambda: interrupted)
        with pytest.raises(OSError, match=r"cannot be downloaded to .*: connection reset"):
            fetch_svhn(data_home=tmp_path / "data")
    assert names_in(tmp_path / "data") == []
    assert len(fetch_svhn(data_home=tmp_path / "data").images) == 4


def test_files_that_are_there_need_no_pooch_and_no_writing(published, monkeypatch):
    for fetch in FUNCTIONS:
        fetch(data_home=published.folder)

    def refuse(*args, **kwargs):
        pytest.fail("the cache is read-only")

    monkeypatch.setitem(sys.modules, "pooch", None)
    for name in ("mkdir", "rename", "replace", "unlink", "rmdir"):
        monkeypatch.setattr(f"os.{name}", refuse)
    for fetch in FUNCTIONS:
        fetch(data_home=published.folder)
    assert published.served == []


def test_a_folder_that_cannot_be_written_is_named(published, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=r"cannot be downloaded to .*file.data: .*To do it by hand"):
        fetch_svhn(data_home=tmp_path / "file" / "data")


def test_without_pooch_the_error_names_the_extra(published, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"pip install skdfb\[data\]"):
        fetch_svhn(data_home=tmp_path / "data")
    monkeypatch.delenv("SKDFB_DATA_HOME", raising=False)
    with pytest.raises(ImportError, match=r"pip install skdfb\[data\]"):
        fetch_svhn()


def test_nothing_is_unpickled(published, monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("something is unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(np, "load", refuse)
    for fetch in FUNCTIONS:
        fetch(data_home=published.folder)


# ------------------------------------------------------------------ settings


def test_the_folder_comes_from_the_argument_the_environment_or_pooch(monkeypatch, tmp_path):
    pooch = pytest.importorskip("pooch")
    monkeypatch.setenv("SKDFB_DATA_HOME", str(tmp_path / "environment"))
    assert _remote.data_folder(tmp_path / "argument") == tmp_path / "argument"
    assert _remote.data_folder(None) == tmp_path / "environment"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _remote.data_folder("~/data") == tmp_path / "data"
    for nothing in (lambda: monkeypatch.setenv("SKDFB_DATA_HOME", ""), lambda: monkeypatch.delenv("SKDFB_DATA_HOME")):
        nothing()
        assert _remote.data_folder(None) == Path(pooch.os_cache("skdfb"))


@pytest.mark.parametrize("fetch", [*ARRAYS, fetch_places365_ood])
def test_other_subsets_are_refused(published, fetch):
    with pytest.raises(ValueError, match="subset='validate': expected '"):
        fetch(subset="validate", data_home=published.folder)


@pytest.mark.parametrize("fetch", FUNCTIONS)
def test_a_folder_of_another_type_is_refused(published, fetch):
    with pytest.raises(TypeError, match="data_home=3: expected a folder"):
        fetch(data_home=3)


def test_downloads_use_large_pieces_and_give_up():
    pooch = pytest.importorskip("pooch")
    downloader = _remote._downloader()
    assert isinstance(downloader, pooch.HTTPDownloader)
    assert downloader.chunk_size >= 2**16
    assert downloader.kwargs["timeout"] == 60
    assert not downloader.progressbar  # nobody looks at the output of tests
