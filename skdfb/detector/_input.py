"""What ``fit`` checks of the objects and images it is given, beyond their form, before any training."""

from typing import Any

from skdfb.detector._forward import needs_images, perturbation_of
from skdfb.scorers import activations_needed, check_scorer, scorer_output

__all__ = ["check_components", "check_scorer_sizes"]


def check_components(detector: Any) -> None:
    """Refuse objects among a detector's parameters that only a later step would stumble on."""
    for name in ("scorer", "background_scorer"):
        if getattr(detector, name) is not None:
            check_scorer(getattr(detector, name), name)
            scorer_output(getattr(detector, name))
            activations_needed(getattr(detector, name))
    if needs_images(detector.background_scorer):
        asked = "perturbed images" if perturbation_of(detector.background_scorer) else "activations"
        raise ValueError(
            f"background_scorer={detector.background_scorer!r} asks for {asked}, which only scorer= is given; choose a "
            "scorer that needs features and logits alone."
        )
    for name, methods in (("fusion", ("fit", "combine")), ("mask_generator", ("fit_transform",))):
        given = getattr(detector, name)
        missing = [method for method in methods if given is not None and not callable(getattr(given, method, None))]
        if missing or isinstance(given, type):
            raise TypeError(f"{name}={given!r}; an object with the methods {' and '.join(methods)} is wanted.")
    for name in ("scorer", "background_scorer", "fusion", "mask_generator"):
        _check_nested_parameters(getattr(detector, name), name)
    for name in ("classifier_trainer", "dense_trainer"):
        if getattr(detector, name) is not None:
            getattr(detector, name).validate(name)


def check_scorer_sizes(scorer: Any, background_scorer: Any, n_features: int, n_classes: int) -> None:
    """Ask the scorers that can tell whether they can be fitted on a network of these sizes."""
    for name, asked, n_logits in (("scorer", scorer, n_classes), ("background_scorer", background_scorer, 1)):
        if hasattr(asked, "check_sizes"):
            try:
                asked.check_sizes(n_features, n_logits)
            except ValueError as error:
                raise ValueError(f"{name}={asked!r}: {error}") from None


def _check_nested_parameters(component: Any, name: str) -> None:
    """Refuse parameters of a scikit-learn estimator that its own ``fit`` would refuse, after the training."""
    if hasattr(component, "_parameter_constraints"):
        try:
            component._validate_params()
        except ValueError as error:
            raise type(error)(f"{name}: {error}") from None
