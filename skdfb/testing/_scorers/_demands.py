"""How a check fits, scores and complains."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import Tensor

from skdfb.scorers import Representation
from skdfb.testing._scorers._data import Data, Labels, training_data

Scores = NDArray[np.float64]

# float32 rounding of a sum, relative to the largest score.
TOLERANCE = 1e-5


def fresh_copy(scorer: Any) -> Any:
    """Return an unfitted copy with its random states set."""
    fresh = clone(scorer, safe=False)
    if hasattr(fresh, "get_params"):
        seeds = {name: 0 for name in fresh.get_params() if name.split("__")[-1] == "random_state"}
        fresh.set_params(**seeds)
    elif hasattr(fresh, "random_state"):
        fresh.random_state = 0
    return fresh


def fitted_copy(scorer: Any, data: Data | None = None) -> Any:
    """Return a fitted copy; nobody's `fit` needs to return the scorer."""
    fresh = fresh_copy(scorer)
    fresh.fit(*(training_data(scorer) if data is None else data))
    return fresh


def raw_scores(fitted: Any, representation: Representation) -> Any:
    """Return what score_samples gave as an array of its own type."""
    scores = fitted.score_samples(representation)
    return np.asarray(scores.detach().cpu() if isinstance(scores, Tensor) else scores)


def scores_of(fitted: Any, representation: Representation) -> Scores:
    """Return scores in float64."""
    return np.asarray(raw_scores(fitted, representation), dtype=np.float64)


def demand(fulfilled: Any, message: str) -> None:
    """Raise an AssertionError unless fulfilled, under ``python -O`` as well."""
    if not fulfilled:
        raise AssertionError(message)


def demand_same(name: str, got: Scores, wanted: Scores, given: str, meaning: str) -> None:
    """Demand equal scores, to float32 rounding."""
    demand(got.shape == wanted.shape, f"{name} gave scores of shape {got.shape}, {given}; wanted {wanted.shape}.")
    apart, scale = _apart(got, wanted), np.abs(wanted).max()
    demand(
        apart <= TOLERANCE * scale,  # False for NaN
        f"{name} gave scores up to {apart:.3g} apart, {given}; wanted {meaning}, to {TOLERANCE:g} of the largest score "
        f"({scale:.3g}).",
    )


def demand_finite_or_refused(name: str, scorer: Any, data: Data, given: str, *new: Representation) -> None:
    """Demand finite scores of the training images and of new ones, or a ValueError that says something."""
    wanted = "wanted finite scores, or a ValueError with a message that says what cannot be learned from or scored"
    try:
        # A scorer may warn of such data.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = fitted_copy(scorer, data)
            scores = [(scores_of(fitted, images), len(images)) for images in (data.representation, *new)]
    except (np.linalg.LinAlgError, NotFittedError) as error:
        raise AssertionError(f"{name} raised {type(error).__name__}: {error}, given {given}; {wanted}.") from error
    except ValueError as error:
        demand(str(error), f"{name} raised a ValueError without a message, given {given}; {wanted}.")
        return
    except Exception as error:
        raise AssertionError(f"{name} raised {type(error).__name__}: {error}, given {given}; {wanted}.") from error
    for values, n in scores:
        demand(values.shape == (n,), f"{name} gave scores of shape {values.shape}, given {given}; wanted ({n},).")
        bad = int((~np.isfinite(values)).sum())
        demand(bad == 0, f"{name} gave {bad} scores of {n} that are NaN or infinite, given {given}; {wanted}.")


def contents(representation: Representation, y: Labels | None = None) -> dict[str, bytes]:
    """Return the bytes of all arrays by name."""
    tensors = {field: getattr(representation, field) for field in ("features", "logits", "weight", "bias")}
    tensors |= {f"activations[{key!r}]": tensor for key, tensor in (representation.activations or {}).items()}
    found = {field: tensor.numpy(force=True).tobytes() for field, tensor in tensors.items()}
    return found if y is None else found | {"y": y.tobytes()}


def demand_unchanged(name: str, method: str, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
    """Demand that a method left the arrays it was given as they were."""
    changed = [field for field in before if after.get(field) != before[field]]
    demand(
        not changed and len(after) == len(before),
        f"{name}.{method} changed {' and '.join(changed) or 'the activations'} of what it was given; wanted the very "
        "same bytes: work on a copy, such as features.double() or np.array(features, dtype=np.float64).",
    )


def _apart(got: Scores, wanted: Scores) -> float:
    """Return the largest difference; NaN if any is NaN."""
    with np.errstate(invalid="ignore"):
        return float(np.abs(got - wanted).max())


def demand_close(name: str, got: Scores, wanted: Scores, given: str) -> None:
    """Demand scores that rank in the same way, but for near ties."""
    apart, spread = _apart(got, wanted), wanted.std()
    demand(
        apart <= 0.01 * spread + 1e-12 * np.abs(wanted).max(),  # False for NaN
        f"{name} gave scores up to {apart:.3g} apart, {given}; wanted less than a hundredth of the scores' standard "
        f"deviation ({spread:.3g}), so that the ranking stays: compute in float64.",
    )
