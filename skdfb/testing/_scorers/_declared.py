"""Checks of what a scorer declares or offers: activations, held-out or perturbed images, scores on a device."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from skdfb.testing._scorers._data import Data, StreamedRepresentation, new_images, training_data
from skdfb.testing._scorers._usage import USAGE
from skdfb.testing._shared._demands import demand, demand_same, demand_unchanged, fresh_copy


def check_scorer_streamed_activations(name: str, scorer: Any) -> None:
    """Check that `fit` reads activations batch by batch: a detector never holds those of all images."""
    data, images = training_data(scorer), new_images(scorer)
    whole = data.representation
    # A representation that has everything but activations.
    fields = {field: getattr(whole, field) for field in ("features", "logits", "weight", "bias", "input_perturbation")}
    given = "activations in representation.batches() alone"
    try:
        got = USAGE.result(USAGE.fitted(scorer, Data(StreamedRepresentation(**fields, whole=whole), data.y)), images)
    except Exception as error:
        raise AssertionError(
            f"{name}.fit: expected a fit that reads the activations of each batch, got {type(error).__name__}: "
            f"{error}, given {given}, as a detector supplies them."
        ) from error
    expected = USAGE.result(USAGE.fitted(scorer, data), images)
    demand_same(name, got, expected, given=given, meaning="the scores of all activations at once")


def check_scorer_held_out_images(name: str, scorer: Any) -> None:
    """Check that `fit` accepts held-out images, which a detector passes to scorers that declare them."""
    train, held_out, fresh = training_data(scorer), training_data(scorer, seed=2), fresh_copy(scorer)
    before = USAGE.contents(held_out)
    fresh.fit(*train, held_out=tuple(held_out))
    demand_unchanged(name, "fit", before, USAGE.contents(held_out))
    bad = int((~np.isfinite(USAGE.result(fresh, new_images(scorer)))).sum())
    demand(bad == 0, f"{name}: expected finite scores, got {bad} that are NaN or infinite, given held_out= in fit.")


def check_scorer_perturbation_objective(name: str, scorer: Any) -> None:
    """Check that the objective has a gradient before `fit`, and that each value depends on its own image alone."""
    # A detector perturbs the training images before fit, so the objective works on an unfitted scorer.
    logits = new_images(scorer).logits.clone().requires_grad_()
    values = fresh_copy(scorer).perturbation_objective(logits)
    expected = f"expected a tensor of shape ({len(logits)},)"
    got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
    demand(
        isinstance(values, Tensor) and values.shape == (len(logits),),
        f"{name}.perturbation_objective: {expected}, got {got}, given {len(logits)} images.",
    )
    demand(
        values.requires_grad,
        f"{name}.perturbation_objective: {expected} computed by torch, got one without a gradient, given logits with "
        "one.",
    )
    # (n, K): the gradient of the first value; other rows must not contribute.
    (gradient,) = torch.autograd.grad(values[0], logits)
    demand(
        not gradient[1:].any(),
        f"{name}.perturbation_objective: {expected}, each value from its own row, got one that depends on other rows.",
    )


def check_scorer_scores_on_device(name: str, scorer: Any) -> None:
    """Check that `score_on_device`, which a detector on a GPU calls, gives a tensor with the scores."""
    fitted, images = USAGE.fitted(scorer), new_images(scorer)
    got = fitted.score_on_device(images)
    demand(
        isinstance(got, Tensor) and got.device == images.device,
        f"{name}.score_on_device: expected a tensor on {images.device}, got {type(got).__name__}, given a "
        "representation there.",
    )
    given, meaning = "score_on_device", "the scores of score_samples"
    demand_same(name, got.numpy(force=True), USAGE.result(fitted, images), given=given, meaning=meaning)
