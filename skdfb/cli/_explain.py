"""``skdfb explain``: why images are rejected or accepted, in words and as a picture."""

import os
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
    """Say why images are rejected or accepted: one sentence each, and a picture with -o."""
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
    explanation = detector.explain(paths, n_neighbors=neighbors)
    if json:
        write_json(_as_dicts(explanation, outputs))
    else:
        for name, sentence in zip(explanation.names, explanation.sentences, strict=True):
            write(f"{printable(name)}: {sentence}")
    for index, name in enumerate(outputs):
        _draw(detector, explanation, index, name, known)


def _outputs(output: str, n_images: int) -> list[str]:
    """Return the name of the picture of each image."""
    stem, extension = os.path.splitext(output)
    return [output] if n_images == 1 else [f"{stem}-{number}{extension}" for number in range(1, n_images + 1)]


def _as_dicts(explanation: Any, outputs: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "path": explanation.names[index],
            "score": explanation.scores[index],
            "threshold": explanation.offset,
            "alpha": explanation.alpha,
            "p_value": explanation.p_values[index],
            "rejected": bool(explanation.rejected[index]),
            "part_p_values": {name: values[index] for name, values in explanation.part_p_values.items()},
            "deciding_part": explanation.deciding_parts[index],
            "label": explanation.labels[index],
            "runner_up": explanation.runners_up[index],
            "probabilities": explanation.probabilities[index],
            "neighbors": explanation.neighbors[index],
            "neighbor_labels": explanation.neighbor_labels[index],
            "neighbor_distances": explanation.neighbor_distances[index],
            "sentence": explanation.sentences[index],
            "picture": outputs[index] if outputs else None,
        }
        for index in range(len(explanation.names))
    ]


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
