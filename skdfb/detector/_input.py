"""What ``fit`` checks of the objects and images it is given, beyond their form, before any training."""

from typing import Any

from skdfb.detector._parts import PartScorers, is_sequence, named_background_scorers
from skdfb.detector._views import BACKGROUND
from skdfb.scorers import activations_needed, check_scorer, scorer_output
from skdfb.scorers._protocol import needs_images, perturbation_of
from skdfb.utils import launched_processes

__all__ = ["check_components", "check_scorer_sizes"]


def check_components(detector: Any) -> None:
    """Refuse parameters of a detector that only a later step would stumble on."""
    if detector.random_state is None and launched_processes() > 1:
        raise ValueError(
            f"random_state=None in each of {launched_processes()} processes that train together, which would hold out "
            "different images; pass an int."
        )
    if detector.foreground_network == "plain" and detector.foreground_pooling == "foreground":
        raise ValueError(
            "foreground_pooling='foreground' wants the dense network's background, which foreground_network='plain' "
            "leaves out; choose pooling over the 'image', or the 'dense' network or 'both'."
        )
    scorers = {"scorer": detector.scorer} | _background_scorers(detector.background_scorer)
    for name, scorer in scorers.items():
        if scorer is not None:
            check_scorer(scorer, name)
            scorer_output(scorer)
            activations_needed(scorer)
            _check_nested_parameters(scorer, name)
        if name != "scorer" and needs_images(scorer):
            asked = "perturbed images" if perturbation_of(scorer) else "activations"
            raise ValueError(
                f"{name}={scorer!r} asks for {asked}, which only scorer= is given; choose a scorer that needs features "
                "and logits alone."
            )
    for name, methods in (("fusion", ("fit", "combine")), ("mask_generator", ("fit_transform",))):
        given = getattr(detector, name)
        missing = [method for method in methods if given is not None and not callable(getattr(given, method, None))]
        if missing or isinstance(given, type):
            raise TypeError(f"{name}={given!r}; an object with the methods {' and '.join(methods)} is wanted.")
    for name in ("fusion", "mask_generator"):
        _check_nested_parameters(getattr(detector, name), name)
    for name in ("classifier_trainer", "dense_trainer"):
        if getattr(detector, name) is not None:
            getattr(detector, name).validate(name)


def _background_scorers(given: Any) -> dict[str, Any]:
    """Return the background scorers by the name that errors call them, the only one or an item of the list."""
    if not is_sequence(given):
        return {"background_scorer": given}
    if isinstance(given, str) or not len(given):
        raise ValueError(f"background_scorer={given!r}; a scorer or a list of at least one is wanted.")
    for member in given:
        if isinstance(member, tuple) and not (len(member) == 2 and isinstance(member[0], str)):
            raise ValueError(f"background_scorer holds {member!r}; scorers, or tuples (name, scorer), are wanted.")
    named = named_background_scorers(given)
    if len(named) < len(given):
        raise ValueError(f"background_scorer gives one name to several scorers, {list(named)}; give each its own.")
    return {f"background_scorer[{place}]": scorer for place, scorer in enumerate(named.values())}


def check_scorer_sizes(scorers: PartScorers, n_features: int, n_classes: int, n_images: int) -> None:
    """Ask the scorers that can tell whether they can be fitted on a network of these sizes."""
    for part in scorers.parts.values():
        if hasattr(part.scorer, "check_sizes"):
            try:
                part.scorer.check_sizes(n_features, 1 if part.view == BACKGROUND else n_classes, n_images)
            except ValueError as error:
                raise ValueError(f"{part.role}={part.scorer!r}: {error}") from None


def _check_nested_parameters(component: Any, name: str) -> None:
    """Refuse parameters of a scikit-learn estimator that its own ``fit`` would refuse, after the training."""
    if hasattr(component, "_parameter_constraints"):
        try:
            component._validate_params()
        except ValueError as error:
            raise type(error)(f"{name}: {error}") from None
