"""Why an image was rejected or accepted, in one sentence that follows from the numbers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from skdfb.images import shown
from skdfb.scoring._parts import BACKGROUND, CLASSIFIER, DENSE, FOREGROUND, PRETRAINED, VIEWS, split_view

__all__ = ["Finding", "sentence"]

# What is unusual without an alpha.
_USUAL_ALPHA = 0.05
# An image is called usual if at least this share of the known images is as unusual.
_USUAL = 0.2
# A second class is named if its probability is at least this share of that of the first one.
_CLOSE = 0.5
_MOST_SHOWN = 60  # characters of a label

_OBJECT = "the object is unlike the objects of the known classes"
_WORDS = {
    FOREGROUND: _OBJECT,
    DENSE: _OBJECT,
    BACKGROUND: "the background is unlike that of the known images",
    PRETRAINED: "the image as a whole is unlike the known images",
    CLASSIFIER: "the image is unlike the images of the known classes",
}


@dataclass(frozen=True)
class Finding:
    """What is known of one image; the parameters are those of :class:`Explanation`, of this image alone.

    ``n_held_out`` is the number of held-out images that the numbers were learned from; 0 if it is not known.
    """

    p_value: float
    alpha: float | None
    rejected: bool
    part_p_values: Mapping[str, float]
    views: Mapping[str, str]
    deciding_part: str
    classes: tuple[Any, ...]
    probabilities: tuple[float, ...]
    n_held_out: int = 0


def sentence(finding: Finding) -> str:
    """Return the sentence of an image."""
    if math.isnan(finding.p_value):
        return "not scored: the file cannot be read"
    return f"{_verdict(finding)}: {_reason(finding)}; {_resemblance(finding)}"


def _verdict(finding: Finding) -> str:
    p = f"p = {finding.p_value:.2g}"
    # Rounded, it may seem to lie on the other side of alpha.
    if finding.alpha is not None and (float(p[4:]) <= finding.alpha) != (finding.p_value <= finding.alpha):
        p = f"p = {finding.p_value:.6g}"
    if finding.alpha is None:
        return f"no verdict, since alpha is None ({p})"
    return f"{'rejected' if finding.rejected else 'accepted'} ({p})"


def _reason(finding: Finding) -> str:
    """Tell what is unusual, or that nothing is."""
    name, alpha = finding.deciding_part, _USUAL_ALPHA if finding.alpha is None else finding.alpha
    p = finding.part_p_values[name]
    # Without an alpha there is no verdict, but the image as a whole may be unusual all the same.
    unusual = finding.rejected if finding.alpha is not None else finding.p_value <= alpha
    little = "not clearly unusual" if finding.alpha is None else "not unusual enough to reject"
    if p <= alpha:
        # The tail is continued below the lowest held-out score, but n images cannot show that a share is below 1 / n.
        least = 1 / (finding.n_held_out + 1) if finding.n_held_out else 0.0
        reason = _unusual(name, finding.views.get(name, ""), max(p, least))
        together = "usual" if finding.p_value >= _USUAL else little
        return reason if unusual else f"{reason}, but the parts together are {together}"
    if unusual:
        return f"several parts together are unusual, though none alone is; the lowest is {name!r} (p = {p:.2g})"
    if min(p, finding.p_value) < _USUAL:
        return little
    return "nothing is unusual" if len(finding.part_p_values) == 1 else "no part is unusual"


def _unusual(name: str, view: str, p: float) -> str:
    """Tell which part is unusual, and how much."""
    share = _share(p)
    # Parts of the detectors have the name of their view; for others, their own name says most.
    network, layer = split_view(view)
    if network not in _WORDS or not name.startswith((*VIEWS, f"{DENSE}_")):
        return f"part {shown(name, _MOST_SHOWN)} is lower than for {share} of the known images"
    words = _WORDS[PRETRAINED if layer or name.startswith(PRETRAINED) else network]
    return f"{words} (more unusual than {share} of them)"


def _share(p: float) -> str:
    """Return which share of the known images is more usual, rounded down: a sentence must not say more than p."""
    share = 1 - p
    if share > 0.999:
        return "99.9 %"
    return f"{math.floor(1000 * share + 1e-9) / 10:g} %"


def _resemblance(finding: Finding) -> str:
    first, *others = map(_named, finding.classes)
    close = others and finding.probabilities[1] >= _CLOSE * finding.probabilities[0]
    return f"the image resembles {first}" + (f", or {others[0]}" if close else "")


def _named(label: Any) -> str:
    """Return a class in words."""
    if isinstance(label, Enum):
        return label.name
    # A text in one line, as it is, if it has nothing but printable characters.
    if isinstance(label, str):
        return label if label.isprintable() and 0 < len(label) <= _MOST_SHOWN else shown(str(label), _MOST_SHOWN)
    return f"class {shown(label, _MOST_SHOWN)}"
