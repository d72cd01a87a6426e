"""Scorers inside other objects: named, fitted and run with care, since they may be third-party objects."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone

from skdfb.scorers._needs import needs_of
from skdfb.scorers._protocol import check_scorer
from skdfb.utils import numbered

__all__ = [
    "Labelled",
    "check_member",
    "check_nested_parameters",
    "checked_scores",
    "fitted_clone",
    "member_scores",
    "named_scorers",
]

# One representation, or one per network, and the class of each image as integers 0..K-1, or None.
Labelled = tuple[Any, Any]


def named_scorers(scorers: Sequence[Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return (name, scorer) pairs of a list of scorers or (name, scorer) tuples.

    A scorer without a name is named after its class, like ``"max_logit"``; names from one class that occurs more than
    once are numbered. Each name gets the prefix unless it has it.
    """
    classes = numbered([_snake_case(type(member).__name__) for member in scorers], "_")
    pairs = [
        member if isinstance(member, tuple) else (name, member) for name, member in zip(classes, scorers, strict=True)
    ]
    root = prefix.rstrip("_")  # "background" itself needs no prefix
    return [(name if name.startswith(root) else f"{prefix}{name}", scorer) for name, scorer in pairs]


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def fitted_clone(scorer: Any, train: Labelled, held_out: Labelled | None = None) -> Any:
    """Return a clone fitted on training images, and on held-out ones if it declares ``learns_from_held_out``."""
    fitted = clone(scorer, safe=False)
    takes_held_out = held_out is not None and getattr(scorer, "learns_from_held_out", False)
    # The result of fit is not used: a third-party fit need not return the scorer itself.
    fitted.fit(*train, **({"held_out": held_out} if takes_held_out else {}))
    return fitted


def member_scores(scorer: Any, representation: Any, name: str = "scorer") -> NDArray[np.float64]:
    """Return the scores of a fitted scorer as float64, after a check: one finite number per image."""
    return checked_scores(scorer.score_samples(representation), len(representation), name)


def checked_scores(values: Any, n_images: int, name: str = "scorer") -> NDArray[np.float64]:
    """Return what a scorer returned for images as float64; raise ValueError if it is not a finite number per image."""
    values = values.detach().cpu() if isinstance(values, torch.Tensor) else values
    scores = np.asarray(values, dtype=np.float64)
    if scores.shape != (n_images,):
        raise ValueError(f"{name} returned shape {scores.shape} for {n_images} images: expected (n,).")
    broken = np.flatnonzero(~np.isfinite(scores))
    if broken.size:
        raise ValueError(
            f"{name} returned NaN or infinity for {broken.size} of {n_images} images, first in row {broken[0]}: "
            "expected finite scores. The features or logits of these images may hold such values or be too large."
        )
    return scores


def check_member(scorer: Any, name: str, n_features: int, n_classes: int, n_images: int) -> None:
    """Refuse an inner scorer that breaks the protocol, needs more than features and logits, or fits no such sizes."""
    check_scorer(scorer, name)
    if needs := needs_of(scorer):
        raise ValueError(
            f"{name}={scorer!r} needs {needs}, which only a scorer that is used on its own gets: choose one that needs "
            "features and logits alone."
        )
    if hasattr(scorer, "check_sizes"):
        scorer.check_sizes(n_features, n_classes, n_images)


def check_nested_parameters(component: Any, name: str) -> None:
    """Refuse parameters of a nested scikit-learn estimator that its own ``fit`` would refuse later."""
    if hasattr(component, "_parameter_constraints"):
        try:
            component._validate_params()
        except ValueError as error:
            raise type(error)(f"{name}: {error}") from None
