"""Parts of a joint score: triples (name, view, scorer)."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from skdfb.scorers import Representation, check_scorer, scorer_output
from skdfb.scorers._composite import Labelled, check_nested_parameters
from skdfb.scorers._needs import NO_NEEDS, ScorerNeeds, needs_of

__all__ = [
    "BACKGROUND",
    "CLASSIFIER",
    "DENSE",
    "FOREGROUND",
    "NETWORKS",
    "PRETRAINED",
    "Part",
    "as_parts",
    "check_parts",
    "is_view",
    "labelled",
    "split_view",
    "view_needs",
]

# The views that a DFBDetector can supply, beside layers of networks; see JointScore.
CLASSIFIER, DENSE, FOREGROUND, BACKGROUND, PRETRAINED = VIEWS = (
    "classifier",
    "dense",
    "foreground",
    "background",
    "pretrained",
)
NETWORKS = (CLASSIFIER, DENSE, PRETRAINED)  # views that are a whole network, and have layers


class Part(NamedTuple):
    """A scorer, the name of its scores, and the view that it scores."""

    name: str
    view: str
    scorer: Any


def split_view(view: str) -> tuple[str, str]:
    """Return the network and the layer of a view, as ("dense", "blocks.3") of "dense.blocks.3"; the layer may be ""."""
    network, _, layer = view.partition(".")
    return network, layer


def is_view(view: str) -> bool:
    """Return whether a name can be that of a view of a detector; only networks have layers."""
    network, layer = split_view(view)
    return network in (NETWORKS if layer else VIEWS)


def as_parts(parts: Any) -> list[Part]:
    """Return the parts of a list of (name, view, scorer) tuples.

    Raises
    ------
    TypeError, ValueError
        If it is not such a list, or names occur twice.
    """
    expected = "expected a list of tuples (name, view, scorer), like [('foreground', 'dense', ViM())]"
    if isinstance(parts, str) or not isinstance(parts, Sequence):
        raise TypeError(f"parts={parts!r}: {expected}.")
    if not parts:
        raise ValueError(f"parts is empty: {expected}.")
    for part in parts:
        # Tuples only, as in scikit-learn's compositions.
        is_triple = isinstance(part, tuple) and len(part) == 3 and all(isinstance(text, str) for text in part[:2])
        if not is_triple:
            raise TypeError(f"parts holds {part!r}: {expected}.")
    names = [part[0] for part in parts]
    if len(set(names)) < len(names):
        raise ValueError(f"parts has the names {names}: expected a different name for each part.")
    return [Part(*part) for part in parts]


def check_parts(parts: Sequence[Part]) -> None:
    """Refuse scorers that break the protocol, names of another view, and scorers on one view with different inputs."""
    for name, view, scorer in parts:
        _check_name(name, view)
        check_scorer(scorer, f"scorer of part {name!r}")
        # It raises if the scorer declares an output that Eq. 7 does not know.
        scorer_output(scorer)
        check_nested_parameters(scorer, f"part {name!r}")
        bare = view == BACKGROUND or split_view(view)[1]
        if bare and (needs := needs_of(scorer)):
            raise ValueError(
                f"part {name!r} is {scorer!r}, which needs {needs}, but the {view} view has none: choose a scorer "
                "that needs features and logits alone."
            )
    for view in dict.fromkeys(part.view for part in parts):
        _check_same_inputs([part for part in parts if part.view == view])


def _check_name(name: str, view: str) -> None:
    """Refuse a name that belongs to another view: fusions find foreground and background by the name of the part."""
    known = split_view(view)[0] in VIEWS
    is_wrong = name.startswith("foreground" if view == BACKGROUND else "background") and known
    if is_wrong:
        raise ValueError(f"part {name!r} is on the view {view!r}: expected a name that does not contradict the view.")


def _check_same_inputs(parts: Sequence[Part]) -> None:
    """Refuse scorers of one view that need different perturbations: a view is computed from one set of inputs."""
    first, *others = parts
    for other in others:
        if not _same_perturbation(first.scorer, other.scorer):
            raise ValueError(
                f"parts {first.name!r} and {other.name!r} share the view {first.view!r}, but need different input "
                "perturbations: expected scorers of the same input_perturbation and objective on one view; put them "
                "on different views, or leave one out."
            )


def _same_perturbation(one: Any, other: Any) -> bool:
    """Return whether two scorers need the same inputs."""
    magnitudes = [needs_of(scorer).perturbation for scorer in (one, other)]
    if magnitudes[0] != magnitudes[1] or not any(magnitudes):
        return magnitudes[0] == magnitudes[1]
    # Objectives are functions, which cannot be compared: they count as equal if the scorers have the same parameters.
    return type(one) is type(other) and repr(_parameters(one)) == repr(_parameters(other))


def _parameters(scorer: Any) -> Any:
    return scorer.get_params() if hasattr(scorer, "get_params") else vars(scorer)


def view_needs(parts: Sequence[Part], *, training: bool) -> dict[str, ScorerNeeds]:
    """Return what the scorers of each view need.

    With ``training`` only of scorers that learn from images: the others need nothing of training images.
    """
    needs: dict[str, ScorerNeeds] = {}
    # A view is computed once for all of its scorers: activations add up, and perturbations are the same, see above.
    for _, view, scorer in parts:
        skipped = training and not getattr(scorer, "learns_from_images", True)
        own, others = NO_NEEDS if skipped else needs_of(scorer), needs.get(view, NO_NEEDS)
        activations = tuple(dict.fromkeys(others.activations + own.activations))
        perturbed = own if own.perturbation else others
        needs[view] = ScorerNeeds(activations, perturbed.perturbation, perturbed.objective)
    return needs


def labelled(views: Mapping[str, Representation], view: str, y: Any) -> Labelled:
    """Return a view with the class indices of its images; a view with a single logit has a single class."""
    representation = views[view]
    # The background of an image has the one class of its view, not the class of the image.
    one_class = representation.n_classes == 1
    labels: npt.NDArray[np.intp] | None = np.zeros(len(representation), dtype=np.intp) if one_class else y
    return representation, labels
