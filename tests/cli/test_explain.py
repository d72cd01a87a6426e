"""``skdfb explain``: the sentences of the detector, and pictures."""

import json
from pathlib import Path

import pytest
from PIL import Image

import skdfb
from tests.cli.conftest import Run


def test_sentences_and_a_picture(run: Run, images: Path, model: Path, tmp_path: Path) -> None:
    image, picture = images / "new" / "000.png", tmp_path / "why.png"
    result = run("explain", model, image, "-o", picture, "--known", images / "known")
    assert result.code == 0
    assert result.out == f"{image}: {skdfb.load(model).explain([str(image)]).sentences[0]}\n"
    with Image.open(picture) as opened:
        assert min(opened.size) > 300
    before = image.read_bytes()
    wrong = run("explain", tmp_path / "no-model", image, "-o", tmp_path / "why.txt")
    assert (wrong.code, wrong.out) == (1, "")
    assert (
        f"-o {str(tmp_path / 'why.txt')!r}: expected the name of a picture, which ends in .png, .svg, .pdf"
        in wrong.error
    )
    again = run("explain", model, image, "-o", image)
    assert (again.code, again.out, image.read_bytes()) == (1, "", before)
    assert "would replace an image" in again.error


def test_several_images_have_numbered_pictures(run: Run, images: Path, model: Path, tmp_path: Path) -> None:
    paths = [images / "new" / "000.png", images / "new" / "001.png"]
    result = run("explain", model, *paths, "-o", tmp_path / "why.png", "--json", "--neighbors", 2)
    found = json.loads(result.out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["why-1.png", "why-2.png"]
    assert [entry["picture"] for entry in found] == [str(tmp_path / "why-1.png"), str(tmp_path / "why-2.png")]
    expected = skdfb.load(model).explain([str(path) for path in paths], n_neighbors=2)
    assert [entry["path"] for entry in found] == expected.names
    assert [entry["score"] for entry in found] == pytest.approx(expected.scores)
    assert [entry["neighbors"] for entry in found] == expected.neighbors
    assert [entry["sentence"] for entry in found] == expected.sentences
    assert all(isinstance(entry["rejected"], bool) for entry in found)


def test_wrong_folders_and_images(run: Run, images: Path, model: Path, tmp_path: Path) -> None:
    image = images / "new" / "000.png"
    assert "there is no folder" in run("explain", model, image, "--known", tmp_path / "no").error
    result = run("explain", model, image, "-o", tmp_path / "why.png", "--known", images / "new")
    assert result.code == 1
    assert "one of the nearest known images: expected the folder of fit" in result.error
    assert run("explain", model).code == 2


def test_an_unreadable_image_has_the_reason(run: Run, images: Path, model: Path, tmp_path: Path) -> None:
    good, broken = images / "new" / "000.png", tmp_path / "broken.png"
    broken.write_bytes(good.read_bytes()[:300])
    alone = run("explain", model, good)
    result = run("explain", model, broken, good, "-o", tmp_path / "why.png")
    assert (result.code, result.out) == (0, alone.out)
    assert f"skdfb: warning: image 0 cannot be read: file {str(broken)!r}" in result.err
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["broken.png", "why-2.png"]
    first, second = json.loads(run("explain", model, broken, good, "--json").out)
    assert set(first) == set(second)
    assert (first["path"], second["path"]) == (str(broken), str(good))
    assert str(broken) in first["error"]
    assert all(first[key] is None for key in set(first) - {"path", "error"})
    assert (second["error"], second["sentence"]) == ("", alone.out.removeprefix(f"{good}: ").rstrip())


def test_no_image_can_be_read(run: Run, model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    result = run("explain", model, broken, "-o", tmp_path / "why.png", "--json")
    assert result.code == 1
    assert result.error == "none of 1 images can be read"
    assert [row["path"] for row in json.loads(result.out)] == [str(broken)]
    assert not (tmp_path / "why.png").exists()
