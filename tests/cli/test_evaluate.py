"""``skdfb evaluate`` and ``skdfb report``."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer

import skdfb
from skdfb.cli._options import ood_folders
from skdfb.evaluation import evaluate
from tests.cli.conftest import Run


def test_the_table_is_that_of_the_library(run: Run, images: Path, model: Path) -> None:
    arguments = ("evaluate", model, images / "test", "--ood", f"flower={images / 'new'}", "--ood", images / "digits")
    result = run(*arguments)
    folders = {"flower": str(images / "new"), "digits": str(images / "digits")}
    table = evaluate(skdfb.load(model), str(images / "test"), folders, random_state=0)
    assert result.code == 0
    assert result.out.startswith(
        f"12 known images: {table.id_rejected[0]:.1%} rejected, accuracy {table.accuracy[0]:.1%}\n"
    )
    lines = [line.split() for line in result.out.splitlines() if line.split()[:1] in (["flower"], ["digits"])]
    assert [line[0] for line in lines] == ["flower", "digits"]
    assert [float(line[2]) for line in lines] == pytest.approx(table.auroc.tolist(), abs=1e-3)
    found = json.loads(run(*arguments, "--json").out)
    assert [row["ood"] for row in found] == ["flower", "digits"]
    assert [row["auroc"] for row in found] == pytest.approx(table.auroc.tolist())
    assert set(found[0]) == set(table)


def test_folders_by_name() -> None:
    assert ood_folders(["a=x/y", "x/z/", "b=c=d"]) == {"a": "x/y", "z": "x/z/", "b": "c=d"}
    for wrong in (["=x"], ["a="], ["a=x", "a=y"], [""]):
        with pytest.raises(typer.BadParameter):
            ood_folders(wrong)


def test_wrong_usage(run: Run, images: Path, model: Path) -> None:
    assert run("evaluate", model, images / "test").code == 2
    result = run("evaluate", model, images / "test", "--ood", "=x")
    assert result.code == 2
    assert "expected NAME=DIR" in result.error


def test_wrong_folders(run: Run, images: Path, model: Path, tmp_path: Path) -> None:
    result = run("evaluate", model, images / "test", "--ood", f"none={tmp_path}")
    assert result.code == 1
    assert "holds no images" in result.error
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "1.png").write_bytes((images / "new" / "000.png").read_bytes())
    result = run("evaluate", model, tmp_path, "--ood", images / "new")
    assert result.code == 1
    assert result.error.startswith(
        f"ID_DIR is the folder {str(tmp_path)!r} with the class folders 'other', which are not"
    )
    assert result.error.endswith("Images of other classes are OOD: give their folder by --ood.")


# --------------------------------------------------------------- report


def test_a_report(run: Run, images: Path, model: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("an earlier one")
    folders = ("--ood", f"flower={images / 'new'}")
    result = run("report", model, images / "test", *folders, "-o", page, "--examples", 1)
    assert (result.code, result.out) == (0, f"{page}\n")
    assert "flower" in page.read_text()


def test_a_report_gets_the_options(
    run: Run, images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("skdfb.reports.write_report", lambda *given, **options: calls.append((given[1:], options)))
    page = tmp_path / "report.html"
    arguments = ("report", model, images / "test", "--ood", f"flower={images / 'new'}", "-o")
    result = run(*arguments, page, "--examples", 2, "--seed", 5, "--json")
    assert json.loads(result.out) == {"report": str(page)}
    folders = {"flower": str(images / "new")}
    assert calls == [((str(images / "test"), folders, str(page)), {"n_examples": 2, "random_state": 5})]
    # Refused before the model is loaded.
    wrong = run("report", tmp_path / "no-model", *arguments[2:], tmp_path / "report.pdf")
    expected = "expected the name of an HTML page, which ends in .html, .htm"
    assert wrong.error == f"-o {str(tmp_path / 'report.pdf')!r}: {expected}"
    assert "there is no folder" in run(*arguments, tmp_path / "no" / "report.html").error
