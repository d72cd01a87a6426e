"""Small copies of the paper's image sets: the same files with a few images, and a downloader without a network."""

import dataclasses
import hashlib
import importlib
import io
import shutil
import socket
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy.io import savemat

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def modules() -> Iterator[tuple[ModuleType, ModuleType]]:
    """The scripts ``paper_data`` and ``reproduce_paper``."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("paper_data"), importlib.import_module("reproduce_paper")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def paper_data(modules: Any, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The data module, with a copy of its registry that tests may change."""
    monkeypatch.setattr(modules[0], "FILES", dict(modules[0].FILES))
    return modules[0]


@pytest.fixture
def reproduce_paper(modules: Any, paper_data: ModuleType) -> ModuleType:
    return modules[1]


@pytest.fixture
def paper_differences(reproduce_paper: ModuleType) -> ModuleType:
    return reproduce_paper.paper_differences


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test fail if it tries to reach a host."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        pytest.fail(f"the test tries to reach a host: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


class LocalServer:
    """A downloader for pooch that copies files from a folder, by the file name of the address."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.served = folder, list[str]()

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        self.served.append(url)
        shutil.copyfile(self.folder / url.rsplit("/", 1)[1], output_file)


def register(paper_data: ModuleType, name: str, content: bytes, n_images: dict[str, int], folder: Path) -> Path:
    """Write a file under its own name, and put its checksum and numbers of images into the registry."""
    file = dataclasses.replace(paper_data.FILES[name], md5=hashlib.md5(content).hexdigest(), n_images=n_images)
    paper_data.FILES[name] = file
    folder.mkdir(exist_ok=True)
    (folder / file.name).write_bytes(content)
    return folder / file.name


def tar(members: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            information = tarfile.TarInfo(name)
            information.size = len(content)
            archive.addfile(information, io.BytesIO(content))
    return buffer.getvalue()


def jpeg(image: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG")
    return buffer.getvalue()


def random_images(n: int, side: int = 32, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(256, size=(n, side, side, 3), dtype=np.uint8)


def cifar_record(labels: tuple[int, ...], image: npt.NDArray[np.uint8]) -> bytes:
    """Label bytes, then all red values row by row, all green, all blue."""
    return bytes(labels) + b"".join(image[:, :, channel].tobytes(order="C") for channel in range(3))


def cifar_batch(n: int, n_classes: int, seed: int, coarse: bool) -> bytes:
    """Records of images whose brightness depends on the class."""
    images = random_images(n, seed=seed) // 2
    return b"".join(
        cifar_record((19, index % n_classes) if coarse else (index % n_classes,), image + 12 * (index % n_classes))
        for index, image in enumerate(images)
    )


def write_sets(paper_data: ModuleType, folder: Path) -> None:
    """Write small files of all five sets, and put them into the registry."""
    batches = [f"cifar-10-batches-bin/data_batch_{batch}.bin" for batch in range(1, 6)]
    test = "cifar-10-batches-bin/test_batch.bin"
    members = {name: cifar_batch(10, 5, seed, coarse=False) for seed, name in enumerate([*batches, test])}
    members["cifar-10-batches-bin/batches.meta.txt"] = b"airplane\n"
    register(paper_data, "cifar10", tar(members, "w:gz"), dict.fromkeys([*batches, test], 10), folder)

    sizes = {"cifar-100-binary/train.bin": 84, "cifar-100-binary/test.bin": 12}
    members = {name: cifar_batch(n, 6, seed, coarse=True) for seed, (name, n) in enumerate(sizes.items(), 10)}
    register(paper_data, "cifar100", tar(members, "w:gz"), sizes, folder)

    buffer = io.BytesIO()
    savemat(buffer, {"X": np.moveaxis(random_images(9, seed=20), 0, -1), "y": np.ones((9, 1), dtype=np.uint8)})
    register(paper_data, "svhn", buffer.getvalue(), {"X": 9}, folder)

    members = {
        f"val_256/Places365_val_{index:08}.jpg": jpeg(image) for index, image in enumerate(random_images(7, 48), 1)
    }
    register(paper_data, "places365", tar(members), {"val_256/*.jpg": 7}, folder)

    members = {
        f"dtd/images/{kind}/{kind}_{index:04}.jpg": jpeg(image)
        for kind in ("banded", "waffled")
        for index, image in enumerate(random_images(4, 40))
    }
    members |= {"dtd/labels/train1.txt": b"banded/banded_0000.jpg\n", "dtd/images/waffled/.directory": b""}
    register(paper_data, "textures", tar(members, "w:gz"), {"dtd/images/*/*.jpg": 8}, folder)


@pytest.fixture
def published(paper_data: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalServer:
    """All sets, at a downloader that takes the place of their publishers."""
    write_sets(paper_data, tmp_path / "published")
    server = LocalServer(tmp_path / "published")
    monkeypatch.setattr(paper_data, "http_downloader", lambda: server)
    return server
