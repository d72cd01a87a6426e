"""``skdfb score``: rows as the detector has them, and runs that go on after an interrupt."""

import csv
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import skdfb
from skdfb.cli import _rows, _score
from tests.cli.conftest import Run, write_images


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 4 images."""
    load = _score.load_detector

    def load_detector(*args: Any, **more: Any) -> Any:
        detector = load(*args, **more)
        detector.batch_size = 4
        return detector

    monkeypatch.setattr(_score, "load_detector", load_detector)


def test_rows_are_those_of_the_detector(run: Run, images: Path, model: Path, tmp_path: Path) -> None:
    path, detector = tmp_path / "out.csv", skdfb.load(model)
    result = run("score", model, images / "new", images / "test", "--csv", path)
    rows = rows_of(path)
    names = sorted(map(str, (images / "new").iterdir())) + sorted(map(str, (images / "test").glob("*/*")))
    assert [row["path"] for row in rows] == names
    scores, labels = detector.score_and_classify(names)
    np.testing.assert_allclose([float(row["score"]) for row in rows], scores, rtol=1e-5)
    np.testing.assert_allclose([float(row["p_value"]) for row in rows], detector.joint_score_.p_values(scores))
    accepted = scores >= detector.offset_
    assert [row["verdict"] == "accepted" for row in rows] == accepted.tolist()
    assert [row["label"] for row in rows] == labels.tolist()
    assert {row["error"] for row in rows} == {""}
    assert result.code == 0
    n_rejected = int((~accepted).sum())
    assert f"22 images: {22 - n_rejected} accepted, {n_rejected} rejected (alpha = 0.05), 0 unreadable" in result.out
    # The most surely rejected image comes first.
    lines = [line for line in result.out.splitlines() if ".png" in line]
    order = np.argsort(scores)[: min(20, n_rejected)]
    assert [line.split()[0] for line in lines] == [names[place] for place in order]


def test_without_a_file(run: Run, images: Path, model: Path) -> None:
    one = images / "new" / "000.png"
    result = run("score", model, one, one)
    assert result.out.startswith("1 images: ")


@pytest.mark.usefixtures("small_batches")
def test_json_has_a_line_per_image(run: Run, images: Path, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    first = run("score", model, images / "new", "--csv", path, "--json")
    found = [json.loads(line) for line in first.out.splitlines()]
    assert [entry["path"] for entry in found] == [row["path"] for row in rows_of(path)]
    assert [entry["score"] for entry in found] == [float(row["score"]) for row in rows_of(path)]
    # The images that are in the file already are not left out.
    again = run("score", model, images / "new", "--csv", path, "--json")
    assert again.out == first.out


# --------------------------------------------------------------- going on


def assert_same_rows(path: Path, whole: bytes) -> None:
    """An image scores the same in a batch of another size, up to rounding."""
    found, expected = (list(csv.reader(io.StringIO(os.fsdecode(text)))) for text in (path.read_bytes(), whole))
    assert [[row[0], *row[2:]] for row in found] == [[row[0], *row[2:]] for row in expected]
    np.testing.assert_allclose([float(row[1]) for row in found[1:]], [float(row[1]) for row in expected[1:]], rtol=1e-5)


@pytest.mark.usefixtures("small_batches")
def test_an_interrupted_run_goes_on(
    run: Run, images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, path = tmp_path / "whole.csv", tmp_path / "out.csv"
    unbroken = run("score", model, images / "new", "--csv", whole)
    row, scored = _rows._row, []

    def interrupted(found: Any) -> Any:
        scored.append(found.path)
        if len(scored) == 6:  # in the second batch
            raise KeyboardInterrupt  # not a signal, which a process in the background may ignore
        return row(found)

    monkeypatch.setattr(_rows, "_row", interrupted)
    result = run("score", model, images / "new", "--csv", path)
    assert (result.code, result.out) == (130, "")
    assert result.err.splitlines()[-1] == (
        f"skdfb: interrupted: the rows written so far are in {str(path)!r}; the same command goes on from there"
    )
    assert len(rows_of(path)) == 4
    result = run("score", model, images / "new", "--csv", path)
    assert len(scored) == 6 + 6
    assert_same_rows(path, whole.read_bytes())
    assert result.out == unbroken.out
    assert f"4 of 10 images are in {str(path)!r} already" in result.err


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("n_lost", [1, 7, 60, 10_000])
def test_a_row_that_was_cut_off_is_written_again(
    run: Run, images: Path, model: Path, tmp_path: Path, n_lost: int
) -> None:
    path = tmp_path / "out.csv"
    run("score", model, images / "new", "--csv", path)
    whole = path.read_bytes()
    os.truncate(path, max(10, len(whole) - n_lost))
    result = run("score", model, images / "new", "--csv", path)
    assert result.code == 0
    assert_same_rows(path, whole)


def test_rows_of_another_model_are_kept_apart(run: Run, images: Path, model: Path, tmp_path: Path) -> None:
    path, other = tmp_path / "out.csv", tmp_path / "other.safetensors"
    run("score", model, images / "new", "--csv", path)
    before = path.read_bytes()
    skdfb.load(model).with_alpha(0.2).save(other)
    result = run("score", other, images / "new", "--csv", path)
    assert (result.code, path.read_bytes()) == (1, before)
    assert "holds scores of another model" in result.error
    assert run("score", other, images / "new", "--csv", path, "--force").code == 0
    assert len(rows_of(path)) == 10
    assert {row["model"] for row in rows_of(path)}.isdisjoint({before.decode().splitlines()[1].split(",")[-1]})


@pytest.mark.parametrize("text", ["path;score\n1;2\n", "notes", "path,score,p_value,verdict,label,error,model\na,b\n"])
def test_other_files_are_not_changed(run: Run, images: Path, model: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "notes.csv"
    path.write_text(text)
    result = run("score", model, images / "new", "--csv", path)
    assert (result.code, path.read_text()) == (1, text)
    assert "--force" in result.error


@pytest.mark.usefixtures("small_batches")
def test_names_of_any_kind(run: Run, images: Path, model: Path, tmp_path: Path) -> None:
    folder, path = tmp_path / "odd", tmp_path / "out.csv"
    folder.mkdir()
    names = ["a\nb.png", 'c",d.png', "[red]e[red].png", "\x1b[31mf.png", os.fsdecode(b"g\xff.png"), "ü.png", "= h.png"]
    for name in names:
        shutil.copy(images / "new" / "000.png", folder / name)
    first = run("score", model, folder, "--csv", path)
    assert first.code == 0
    assert "\x1b" not in first.out
    assert "[red]e[red].png" in first.out
    assert "a\\nb.png" in first.out
    assert sorted(row["path"] for row in rows_of(path)) == sorted(str(folder / name) for name in names)
    whole = path.read_bytes()
    os.truncate(path, len(whole) - 3)
    assert run("score", model, folder, "--csv", path, "--json").code == 0
    assert_same_rows(path, whole)
    found = [json.loads(line)["path"] for line in run("score", model, folder, "--csv", path, "--json").out.splitlines()]
    assert found == [row["path"] for row in rows_of(path)]


# --------------------------------------------------------------- what goes wrong


@pytest.mark.usefixtures("small_batches")
def test_unreadable_images_have_a_row_with_the_reason(run: Run, images: Path, model: Path, tmp_path: Path) -> None:
    folder, path = tmp_path / "new", tmp_path / "out.csv"
    shutil.copytree(images / "new", folder)
    broken = [folder / f"{number:03}.png" for number in (1, 4, 5, 6, 7)]  # the second batch, and one more
    for name in broken:
        name.write_bytes(name.read_bytes()[:300])
    result = run("score", model, folder, "--csv", path)
    assert result.code == 0
    assert "5 unreadable" in result.out
    rows = {row["path"]: row for row in rows_of(path)}
    for name in broken:
        row = rows[str(name)]
        assert (row["score"], row["p_value"], row["label"], row["verdict"]) == ("", "", "", "unreadable")
        assert row["error"].startswith("image file is truncated")
    others = [name for name in rows if Path(name) not in broken]
    expected = skdfb.load(model).score_samples(others)
    np.testing.assert_allclose([float(rows[name]["score"]) for name in others], expected, rtol=1e-5)
    # They are kept, too.
    before = path.read_bytes()
    assert run("score", model, folder, "--csv", path).out == result.out
    assert path.read_bytes() == before


def test_no_image_can_be_read(run: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    result = run("score", model, tmp_path / "a.png")
    assert result.code == 1
    assert result.error == "none of 1 images can be read"


def test_images_that_are_not_there(run: Run, images: Path, model: Path, tmp_path: Path) -> None:
    result = run("score", model, images / "new", images / "nothing.png", "--csv", tmp_path / "out.csv")
    assert (result.code, list(tmp_path.iterdir())) == (1, [])
    assert result.error == f"there is no file or folder {str(images / 'nothing.png')!r}"
    assert "holds no images" in run("score", model, tmp_path).error
    write_images(np.zeros((2, 8, 8, 3), np.uint8), tmp_path)
    write_images(np.zeros((2, 8, 8, 3), np.uint8), tmp_path / "inside")
    assert run("score", model, tmp_path).error.endswith("images per class; move either of them to another folder.")


def test_wrong_models(run: Run, images: Path, model: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.safetensors"
    result = run("score", wrong, images / "new")
    assert (result.code, result.error) == (1, f"there is no file {str(wrong)!r}.")
    wrong.write_text("no model")
    result = run("score", wrong, images / "new", "--csv", tmp_path / "out.csv")
    assert result.code == 1
    assert result.error.startswith(f"{str(wrong)!r} cannot be loaded: it is not a complete safetensors file")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(model.read_bytes()[:-100])
    assert "cannot be loaded" in run("score", cut, images / "new").error
    skdfb.save(skdfb.Trainer(), tmp_path / "trainer.safetensors")
    assert (
        "holds a Trainer: expected a detector" in run("score", tmp_path / "trainer.safetensors", images / "new").error
    )
    skdfb.save(skdfb.FrozenDetector(), tmp_path / "unfitted.safetensors")
    assert "is not fitted" in run("score", tmp_path / "unfitted.safetensors", images / "new").error
    assert not (tmp_path / "out.csv").exists()


def test_a_file_that_cannot_be_written(
    run: Run, images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skdfb.cli import _score_file

    def opened(path: str, mode: str) -> Any:
        if "a" in mode:
            raise PermissionError(13, "Permission denied", path)
        return open(path, mode)

    monkeypatch.setattr(_score_file, "open", opened, raising=False)
    result = run("score", model, images / "new", "--csv", tmp_path / "out.csv")
    assert (result.code, result.error) == (1, f"{str(tmp_path / 'out.csv')!r}: Permission denied")
