"""Detectors by the names of presets and scorers, and from files."""

import re
from collections.abc import Callable
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

import typer

from skdfb.cli._errors import CommandError
from skdfb.cli._output import on_terminal

__all__ = ["Preset", "load_detector", "make_detector", "scorer_names"]


class Preset(StrEnum):
    """What is trained."""

    FAST = "fast"
    BALANCED = "balanced"
    PAPER = "paper"


def make_detector(
    preset: Preset, scorer: str | None, steps: int | None, options: dict[str, Any], batch_size: int | None = None
) -> Any:
    """Return a detector that is not fitted.

    Parameters
    ----------
    preset : Preset
        "fast" is ``FrozenDetector()``, "balanced" ``DFBDetector()`` and "paper" ``DFBDetector.paper()``.
    scorer : str or None
        One of :func:`scorer_names`.
    steps : int or None
        Steps of each training stage.
    options : dict
        Parameters of the detector; None leaves its default.
    batch_size : int or None
        Images per batch, of each training stage and of each pass over the images.

    Raises
    ------
    typer.BadParameter
        If an option has no meaning for the preset, or there is no such scorer.
    """
    given = {name: value for name, value in {**options, "batch_size": batch_size}.items() if value is not None}
    if scorer is not None:
        given["scorer"] = _scorer(scorer)
    if preset is Preset.FAST:
        _refuse_training_options(steps, given)
        from skdfb.detector import FrozenDetector

        return FrozenDetector(**given)
    from skdfb.detector import DFBDetector
    from skdfb.training import Trainer

    detector = DFBDetector(**given) if preset is Preset.BALANCED else DFBDetector.paper(**given)
    changed: dict[str, Any] = {} if steps is None else {"max_steps": steps, "max_epochs": None}
    if batch_size is not None:
        changed["batch_size"] = batch_size
    if changed:
        for name in ("classifier_trainer", "dense_trainer"):
            trainer = getattr(detector, name) or Trainer()
            detector.set_params(**{name: trainer.set_params(**changed)})
    return detector


def _refuse_training_options(steps: int | None, given: dict[str, Any]) -> None:
    values = {"--steps": steps, "--checkpoint-dir": given.get("checkpoint_dir")}
    for name, value in values.items():
        if value is not None:
            raise typer.BadParameter(
                "the preset 'fast' trains no network: leave it out, or take --preset balanced", param_hint=name
            )


def load_detector(path: str, device: str = "auto", n_jobs: int | None = None, verbose: int | None = None) -> Any:
    """Return the fitted detector of images in a file; it shows bars on a terminal, unless ``verbose`` is given.

    Raises
    ------
    FileNotFoundError, skdfb.exceptions.InvalidModelError
        If there is no such file, or it is no model.
    CommandError
        If the model is no fitted detector of images.
    """
    from skdfb.detector import DFBDetector, FrozenDetector
    from skdfb.persistence import load

    detector = load(path, device=device)
    if not isinstance(detector, DFBDetector | FrozenDetector):
        raise CommandError(f"{path!r} holds a {type(detector).__name__}: expected a detector of images; run skdfb fit")
    if not hasattr(detector, "joint_score_"):
        raise CommandError(f"{path!r} holds a {type(detector).__name__} that is not fitted: run skdfb fit")
    verbose = int(on_terminal()) if verbose is None else verbose
    return detector.set_params(n_jobs=n_jobs, verbose=verbose)


# ------------------------------------------------------------------ scorers


def scorer_names() -> list[str]:
    """Return the names of the scorers that need no arguments, such as "relative-mahalanobis"."""
    return sorted(_scorers())


def _scorers() -> dict[str, Callable[[], Any]]:
    from skdfb import scorers

    found: dict[str, Callable[[], Any]] = {}
    for name in scorers.__all__:
        cls = getattr(scorers, name)
        # It reads the background's output, which only the part of that name has.
        if not isinstance(cls, type) or cls is scorers.BackgroundLogit:
            continue
        try:
            made = cls()
        except TypeError:  # needs arguments, or is a protocol
            continue
        if isinstance(made, scorers.ForegroundScorer):
            found[_kebab_case(name)] = cls
    return found


def _kebab_case(name: str) -> str:
    """Return "nn-guide" for "NNGuide", "kernel-pca" for "KernelPCA", and "vim" for "ViM"."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[a-z]{3})(?=[A-Z])", "-", name).lower()


def _scorer(name: str) -> Any:
    known = _scorers()
    # The names of the classes and those with other separators are understood, too.
    by_letters = {_letters(key): key for key in known}
    if _letters(name) in by_letters:
        return known[by_letters[_letters(name)]]()
    near = get_close_matches(_letters(name), by_letters, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(by_letters[key] for key in near)}? " if near else ""
    raise typer.BadParameter(
        f"there is no scorer {name!r}: {hint}expected one of {', '.join(sorted(known))}", param_hint="--scorer"
    )


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
