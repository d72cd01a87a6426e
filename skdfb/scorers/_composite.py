"""Scorers inside of other scorers, and of detectors: anybody's, so fitted and asked with care."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone

from skdfb.scorers._protocol import check_scorer, needs_images, perturbation_of

__all__ = ["Labelled", "check_member", "fitted_clone", "member_scores"]

# One representation, or one a network, and the class of each image as integers 0..K-1, or None.
Labelled = tuple[Any, Any]


def fitted_clone(scorer: Any, train: Labelled, held_out: Labelled | None = None) -> Any:
    """Return a clone fitted on training images, and on held-out ones if it declares ``learns_from_held_out``.

    Anybody's ``fit`` need not return the scorer itself.
    """
    fitted = clone(scorer, safe=False)
    takes_held_out = held_out is not None and getattr(scorer, "learns_from_held_out", False)
    fitted.fit(*train, **({"held_out": held_out} if takes_held_out else {}))
    return fitted


def member_scores(scorer: Any, representation: Any, name: str = "scorer") -> NDArray[np.float64]:
    """Return the scores of a fitted scorer, checked: one number an image."""
    values = scorer.score_samples(representation)
    values = values.detach().cpu() if isinstance(values, torch.Tensor) else values
    scores = np.asarray(values, dtype=np.float64)
    if scores.shape != (len(representation),):
        raise ValueError(
            f"{name}.score_samples returned shape {scores.shape} for {len(representation)} images; (n,) is wanted."
        )
    n_bad = int((~np.isfinite(scores)).sum())
    if n_bad:
        raise ValueError(
            f"{name}.score_samples returned NaN or infinity for {n_bad} of {len(scores)} images; finite scores are "
            "wanted."
        )
    return scores


def check_member(scorer: Any, name: str, n_features: int, n_classes: int, n_images: int) -> None:
    """Refuse an inner scorer that keeps no protocol, asks for more than features and logits, or fits no such sizes."""
    check_scorer(scorer, name)
    if needs_images(scorer):
        asked = "perturbed images" if perturbation_of(scorer) else "activations"
        raise ValueError(
            f"{name}={scorer!r} asks for {asked}, which only a scorer that stands by itself is given; choose one that "
            "needs features and logits alone."
        )
    if hasattr(scorer, "check_sizes"):
        scorer.check_sizes(n_features, n_classes, n_images)
