"""The first page of the documentation runs as it is, and ends with a rejected image and its reason."""

import runpy
from pathlib import Path

import pytest
from PIL import Image

from skdfb.datasets import load_photo_crops

SCRIPT = Path(__file__).parents[1] / "docs" / "first_page.py"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Make the folder with ``images/``, one sub-folder per class, and ``new/`` the working directory."""
    data = load_photo_crops(n_train=45, n_test=6, n_ood=2)
    images = {f"images/{label}": data.images[data.target == label] for label in data.target_names}
    images["new"] = [*data.images_test[:2], *data.ood_images["sky"]]
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
    assert all("unlike" in sentence and "resembles" in sentence for sentence in rejected)
    assert (folders / "detector.safetensors").stat().st_size > 0
