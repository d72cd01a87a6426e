"""``skdfb explain``: why images are rejected or accepted, in words and as a picture."""

import os
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer

from skdfb.cli._detectors import load_detector
from skdfb.cli._errors import CommandError
from skdfb.cli._files import check_extension, check_output, image_paths
from skdfb.cli._options import Debug, Device, Json, Model, NJobs
from skdfb.cli._output import printable, say, write, write_json

__all__ = ["explain"]

# What matplotlib writes without further programs.
_PICTURES = (".png", ".svg", ".pdf", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".eps", ".ps")

# What --json has of an image that can be read.
_COLUMNS: dict[str, Callable[[Any, int], Any]] = {
    "path": lambda why, index: why.names[index],
    "score": lambda why, index: why.scores[index],
    "threshold": lambda why, index: why.offset,
    "alpha": lambda why, index: why.alpha,
    "p_value": lambda why, index: why.p_values[index],
    "rejected": lambda why, index: bool(why.rejected[index]),
    "part_p_values": lambda why, index: {name: values[index] for name, values in why.part_p_values.items()},
    "deciding_part": lambda why, index: why.deciding_parts[index],
    "label": lambda why, index: why.labels[index],
    "runner_up": lambda why, index: why.runners_up[index],
    "probabilities": lambda why, index: why.probabilities[index],
    "neighbors": lambda why, index: why.neighbors[index],
    "neighbor_labels": lambda why, index: why.neighbor_labels[index],
    "neighbor_distances": lambda why, index: why.neighbor_distances[index],
    "sentence": lambda why, index: why.sentences[index],
}


def explain(
    model: Model,
    images: Annotated[list[str], typer.Argument(metavar="IMAGES...", help="Files and folders.", show_default=False)],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="A picture to write or replace, such as why.png; of several, why-1.png, ...",
        ),
    ] = None,
    known: Annotated[
        str | None, typer.Option(metavar="DIR", help="The folder of fit: the picture shows the nearest known images.")
    ] = None,
    neighbors: Annotated[int, typer.Option(min=0, help="Number of nearest known images.")] = 3,
    n_jobs: NJobs = None,
    device: Device = "auto",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say why images are rejected or accepted: one sentence each, and a picture with -o.

    An image that cannot be read is named on stderr, and with --json it has a row with the reason.
    """
    paths = image_paths(images)
    if output is not None:
        check_extension(output, "a picture", _PICTURES)
    outputs = [] if output is None else _outputs(output, len(paths))
    for name in outputs:
        check_output(name, replace=True)
        if os.path.realpath(name) in map(os.path.realpath, paths):
            raise CommandError(f"-o {name!r} would replace an image that is explained: choose another name")
    if known is not None and not os.path.isdir(known):
        raise CommandError(f"there is no folder {known!r}: expected that of fit")
    detector = load_detector(model, device, n_jobs)
    explanation, errors = _explained(detector, paths, neighbors)
    for index in errors:
        say(f"warning: {errors[index]}")
    readable = [index for index in range(len(paths)) if index not in errors]
    if json:
        write_json([_row(explanation, errors, paths, index, outputs) for index in range(len(paths))])
    else:
        for index in readable:
            write(f"{printable(paths[index])}: {explanation.sentences[index]}")
    for index in readable if outputs else []:
        _draw(detector, explanation, index, outputs[index], known)
    if not readable:
        raise CommandError(f"none of {len(paths)} images can be read")


def _outputs(output: str, n_images: int) -> list[str]:
    """Return the name of the picture of each image."""
    stem, extension = os.path.splitext(output)
    return [output] if n_images == 1 else [f"{stem}-{number}{extension}" for number in range(1, n_images + 1)]


def _explained(detector: Any, paths: list[str], n_neighbors: int) -> tuple[Any, dict[int, str]]:
    """Return the explanation, and the reason of each image that cannot be read by its place."""
    from skdfb.exceptions import UnreadableImageError, UnreadableImageWarning
    from skdfb.images import LenientImages, check_images

    images = check_images(detector, paths, reset=False, lenient=True)
    assert isinstance(images, LenientImages)
    explanation = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnreadableImageWarning)  # each is named
            explanation = detector.explain(images, n_neighbors=n_neighbors)
    except UnreadableImageError:
        if len(images.errors) < len(paths):
            raise
    return explanation, {index: str(images.errors[index]) for index in sorted(images.errors)}


def _row(explanation: Any, errors: dict[int, str], paths: list[str], index: int, outputs: list[str]) -> dict[str, Any]:
    if index in errors:
        return dict.fromkeys([*_COLUMNS, "picture"]) | {"path": paths[index], "error": errors[index]}
    values = {name: read(explanation, index) for name, read in _COLUMNS.items()}
    return values | {"picture": outputs[index] if outputs else None, "error": ""}


def _draw(detector: Any, explanation: Any, index: int, output: str, known: str | None) -> None:
    from skdfb.displays import RejectionDisplay

    path = explanation.names[index]
    # One image at a time: the maps of all would fill the memory.
    segmentation = detector.segment([path])[0] if hasattr(detector, "segment") else None
    # A model names known images by their path below the folder of fit.
    nearest = None if known is None else [_known_image(known, name) for name in explanation.neighbors[index]]
    display = RejectionDisplay.from_explanation(
        explanation, index, image=path, segmentation=segmentation, neighbor_images=nearest
    )
    display.figure_.savefig(output, bbox_inches="tight", dpi=150)
    display.figure_.clear()
    say(f"picture: {output}")


def _known_image(folder: str, name: str) -> str:
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        raise CommandError(
            f"--known {folder!r} holds no {name!r}, one of the nearest known images: expected the folder of fit"
        )
    return path
