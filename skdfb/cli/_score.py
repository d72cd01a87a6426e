"""``skdfb score``: scores of new images, as a table and a CSV file."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Annotated, Any

import typer

from skdfb.cli._detectors import load_detector
from skdfb.cli._errors import CommandError, interruptible
from skdfb.cli._files import check_output, image_paths
from skdfb.cli._options import Debug, Device, Force, Json, Model, NJobs
from skdfb.cli._output import on_terminal, say, write, write_json, write_table
from skdfb.cli._rows import ACCEPTED, REJECTED, UNREADABLE, Row, Summary, scored_batches
from skdfb.cli._score_file import ScoreFile, digest_of_file

__all__ = ["score"]


def score(
    model: Model,
    images: Annotated[list[str], typer.Argument(metavar="IMAGES...", help="Folders and files.", show_default=False)],
    csv: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Gets a row per image; after an interrupt the same command goes on."),
    ] = None,
    n_jobs: NJobs = None,
    device: Device = "auto",
    force: Force = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Score new images, and list those that are of no known class.

    A higher score is more like the known classes. The p-value is the share of known images that score as low; at most
    alpha means rejected. The label is the most probable class, also of rejected images. An image that cannot be read
    has a row with the reason. Images that the CSV file has already are not scored again, even if their files have
    changed. With --json there is one JSON object per image, each in its own line.
    """
    paths = image_paths(images)
    if csv is not None:
        check_output(csv, replace=True)
    detector = load_detector(model, device, n_jobs, verbose=0)
    kept = "" if csv is None else f"the rows written so far are in {csv!r}; the same command goes on from there"
    opened = nullcontext(None) if csv is None else ScoreFile(csv, digest_of_file(model), force)
    with interruptible(kept or "nothing is kept; with --csv FILE an interrupted run goes on"), opened as file:
        summary = _run(detector, paths, file, json)
    if not json:
        _show(summary, detector.alpha)
    if summary.counts[UNREADABLE] == summary.n_images:
        raise CommandError(f"none of {summary.n_images} images can be read")


def _run(detector: Any, paths: Sequence[str], file: ScoreFile | None, as_json: bool) -> Summary:
    """Score the images that the file does not have yet, and return the summary of all images."""
    summary, wanted, done = Summary(), set(paths), set()
    for row in [] if file is None else file.rows():
        # The file may have other images, too; and one image twice, if two runs wrote it at once.
        if row.path in wanted and row.path not in done:
            done.add(row.path)
            _add([row], summary, as_json)
    if done:
        say(f"{len(done)} of {len(paths)} images are in {file and file.path!r} already")
    todo = [path for path in paths if path not in done]
    with _bar(len(todo)) as bar:
        for rows in scored_batches(detector, todo):
            if file is not None:
                file.append(rows)
            _add(rows, summary, as_json)
            bar.update(len(rows))
    return summary


def _add(rows: Sequence[Row], summary: Summary, as_json: bool) -> None:
    summary.add(rows)
    if as_json:
        for row in rows:
            write_json(row.to_dict())


def _bar(n_images: int) -> Any:
    from skdfb._progress import progress, progress_bar

    # Not around the scoring, in which each batch would have a bar.
    with progress(int(on_terminal())):
        return progress_bar(n_images, "scoring the images")


def _show(summary: Summary, alpha: float | None) -> None:
    counts, limit = summary.counts, "" if alpha is None else f" (alpha = {alpha:g})"
    write(
        f"{summary.n_images} images: {counts[ACCEPTED]} accepted, {counts[REJECTED]} rejected{limit}, "
        f"{counts[UNREADABLE]} unreadable"
    )
    if summary.surest:
        write_table(
            [(row.path, row.score, row.p_value, row.label) for row in summary.surest],
            ("image", "score", "p-value", "most like"),
            title=_title(len(summary.surest)),
        )


def _title(n_shown: int) -> str:
    return "The most surely rejected image" if n_shown == 1 else f"The {n_shown} most surely rejected images"
