"""Small copies of published image sets: the same files with a few images, and a downloader without a network."""

import dataclasses
import hashlib
import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.io import savemat

from skdfb.datasets import _remote

FILES = _remote.FILES
COARSE = 19  # the group of all classes in the small CIFAR-100


class LocalServer:
    """A downloader for pooch that copies files from a folder, by the file name of the address."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.served = folder, list[str]()

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        self.served.append(url)
        shutil.copyfile(self.folder / url.rsplit("/", 1)[1], output_file)


def register(name: str, content: bytes, folder: Path, n_images: int = 0) -> Path:
    """Write a file under its own name, and put its digest and its number of images into the registry."""
    algorithm = FILES[name].digest.partition(":")[0]
    digest = f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
    FILES[name] = dataclasses.replace(FILES[name], digest=digest, n_images=n_images)
    folder.mkdir(exist_ok=True)
    (folder / FILES[name].name).write_bytes(content)
    return folder / FILES[name].name


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
        cifar_record((COARSE, index % n_classes) if coarse else (index % n_classes,), image + 12 * (index % n_classes))
        for index, image in enumerate(images)
    )


def cifar10(records: dict[str, bytes]) -> bytes:
    """The archive of CIFAR-10 with the given records of its members."""
    names = b"airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n"
    members = {f"{name}.bin": content for name, content in records.items()} | {"batches.meta.txt": names}
    return tar({f"cifar-10-batches-bin/{name}": content for name, content in members.items()}, "w:gz")


def cifar100(records: dict[str, bytes]) -> bytes:
    """The archive of CIFAR-100 with the given records of its members."""
    names = "".join(f"fine_{index:02}\n" for index in range(100)).encode()
    members = {f"{name}.bin": content for name, content in records.items()} | {"fine_label_names.txt": names}
    return tar({f"cifar-100-binary/{name}": content for name, content in members.items()}, "w:gz")


def svhn(images: npt.NDArray[np.uint8], labels: list[int]) -> bytes:
    """A MATLAB file with the images last, and the labels in a column."""
    buffer = io.BytesIO()
    savemat(buffer, {"X": np.moveaxis(images, 0, -1), "y": np.array(labels, np.uint8)[:, None]})
    return buffer.getvalue()


def write_sets(folder: Path) -> None:
    """Write small files of all sets, and put them into the registry."""
    batches = [*(f"data_batch_{batch}" for batch in range(1, 6)), "test_batch"]
    records = {name: cifar_batch(10, 5, seed, coarse=False) for seed, name in enumerate(batches)}
    register("cifar10", cifar10(records), folder)
    sizes = {"train": 84, "test": 12}
    records = {name: cifar_batch(n, 6, seed, coarse=True) for seed, (name, n) in enumerate(sizes.items(), 10)}
    register("cifar100", cifar100(records), folder)

    register("svhn_train", svhn(random_images(4, seed=21), [10, 1, 2, 9]), folder)
    register("svhn_test", svhn(random_images(9, seed=20), [1] * 9), folder)

    images = {
        f"val_256/Places365_val_{index:08}.jpg": jpeg(image) for index, image in enumerate(random_images(7, 48), 1)
    }
    register("places365_validation", tar(images), folder, 7)
    images = {f"Places/images/{index}.jpg": jpeg(image) for index, image in enumerate(random_images(6, 40))}
    # As tar of macOS writes them: not images.
    hidden = {"Places/images/._0.jpg": b"\0", "Places/list.txt": b"0.jpg\n"}
    register("places365_mos", tar(images | hidden, "w:gz"), folder, 6)

    write_classes("textures", "dtd/images", ("banded", "waffled"), folder)
    write_classes("flower_photos", "flower_photos", ("daisy", "roses", "tulips"), folder)


def write_classes(name: str, root: str, kinds: tuple[str, ...], folder: Path) -> None:
    """Write an archive of class folders with four images each, beside files that are no images."""
    members = {
        f"{root}/{kind}/{kind}_{index:04}.jpg": jpeg(image)
        for kind in kinds
        for index, image in enumerate(random_images(4, 40))
    }
    members |= {f"{root}/LICENSE.txt": b"terms\n", f"{root}/{kinds[-1]}/.directory": b""}
    register(name, tar(members, "w:gz"), folder, 4 * len(kinds))
