"""The benchmark of speed: rows are kept with what they depend on, and the report is of the newest run of a machine."""

import importlib
import json
import sys

import pytest

from tests.benchmarks.conftest import BENCHMARKS


@pytest.fixture
def scripts(monkeypatch, tmp_path):

    monkeypatch.syspath_prepend(str(BENCHMARKS))

    found = {name: importlib.import_module(name) for name in ("all", "overhead", "streaming")}
    monkeypatch.setattr(found["all"], "HISTORY", tmp_path / "speed.jsonl")
    yield found
    for name in found:
        sys.modules.pop(name, None)


def stream(images, milliseconds, megabytes):
    return {
        "kind": "stream",
        "source": "folder",
        "images": images,
        "milliseconds": milliseconds,
        "megabytes": megabytes,
    }


def test_a_ratio_is_that_of_the_rounds(scripts, monkeypatch):
    overhead = scripts["overhead"]

    times = iter([0, 0, 2.0, 1.0, 2.2, 1.0, 1.8, 1.0])  # of the warm-up, then of library and bare code in turns
    monkeypatch.setattr(overhead, "synchronised", lambda function, device: next(times))
    result = overhead.compare(overhead.Comparison("a step", 1.5, print, print), 3, overhead.torch.device("cpu"))
    assert result.ratio == 2
    assert result.spread == pytest.approx(0.2)


def test_the_report_is_of_the_newest_run(scripts, capsys, monkeypatch):
    script = scripts["all"]
    device = scripts["overhead"].torch.device("cpu")
    for ratio in (1.2, 1.04):
        monkeypatch.setattr(script.datetime, "datetime", Clock(ratio))
        result = {"kind": "ratio", **scripts["overhead"].Result("a step", 1.05, 1.0, 1.0, ratio, 0.01)._asdict()}
        script.keep([result, stream(1000, 0.5, 100), stream(100_000, 0.6, 101)], device)
    rows = [json.loads(line) for line in script.HISTORY.read_text().splitlines()]
    assert {"torch", "python"} <= set(rows[0]["versions"])
    assert "commit" in rows[0]
    assert [len(run) for run in script.newest(rows)] == [3]
    monkeypatch.setattr("sys.argv", ["all.py", "--report"])
    script.main()
    lines = capsys.readouterr().out.splitlines()
    assert "1.040" in lines[2]
    assert "missed" not in lines[2]
    assert "milliseconds an image, folder: 100,000 over 1,000" in lines[3]
    assert lines[3].endswith("missed")
    assert "1.010" in lines[4]


class Clock:
    def __init__(self, ratio):
        self.ratio = ratio

    def now(self, zone):
        return self

    def strftime(self, form):
        return f"run {self.ratio}"


def test_each_source_gives_all_images(scripts, tmp_path):
    pytest.importorskip("pyarrow")
    streaming = scripts["streaming"]
    for source in streaming.SOURCES:
        (tmp_path / source).mkdir()
        images = streaming.make_source(source, tmp_path / source, 1200)
        n_images = len(list((tmp_path / source).iterdir())) if source == "folder" else len(list(images))
        assert n_images == 1200


def test_a_stream_is_measured_and_drawn(scripts, tmp_path):
    row = scripts["streaming"].measure_once("generator", 300)
    assert 0 < row["milliseconds"] < 100
    rows = [{"source": "generator", "images": n, **row} for n in (300, 600)]
    scripts["streaming"].draw(rows, str(tmp_path / "figure.png"))
    assert (tmp_path / "figure.png").exists()
