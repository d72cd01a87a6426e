"""A folder of images, a model of it, and a way to run commands in this process."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from skdfb.cli import main
from skdfb.datasets import load_digits_on_photos

FAST = ("--preset", "fast", "--backbone", "tf_efficientnet_lite0", "--image-size", "128")


@dataclass
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The error message, which must be one line, and the last one."""
        lines = self.err.splitlines()
        assert sum(line.startswith("skdfb: error: ") for line in lines) == 1
        assert "Traceback" not in self.err
        return lines[-1].removeprefix("skdfb: error: ")


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: Any) -> Result:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Result(code, *capsys.readouterr())

    return run


def write_images(images: Any, folder: Path, labels: Any = None) -> None:
    for number, image in enumerate(images):
        path = (folder if labels is None else folder / f"digit-{labels[number]}") / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 images of six classes in ``known``, others in ``test``, ``new`` and ``digits``; they are shared."""
    root = tmp_path_factory.mktemp("images")
    data = load_digits_on_photos(n_train=200, n_test=12, n_ood=10, random_state=0)
    write_images(data.images, root / "known", data.target)
    write_images(data.images_test, root / "test", data.target_test)
    write_images(data.ood_images["unseen_photo"], root / "new")
    write_images(data.ood_images["unseen_digits"], root / "digits")
    return root


@pytest.fixture(scope="session")
def model(images: Path) -> Path:
    """A model of ``images/known``; it is shared."""
    path = images / "model.safetensors"
    assert main(["fit", str(images / "known"), "-o", str(path), *FAST]) == 0
    return path
