"""What ``fit`` checks of the objects and images it is given, beyond their form, before any training."""

from typing import Any

from joblib import Parallel, delayed

from skdfb.detector._forward import perturbation_of
from skdfb.networks import DenseClassifier
from skdfb.scorers import check_scorer, scorer_output
from skdfb.utils import Images, Indices, sequential_batches

__all__ = ["check_components", "check_readable"]


def check_components(detector: Any) -> None:
    """Refuse objects among a detector's parameters that only a later step would stumble on."""
    for name in ("scorer", "background_scorer"):
        if getattr(detector, name) is not None:
            check_scorer(getattr(detector, name), name)
            scorer_output(getattr(detector, name))
    if perturbation_of(detector.background_scorer):
        raise ValueError(
            f"background_scorer={detector.background_scorer!r} asks for perturbed images, which only scorer= is given; "
            "set its input_perturbation to 0, or choose another."
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
    _check_backbone(detector)


def _check_backbone(detector: Any) -> None:
    """Refuse settings of the input that a network handed in has made already."""
    network = detector.backbone
    if not isinstance(network, DenseClassifier):
        return
    own = network.preprocessor.image_size
    if detector.image_size not in (None, own):
        raise ValueError(
            f"image_size={detector.image_size}, but the DenseClassifier given as backbone was made for {own}; leave "
            "image_size=None, or make the network with the size wanted."
        )


def _check_nested_parameters(component: Any, name: str) -> None:
    """Refuse parameters of a scikit-learn estimator that its own ``fit`` would refuse, after the training."""
    if hasattr(component, "_parameter_constraints"):
        try:
            component._validate_params()
        except ValueError as error:
            raise type(error)(f"{name}: {error}") from None


def check_readable(images: Images, batch_size: int, n_jobs: int | None) -> None:
    """Read each image once, so that a cut file is found before the training; arrays have been checked already."""
    if images.size is not None:
        return

    def read(indices: Indices) -> None:
        images.read(indices)

    batches = sequential_batches(len(images), batch_size)
    Parallel(n_jobs=n_jobs, prefer="threads")(delayed(read)(indices) for indices in batches)
