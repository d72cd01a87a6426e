"""``skdfb fit``: from a folder of class folders to a model."""

import os
from typing import Annotated, Any

import typer

from skdfb.cli._detectors import Preset, make_detector
from skdfb.cli._errors import CommandError, interruptible
from skdfb.cli._files import check_output
from skdfb.cli._options import Debug, Device, Force, Json, NJobs, Seed
from skdfb.cli._output import file_size, on_terminal, printable, say, write, write_json

__all__ = ["fit"]


def _checked_alpha(value: float) -> float:
    if not 0 < value < 1:
        raise typer.BadParameter(f"{value:g}: expected a number between 0 and 1, such as 0.05")
    return value


def fit(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="One sub-folder of images per class.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The model to write.")],
    preset: Annotated[
        Preset,
        typer.Option(help="'fast' trains no network, 'balanced' trains two, 'paper' does so by the paper's recipe."),
    ] = Preset.BALANCED,
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="A timm model, such as tf_efficientnet_lite0.")
    ] = None,
    scorer: Annotated[
        str | None, typer.Option(metavar="NAME", help="vim, knn, energy, ...; a wrong name lists them.")
    ] = None,
    alpha: Annotated[
        float, typer.Option(callback=_checked_alpha, help="Largest share of known images to reject.")
    ] = 0.05,
    image_size: Annotated[int | None, typer.Option(min=1, help="Side of the network's input in pixels.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of each training stage.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per step of each training stage, and per pass of the network.")
    ] = None,
    checkpoint_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Keeps the state, so that an interrupted fit goes on.")
    ] = None,
    seed: Seed = 0,
    n_jobs: NJobs = None,
    device: Device = "auto",
    force: Force = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Learn the classes in a folder, and write a model.

    DIR has one sub-folder of images per class. The threshold is set so that at most --alpha of new images of these
    classes are rejected.
    """
    check_output(output, replace=force)
    options = {
        "backbone": backbone,
        "alpha": alpha,
        "image_size": image_size,
        "checkpoint_dir": checkpoint_dir,
        "random_state": seed,
        "n_jobs": n_jobs,
        "device": device,
        "verbose": int(on_terminal()),
    }
    detector = make_detector(preset, scorer, steps, options, batch_size)
    images = _images_of(folder)
    with interruptible(_kept(output, checkpoint_dir)):
        detector.fit(images)
        detector.set_params(verbose=0).save(output)  # the file does not depend on where fit ran
    _show(detector, output, json)


def _images_of(folder: str) -> Any:
    """Return the images of a folder and their classes, and refuse a single class."""
    from skdfb.images import scan_folder

    found = scan_folder(folder, "DIR")
    if found.labels is None:
        say(
            f"warning: {folder!r} has no class folders: its images are sorted into classes by their looks; "
            "put the images of each class into a folder of its own"
        )
    elif len(classes := set(found.labels)) == 1:
        raise CommandError(
            f"{folder!r} has one class folder, {classes.pop()!r}: expected at least 2; add a folder of images per class"
        )
    # Not the path: fit would list the folder again, and warn in the words of Python.
    return found


def _kept(output: str, checkpoint_dir: str | None) -> str:
    if checkpoint_dir is not None:
        return f"{output!r} is not written; the same command goes on from the last checkpoint in {checkpoint_dir!r}"
    return f"{output!r} is not written and nothing is kept; with --checkpoint-dir DIR an interrupted fit goes on"


def _show(detector: Any, output: str, as_json: bool) -> None:
    found = {
        "model": output,
        "bytes": os.path.getsize(output),
        "classes": detector.classes_,
        "n_images": len(detector._labels_),
        "n_held_out": len(detector.calibrator_.scores_),
        "alpha": detector.alpha,
        "threshold": detector.offset_,
    }
    if as_json:
        write_json(found)
        return
    write(
        f"{printable(output)}: {len(found['classes'])} classes, {found['n_images']} images, of which "
        f"{found['n_held_out']} set the threshold for alpha = {detector.alpha:g}; {file_size(found['bytes'])}"
    )
    say(f"next: skdfb score {output} NEW_IMAGES --csv scores.csv")
