"""Arguments and options that several commands share."""

from typing import Annotated

import typer

__all__ = ["Debug", "Device", "Force", "Json", "Model", "NJobs", "Ood", "Seed", "ood_folders"]


def _checked_n_jobs(value: int | None) -> int | None:
    if value == 0:
        raise typer.BadParameter("0: expected a number of threads, such as 4, or -1 for as many as there are cores")
    return value


Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="The model, as written by 'skdfb fit'.", show_default=False)
]
Device = Annotated[str, typer.Option(help="'cpu', 'cuda', ...; 'auto' is the GPU if there is one.")]
NJobs = Annotated[
    int | None,
    typer.Option(callback=_checked_n_jobs, help="Threads that read images; by default 1.", show_default=False),
]
Seed = Annotated[int, typer.Option(min=0, help="Fixes all random choices.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]
Json = Annotated[bool, typer.Option("--json", help="Write the result as JSON, and nothing else, to stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Ood = Annotated[
    list[str],
    typer.Option(
        "--ood",
        metavar="NAME=DIR",
        help="A folder of images of no known class, and its name in the table; can be given several times.",
        show_default=False,
    ),
]


def ood_folders(given: list[str]) -> dict[str, str]:
    """Return folders by name; a folder alone is named by its last part.

    Raises
    ------
    typer.BadParameter
        If a name or a folder is empty, or two folders have one name.
    """
    folders: dict[str, str] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not equals:
            name, folder = text.rstrip("/").rpartition("/")[2], text
        if not name or not folder:
            raise typer.BadParameter(
                f"{text!r}: expected NAME=DIR, such as textures=images/textures", param_hint="--ood"
            )
        if name in folders:
            raise typer.BadParameter(f"the name {name!r} is given twice: expected one per folder", param_hint="--ood")
        folders[name] = folder
    return folders
