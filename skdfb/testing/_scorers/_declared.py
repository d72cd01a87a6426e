"""Checks of what a scorer asks for: activations, held-out images, perturbed images."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from skdfb.testing._scorers._data import Data, StreamedRepresentation, new_images, training_data
from skdfb.testing._scorers._demands import (
    contents,
    demand,
    demand_same,
    demand_unchanged,
    fitted_copy,
    fresh_copy,
    scores_of,
)


def check_scorer_streamed_activations(name: str, scorer: Any) -> None:
    """Check that `fit` reads activations a batch at a time: they are never there for all images at once."""
    data, images = training_data(scorer), new_images(scorer)
    whole = data.representation
    fields = {field: getattr(whole, field) for field in ("features", "logits", "weight", "bias", "input_perturbation")}
    given = "given activations in representation.batches() alone"
    try:
        got = scores_of(fitted_copy(scorer, Data(StreamedRepresentation(**fields, whole=whole), data.y)), images)
    except Exception as error:
        raise AssertionError(
            f"{name}.fit raised {type(error).__name__}: {error}, {given}, as a detector supplies them; wanted a fit "
            "that reads the activations of each batch."
        ) from error
    demand_same(name, got, scores_of(fitted_copy(scorer, data), images), given, "those of all activations at once")


def check_scorer_held_out_images(name: str, scorer: Any) -> None:
    """Check that `fit` takes held-out images, which a detector gives to who asks for them."""
    (train, y), (held_out, y_held_out), fresh = training_data(scorer), training_data(scorer, seed=2), fresh_copy(scorer)
    before = contents(held_out, y_held_out)
    fresh.fit(train, y, held_out=(held_out, y_held_out))
    demand_unchanged(name, "fit", before, contents(held_out, y_held_out))
    bad = int((~np.isfinite(scores_of(fresh, new_images(scorer)))).sum())
    demand(bad == 0, f"{name} gave {bad} scores that are NaN or infinite, given held_out= in fit; wanted finite ones.")


def check_scorer_perturbation_objective(name: str, scorer: Any) -> None:
    """Check that there is a gradient to follow before `fit`, and each image's own."""
    logits = new_images(scorer).logits.clone().requires_grad_()
    values = fresh_copy(scorer).perturbation_objective(logits)
    wanted = f"wanted a tensor of shape ({len(logits)},)"
    shown = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
    demand(
        isinstance(values, Tensor) and values.shape == (len(logits),),
        f"{name}.perturbation_objective returned {shown}, given {len(logits)} images; {wanted}.",
    )
    demand(
        values.requires_grad,
        f"{name}.perturbation_objective returned no gradient, given logits with one; {wanted} made by torch.",
    )
    (gradient,) = torch.autograd.grad(values[0], logits)
    demand(
        not gradient[1:].any(),
        f"{name}.perturbation_objective of an image depends on other images; {wanted}, each value from its own row.",
    )
