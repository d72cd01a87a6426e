"""Measure all that has a target for its speed, and keep the figures.

    OMP_NUM_THREADS=1 python benchmarks/all.py                 # about half an hour on a CPU core
    OMP_NUM_THREADS=1 python benchmarks/all.py --repeats 3     # rougher
    python benchmarks/all.py --device cuda                     # the first of the two on a GPU
    python benchmarks/all.py --device cuda --only scoring resnet50
    python benchmarks/all.py --report                          # the newest figures of each machine, without a run
    python benchmarks/all.py --figure docs/_static/streaming.png

Times of the library over those of bare PyTorch code (``overhead.py``), and the cost of an image from a thousand images
to a hundred thousand (``streaming.py``). Each run appends rows to ``benchmarks/results/speed.jsonl``, with the commit,
the machine and the versions.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import overhead
import streaming
import torch

HISTORY = Path(__file__).parent / "results" / "speed.jsonl"
COLUMNS = f"{'':60}{'ratio':>8}{'spread':>8}{'target':>8}"


def measure(repeats: int, sizes: list[int], device: torch.device, only: list[str]) -> Iterator[dict[str, Any]]:
    """Yield a row per comparison of library and bare code; on a CPU also one per source and number of images."""
    for result in overhead.measure_times(repeats, device, only):
        yield {"kind": "ratio", **result._asdict()}
    if device.type == "cpu" and not only:  # the sources are read and scored by the CPU
        for row in streaming.measure(sizes, list(streaming.SOURCES)):
            yield {"kind": "stream", **row}


def growth(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how time and memory per image change from the smallest to the largest number of images."""
    found = []
    for source in dict.fromkeys(row["source"] for row in rows):
        own = sorted((row for row in rows if row["source"] == source), key=lambda row: row["images"])
        for name, target in (("milliseconds", 1.05), ("megabytes", 1.10)):
            what = f"{name} an image" if name == "milliseconds" else f"peak {name}"
            title = f"{what}, {source}: {own[-1]['images']:,} over {own[0]['images']:,}"
            found.append({"name": title, "ratio": own[-1][name] / own[0][name], "target": target})
    return found


def keep(rows: Iterable[dict[str, Any]], device: torch.device) -> None:
    """Append rows to the history, each as soon as it is known."""
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
    for row in rows:
        with HISTORY.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"date": date, "commit": commit(), **overhead.machine(device), **row}) + "\n")


def commit() -> str:
    """Return the commit of the library, with a plus if files were changed since; empty outside of a repository."""
    command = ["git", "describe", "--always", "--exclude=*", "--dirty=+"]
    try:
        found = subprocess.run(command, cwd=HISTORY.parent, capture_output=True, text=True, check=False)
    except OSError:  # there is no git
        return ""
    return found.stdout.strip()


def newest(history: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the newest row of each comparison and source, for each machine."""
    machines: dict[tuple[Any, ...], dict[tuple[Any, ...], dict[str, Any]]] = {}
    for row in history:
        rows = machines.setdefault((row["device"], row["machine"], row["threads"]), {})
        rows[tuple(row.get(key) for key in ("kind", "name", "source", "images"))] = row
    return [list(rows.values()) for rows in machines.values()]


def report(rows: list[dict[str, Any]]) -> None:
    """Print one table of a run."""
    first = max(rows, key=lambda row: str(row["date"]))
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    machine = f"{first['machine']}, {first['device']}, {first['threads']} thread(s)"
    print(f"until {first['date']}, {machine}, {versions}")
    print(COLUMNS)
    streams = [row for row in rows if row["kind"] == "stream"]
    for row in [row for row in rows if row["kind"] == "ratio"] + growth(streams):
        spread = f"{row['spread']:.3f}" if "spread" in row else ""
        missed = "" if row["ratio"] <= row["target"] else "  missed"
        print(f"{row['name']:60}{row['ratio']:>8.3f}{spread:>8}{row['target']:>8.2f}{missed}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.add_argument("--repeats", type=int, default=7, help="timed rounds of library and bare code")
    parser.add_argument("--only", nargs="+", default=[], help="words: a function of overhead.py, and its arguments")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(streaming.SIZES))
    parser.add_argument("--report", action="store_true", help="print the newest figures of each machine, and end")
    parser.add_argument("--figure", help="draw the newest costs of an image, and end")
    arguments = parser.parse_args()
    if not (arguments.report or arguments.figure):
        device = torch.device(arguments.device)
        keep(measure(arguments.repeats, arguments.sizes, device, arguments.only), device)
    history = [json.loads(line) for line in HISTORY.read_text(encoding="utf-8").splitlines()]
    runs = newest(history)
    if arguments.figure:
        *_, streams = ([row for row in rows if row["kind"] == "stream"] for rows in runs if rows[0]["device"] == "cpu")
        streaming.draw(streams, arguments.figure)
        return
    for rows in runs:
        report(rows)
        print()


if __name__ == "__main__":
    main()
