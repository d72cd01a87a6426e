"""``skdfb report``: an evaluation as one HTML file."""

from typing import Annotated

import typer

from skdfb.cli._detectors import load_detector
from skdfb.cli._evaluate import KnownFolder
from skdfb.cli._files import check_extension, check_output
from skdfb.cli._options import Debug, Device, Json, Model, NJobs, Ood, Seed, ood_folders
from skdfb.cli._output import write, write_json

__all__ = ["report"]


def report(
    model: Model,
    known: KnownFolder,
    ood: Ood,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The page to write or replace, *.html.")
    ],
    examples: Annotated[int, typer.Option(min=0, max=50, help="Most images to show of each kind.")] = 6,
    n_jobs: NJobs = None,
    device: Device = "auto",
    seed: Seed = 0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write an evaluation with tables, plots and explained images as one HTML file that needs no network."""
    folders = ood_folders(ood)
    check_extension(output, "an HTML page", (".html", ".htm"))
    check_output(output, replace=True)
    detector = load_detector(model, device, n_jobs)
    from skdfb.reports import write_report

    write_report(detector, known, folders, output, n_examples=examples, random_state=seed)
    if json:
        write_json({"report": output})
    else:
        write(output)
