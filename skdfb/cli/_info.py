"""``skdfb info``: what a model is, without running it."""

import os
from datetime import UTC, datetime
from typing import Any

from skdfb.cli._options import Debug, Json, Model
from skdfb.cli._output import file_size, printable, write_json, write_table

__all__ = ["info"]

_LABELS_SHOWN = 12


def info(model: Model, json: Json = False, debug: Debug = False) -> None:
    """Show what a model is: classes, backbone, parts, threshold, sizes, versions. Nothing is run."""
    from skdfb.persistence._describe import describe

    found = describe(model)
    about = os.stat(model)
    written = datetime.fromtimestamp(about.st_mtime, UTC).isoformat(timespec="seconds")
    found |= {"bytes": about.st_size, "written": written}
    if json:
        write_json(found)
        return
    write_table([row for row in _rows(found) if row[1]], title=printable(model))


def _rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    parameters, classes, alpha = found["parameters"], found["classes"], found["parameters"].get("alpha")
    return [
        ("kind", found["class"]),
        ("backbone", str(parameters.get("backbone", ""))),
        ("input", "" if found["image_size"] is None else f"{found['image_size']} x {found['image_size']} pixels"),
        ("classes", "" if classes is None else f"{len(classes)}: {_listed(classes)}"),
        ("images", _images(found)),
        ("parts", ", ".join(f"{name} ({scorer} on {view})" for name, view, scorer in found["parts"])),
        ("fusion", str(parameters.get("fusion") or "")),
        ("alpha", "" if alpha is None else f"{alpha:g}"),
        ("threshold", _threshold(found)),
        ("size", f"{file_size(found['bytes'])}, {found['n_numbers'] / 1e6:.1f} million numbers"),
        ("written", f"{found['written']} (the date of the file)"),
        ("versions", ", ".join(f"{name} {number}" for name, number in found["versions"].items())),
        ("format", str(found["format"])),
    ]


def _listed(classes: list[Any]) -> str:
    more = f", and {len(classes) - _LABELS_SHOWN} more" if len(classes) > _LABELS_SHOWN else ""
    return ", ".join(map(str, classes[:_LABELS_SHOWN])) + more


def _threshold(found: dict[str, Any]) -> str:
    if found["offset"] is not None:
        return f"{found['offset']:.6g}"
    return "not fitted" if found["classes"] is None and "alpha" in found["parameters"] else ""


def _images(found: dict[str, Any]) -> str:
    if found["n_images"] is None:
        return ""
    return f"{found['n_images']} in fit, of which {found['n_held_out']} set the threshold"
