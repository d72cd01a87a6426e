"""Checks of a fusion's protocol, of what its scores mean, and of the parts that it must refuse."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from skdfb.testing._fusions._usage import NAMES, USAGE, Parts, scaled, standard_scores
from skdfb.testing._shared._demands import demand, demand_method, demand_refusal, demand_same, fresh_copy

# Names beside those of the other checks: too few, others, too many.
_OTHER_NAMES = (("foreground",), ("foreground", "background_other"), ("foreground", "background", "background_other"))
_REFUSED = "a ValueError with a message"


def check_fusion_protocol(name: str, fusion: Any) -> None:
    """Check that the methods exist, and that what is optional has the right type."""
    demand_method(name, fusion, "fit", 1)
    demand_method(name, fusion, "combine", 1)
    learns = getattr(fusion, "learns_from_scores", True)
    demand(isinstance(learns, bool), f"{name}: expected learns_from_scores to be True or False, got {learns!r}.")
    check = getattr(fusion, "check_names", None)
    demand(check is None or callable(check), f"{name}.check_names: expected a method, got {check!r}.")


def check_fusion_monotone(name: str, fusion: Any) -> None:
    """Check that a higher score of a part never lowers the joint score."""
    fitted, parts = USAGE.fitted(fusion), USAGE.new_data(fusion)
    before = USAGE.result(fitted, parts)
    for part, scores in parts.scores.items():
        # Small steps find a wrong sign, large ones a peak beyond the learned scores.
        for step in (0.1, 1, 10, 1000):
            raised = USAGE.result(fitted, Parts({**parts.scores, part: scores + step * scores.std()}))
            # Rounding may lower a joint score that is constant, such as a bounded one.
            lowered = np.flatnonzero(~(raised >= before - 1e-9 * np.abs(before).max()))
            demand(
                lowered.size == 0,
                f"{name}.combine: expected joint scores that never fall where a part rises, got lower ones for "
                f"{lowered.size} of {len(parts)} images, given a {part} raised by {step:g} standard deviations.",
            )


def check_fusion_direction(name: str, fusion: Any) -> None:
    """Check that images with low scores in all parts get lower joint scores than typical ones."""
    fitted, learned = USAGE.fitted(fusion), USAGE.training_data(fusion)
    # A constant passes the check of monotony, so the direction is checked by itself.
    extremes = {part: scores.mean() + np.array([-10, 0]) * scores.std() for part, scores in learned.scores.items()}
    low, typical = USAGE.result(fitted, Parts(extremes))
    demand(
        low < typical,
        f"{name}.combine: expected lower joint scores for images whose parts are all low, got {low:.3g} for low parts "
        f"and {typical:.3g} for parts of the mean.",
    )


def check_fusion_part_order(name: str, fusion: Any) -> None:
    """Check that parts are found by name: the order of the mappings does not matter."""
    learned, parts = USAGE.training_data(fusion), USAGE.new_data(fusion)
    expected = USAGE.result(USAGE.fitted(fusion, learned), parts)
    meaning = "the same joint scores"
    # A fusion may rely on the position in either method.
    got = USAGE.result(USAGE.fitted(fusion, learned), _reversed(parts))
    demand_same(name, got, expected, given="the parts in another order in combine", meaning=meaning)
    got = USAGE.result(USAGE.fitted(fusion, _reversed(learned)), parts)
    demand_same(name, got, expected, given="the parts in another order in fit", meaning=meaning)


def check_fusion_other_names(name: str, fusion: Any) -> None:
    """Check that `combine` refuses parts with other names than those of `fit`."""
    for names in _OTHER_NAMES:
        fitted, parts = USAGE.fitted(fusion), _renamed(USAGE.new_data(fusion), names)
        given = f"the parts {list(names)} after fit on {list(NAMES)}"
        _demand_refused(f"{name}.combine", partial(fitted.combine, parts.scores), given)


def check_fusion_nan(name: str, fusion: Any) -> None:
    """Check that NaN is refused, by `fit` and by `combine`."""
    for part in NAMES:
        given = f"one NaN in {part}"
        learned, parts = _with_nan(USAGE.training_data(fusion), part), _with_nan(USAGE.new_data(fusion), part)
        fresh, fitted = fresh_copy(fusion), USAGE.fitted(fusion)
        # NaN compares false to any threshold: such an image would be rejected without an error.
        _demand_refused(f"{name}.fit", partial(USAGE.fit, fresh, learned), given)
        _demand_refused(f"{name}.combine", partial(fitted.combine, parts.scores), given)


def check_fusion_names(name: str, fusion: Any) -> None:
    """Check that `check_names` accepts the names that `fit` accepts, and no others."""
    try:
        fresh_copy(fusion).check_names(list(NAMES))
    except Exception as error:
        raise AssertionError(
            f"{name}.check_names: expected no error for the names of all checks, got {type(error).__name__}: {error}, "
            f"given {list(NAMES)}."
        ) from error
    for names in (NAMES, *_OTHER_NAMES):
        # Both or neither: a name that only fit refuses costs the training before it.
        learned = _renamed(USAGE.training_data(fusion), names)
        checked = _accepts(partial(fresh_copy(fusion).check_names, list(names)))
        fitted = _accepts(partial(USAGE.fit, fresh_copy(fusion), learned))
        demand(
            checked == fitted,
            f"{name}: expected fit and check_names to accept the same names, got {list(names)} accepted by "
            f"{'check_names' if checked else 'fit'} alone; a detector relies on check_names before hours of training.",
        )


def check_fusion_outputs(name: str, fusion: Any) -> None:
    """Check that `fit` accepts each output kind of the foreground."""
    # The logarithm of the sigmoid, a probability as a scorer may return it.
    log_probability = -np.logaddexp(0, -standard_scores(0, 60).scores["foreground"])
    kinds = {"logit": None, "probability": np.exp(log_probability), "log_probability": log_probability}
    for kind, foreground in kinds.items():
        parts = scaled(standard_scores(0, 60))
        # None keeps the foreground of the other checks, which is a logit.
        if foreground is not None:
            parts = Parts({**parts.scores, "foreground": foreground})
        fresh, expected = fresh_copy(fusion), f"finite scores for a foreground of the output kind {kind!r}"
        try:
            USAGE.fit(fresh, parts, {"foreground": kind})
            bad = int((~np.isfinite(USAGE.result(fresh, parts))).sum())
        except Exception as error:
            raise AssertionError(f"{name}: expected {expected}, got {type(error).__name__}: {error}.") from error
        demand(bad == 0, f"{name}: expected {expected}, got {bad} that are NaN or infinite.")


def check_fusion_learns_nothing(name: str, fusion: Any) -> None:
    """Check that ``learns_from_scores = False`` is true: the scores of `fit` do not matter."""
    parts = USAGE.new_data(fusion)
    got, expected = (USAGE.result(USAGE.fitted(fusion, USAGE.training_data(fusion, seed)), parts) for seed in (2, 0))
    given = "other scores in fit, and learns_from_scores=False"
    demand_same(name, got, expected, given=given, meaning="the same joint scores")


def _reversed(parts: Parts) -> Parts:
    return Parts(dict(reversed(list(parts.scores.items()))))


def _renamed(parts: Parts, names: Sequence[str]) -> Parts:
    """Return parts with other names; the last part fills those that are missing."""
    arrays = list(parts.scores.values())
    return Parts({name: arrays[min(place, len(arrays) - 1)].copy() for place, name in enumerate(names)})


def _with_nan(parts: Parts, part: str) -> Parts:
    scores = parts.scores[part].copy()
    scores[len(scores) // 2] = np.nan
    return Parts({**parts.scores, part: scores})


def _accepts(call: Callable[[], Any]) -> bool:
    try:
        call()
    except ValueError:
        return False
    return True


def _demand_refused(method: str, call: Callable[[], Any], given: str) -> None:
    try:
        call()
    except Exception as error:
        demand_refusal(method, error, given=given, expected=_REFUSED)
        return
    raise AssertionError(f"{method}: expected {_REFUSED}, got no error, given {given}.")
