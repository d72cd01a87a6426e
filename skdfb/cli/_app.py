"""The program: its commands and general options."""

from importlib.metadata import version
from typing import Annotated

import typer

from skdfb.cli._demo import demo
from skdfb.cli._evaluate import evaluate
from skdfb.cli._explain import explain
from skdfb.cli._fit import fit
from skdfb.cli._info import info
from skdfb.cli._output import write
from skdfb.cli._report import report
from skdfb.cli._score import score

__all__ = ["run"]

_COMMANDS = (fit, score, explain, evaluate, report, info, demo)


def run(arguments: list[str]) -> None:
    """Run a command; its errors are raised as they are."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.callback()(_general)
    for command in _COMMANDS:
        app.command()(command)
    program = typer.main.get_command(app)
    # Not by main() of typer, which reports errors itself.
    with program.make_context("skdfb", arguments) as context:
        program.invoke(context)


def _show_version(value: bool) -> None:
    if value:
        write(f"skdfb {version('skdfb')}")
        raise typer.Exit()


def _general(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Find images that are unlike those a classifier knows.

    Begin with a folder that has one sub-folder of images per class: 'skdfb fit images/ -o model.safetensors', then
    'skdfb score model.safetensors new/ --csv scores.csv'. 'skdfb demo' shows all of it on its own images.
    """
