"""What ``fit`` checks of its parameters, and how they become the parts of a joint score."""

from collections.abc import Sequence
from typing import Any

from skdfb.fusion import Fusion
from skdfb.networks._timm import check_weights
from skdfb.scorers import BackgroundLogit, Mahalanobis
from skdfb.scorers._composite import check_nested_parameters, named_scorers
from skdfb.scoring import JointScore
from skdfb.scoring._parts import BACKGROUND, DENSE, VIEWS, Part, is_view
from skdfb.training._stages import check_dense_start

__all__ = ["check_components", "make_joint_score", "named_parts"]


def make_joint_score(
    scorer: Any, background_scorer: Any, fusion: Fusion | None, alpha: float | None, more: Sequence[Part] = ()
) -> JointScore:
    """Return the unfitted joint score that a detector's parameters describe.

    A single foreground scorer is joined by the parts ``more``, which then replace the default background scorers. Both
    stay as they are if the fusion takes no further parts.

    Raises
    ------
    TypeError, ValueError
        If they do not describe one.
    """
    parts = named_parts(scorer, _default_background(background_scorer))
    if more and not _is_list(scorer):
        background = named_parts(scorer, [] if background_scorer is None else background_scorer)[1:]
        joined = [parts[0], *more, *background]
        parts = joined if _joins(fusion, joined) else parts
    joint_score = JointScore([tuple(part) for part in parts], fusion=fusion, alpha=alpha)
    joint_score.check_parameters()
    # A joint score takes any names of views, a detector computes only these.
    unknown = [part for part in parts if not is_view(part.view)]
    if unknown:
        raise ValueError(
            f"part {unknown[0].name!r} is on the view {unknown[0].view!r}: expected one of {list(VIEWS)}, or a "
            "layer of a network, like 'dense.layer3'."
        )
    return joint_score


def _joins(fusion: Any, parts: Sequence[Part]) -> bool:
    """Return whether a fusion can join these parts; Eq. 7 joins two."""
    try:
        getattr(fusion, "check_names", list)([part.name for part in parts])
    except ValueError:
        return False
    return True


def _default_background(background_scorer: Any) -> Any:
    """Return the background scorers, or those that measured best by default."""
    return [BackgroundLogit(), Mahalanobis(shrinkage="auto")] if background_scorer is None else background_scorer


def named_parts(scorer: Any, background_scorer: Any) -> list[Part]:
    """Return the parts of one or several foreground scorers and of one or several background scorers.

    A single foreground scorer is the part ``"foreground"`` on the dense network's view; several come as (name, view,
    scorer). A single background scorer is ``"background"``. Each of several is named after its class, like
    ``"background_mahalanobis"``, or by its tuple (name, scorer), with "background_" before the name if it lacks it.
    """
    parts = _foreground_parts(scorer) if _is_list(scorer) else [Part("foreground", DENSE, scorer)]
    if not _is_list(background_scorer):
        return [*parts, Part("background", BACKGROUND, background_scorer)]
    # Tuples that name a view are for ``scorer``: background scorers have one view.
    for member in background_scorer:
        if isinstance(member, tuple) and not (len(member) == 2 and isinstance(member[0], str)):
            raise ValueError(f"background_scorer holds {member!r}: expected scorers, or tuples (name, scorer).")
    return parts + [Part(name, BACKGROUND, member) for name, member in named_scorers(background_scorer, "background_")]


def _foreground_parts(scorer: Sequence[Any]) -> list[Part]:
    for member in scorer:
        is_triple = isinstance(member, tuple) and len(member) == 3 and all(isinstance(text, str) for text in member[:2])
        if not is_triple:
            raise ValueError(
                f"scorer holds {member!r}: expected tuples (name, view, scorer), like ('foreground', 'dense', ViM())."
            )
    return [Part(*member) for member in scorer]


def _is_list(scorers: Any) -> bool:
    # Not a string, so that the error for it is that of a single scorer.
    return isinstance(scorers, Sequence) and not isinstance(scorers, str)


def check_components(detector: Any) -> None:
    """Refuse parameters of a detector that would only fail in a later step."""
    # The masks come after the first training, the trainer of the dense network after the masks.
    generator = detector.mask_generator
    has_method = callable(getattr(generator, "fit_transform", None))
    if generator is not None and (isinstance(generator, type) or not has_method):
        raise TypeError(f"mask_generator={generator!r}: expected an object with the method fit_transform.")
    check_nested_parameters(generator, "mask_generator")
    for name in ("classifier_trainer", "dense_trainer"):
        if getattr(detector, name) is not None:
            getattr(detector, name).validate(name)
    check_dense_start(detector.backbone, detector.dense_trainer)
    # Before the images are read, which takes minutes for many files.
    check_weights(detector.backbone)
