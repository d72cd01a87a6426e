"""The first page of the documentation runs as it is, and ends with a rejected image and its reason."""

import runpy
from pathlib import Path

import pytest
from PIL import Image

from skdfb.datasets import load_digits_on_photos

SCRIPT = Path(__file__).parents[1] / "docs" / "first_page.py"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Make the folder with ``images/``, one sub-folder per class, and ``new/`` the working directory."""
    data = load_digits_on_photos(n_train=120, n_test=6, n_ood=6, image_size=64, random_state=0)
    images = {f"images/digit {k}": data.images[data.target == k] for k in range(data.n_classes)}
    images["new"] = [*data.images_test[:2], *data.ood_images["unseen_photo"][:2]]
    for name, pictures in images.items():
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for i, picture in enumerate(pictures):
            Image.fromarray(picture).save(folder / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_first_page_rejects_an_image_with_its_reason(folders, capsys):
    runpy.run_path(str(SCRIPT))
    answers, *sentences = capsys.readouterr().out.strip().splitlines()
    assert "'unknown'" in answers
    rejected = [sentence for sentence in sentences if "rejected (p = " in sentence]
    assert rejected
    assert all("known images" in sentence and "resembles digit" in sentence for sentence in rejected)
    assert (folders / "detector.safetensors").stat().st_size > 0
