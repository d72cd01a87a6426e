"""The sections of a report."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

from skdfb.displays import OODCurveDisplay, ScoreHistogramDisplay, TrainingDisplay
from skdfb.displays._png import as_png
from skdfb.evaluation import Table
from skdfb.metrics import auroc_score
from skdfb.reports._html import Html, data_uri, element, joined, table
from skdfb.reports._sets import Example, Rows, ScoredSet, examples, short_name
from skdfb.reports._verdict import percent, with_interval

__all__ = [
    "curves_section",
    "images_section",
    "numbers_section",
    "parts_section",
    "settings_section",
    "training_section",
]

_AT_ONCE = 5  # OOD sets of one figure
_LONG = 400  # characters of a parameter
_MOST_CLASSES = 40
_PACKAGES = ("skdfb", "torch", "timm", "scikit-learn", "numpy")

_MEANINGS = (
    "Rejected: share of the images that score below the threshold. AUROC: probability that a known image scores higher "
    "than one of the set; 0.5 is chance. FPR95: share of the set that would be accepted if 95 % of the known images "
    "were. AUPR in and out: areas under precision-recall curves, with the known images and with the set as positives. "
    "OSCR: AUROC, with wrongly classified known images counted as errors. Below each number stands its 95 % bootstrap "
    "interval over the choice of the test images; it does not cover another training."
)


def numbers_section(found: Table, known: ScoredSet, unknown: Sequence[ScoredSet]) -> Html:
    """Return the table of :func:`~skdfb.evaluation.evaluate`."""
    rows = [{name: column[row] for name, column in found.items()} for row in range(len(found.ood))]
    head = ["Set", "Images", "Rejected", "AUROC", "FPR95", "AUPR in", "AUPR out", "OSCR"]
    first = ["known images", f"{len(known.rows):,}", _cell(rows[0], "id_rejected", as_percent=True)]
    body = [[*first, *["–"] * 5]]
    for row in rows:
        numbers = [_cell(row, metric) for metric in ("auroc", "fpr95", "aupr_in", "aupr_out", "oscr")]
        body.append([row["ood"], f"{row['n_ood']:,}", _cell(row, "ood_rejected", as_percent=True), *numbers])
    accuracy, interval = with_interval(rows[0], "accuracy", as_percent=True)
    classified = f"Of the known images, {accuracy} get their right class ({interval}), rejected ones included."
    seconds = ", ".join(f"{images.name} {images.seconds:.1f} s" for images in [known, *unknown])
    return _section(
        "Numbers",
        table(head, body),
        element("p", classified) if interval else "",
        element("p", _MEANINGS, class_="soft"),
        element("p", f"Time of scoring: {seconds}.", class_="soft"),
    )


def curves_section(known: ScoredSet, unknown: Sequence[ScoredSet], threshold: float) -> Html:
    """Return histograms and ROC curves, a few OOD sets at a time."""
    figures = []
    for first in range(0, len(unknown), _AT_ONCE):
        some = {images.name: images.scores for images in unknown[first : first + _AT_ONCE]}
        histogram = ScoreHistogramDisplay({known.name: known.scores} | some, threshold)
        curve = OODCurveDisplay(known.scores, some, threshold=threshold if np.isfinite(threshold) else None)
        names = ", ".join(some)
        figures += [
            _figure(histogram, (5.6, 3.9), f"Histograms of the scores of known images and of {names}"),
            _figure(curve, (5.6, 3.9), f"ROC curves of known images against {names}"),
        ]
    return _section("Scores", element("div", *figures, class_="figures"))


def parts_section(known: ScoredSet, unknown: Sequence[ScoredSet]) -> Html:
    """Return what each part of the score tells on its own; nothing for a single part."""
    names = list(known.explanation.part_p_values)
    if len(names) == 1:
        return Html("")
    body = []
    for part in names:
        numbers = [f"{auroc_score(known.p_values(part), images.p_values(part)):.3f}" for images in unknown]
        body.append([part, *numbers, _decided(part, unknown)])
    head = ["Part", *(f"AUROC, {images.name}" for images in unknown), "Decides"]
    text = (
        "AUROC of each part of the score alone. Decides: share of the rejected OOD images in which this part is the "
        "most unusual one."
    )
    return _section("Parts of the score", table(head, body), element("p", text, class_="soft"))


def _decided(part: str, unknown: Sequence[ScoredSet]) -> str:
    """Return in how many rejected OOD images a part is the most unusual one."""
    rejected = [
        name
        for images in unknown
        for name, out in zip(images.explanation.deciding_parts, images.explanation.rejected, strict=True)
        if out and name
    ]
    return percent(rejected.count(part) / len(rejected)) if rejected else "–"


def images_section(detector: Any, known: ScoredSet, unknown: Sequence[ScoredSet], y: Any, n_examples: int) -> Html:
    """Return the images on which the detector is surest, right or wrong."""
    if n_examples == 0:
        return Html("")

    def cards(images: ScoredSet, title: str, chosen: Rows, nothing: str) -> Html:
        labels = y if images is known else None
        shown = [_card(example) for example in examples(detector, images, chosen[:n_examples], labels)]
        if not shown:
            return joined(element("h3", title), element("p", nothing, class_="soft"))
        return joined(
            element("h3", f"{title} ({len(shown)} of {len(chosen):,})"), element("div", *shown, class_="cards")
        )

    rejected, accepted = _surest(known)
    content = [cards(known, "Known images rejected, lowest scores first", rejected, "None is rejected.")]
    if y is not None:
        labels = known.explanation.labels
        wrong = np.array([row for row in accepted if labels[row] != y[row]], dtype=np.intp)
        title = "Known images accepted with a wrong class, highest scores first"
        content.append(cards(known, title, wrong, "There is none."))
    for images in unknown:
        rejected, accepted = _surest(images)
        content += [
            cards(images, f"{images.name}: accepted, highest scores first", accepted, "None is accepted."),
            cards(images, f"{images.name}: rejected, lowest scores first", rejected, "None is rejected."),
        ]
    return _section("Images", *content)


def training_section(detector: Any) -> Html:
    """Return losses and learning rates, if the detector has trained networks."""
    history = {stage: values for stage, values in getattr(detector, "training_history_", {}).items() if values["loss"]}
    if not history:
        return Html("")
    figure = _figure(TrainingDisplay(history), (4.2 * max(len(history), 1.6), 4), "Loss and learning rate per step")
    return _section("Training", element("div", figure, class_="figures"))


def settings_section(detector: Any, when: str) -> Html:
    """Return parameters, what the detector has learned in short, and versions."""
    classes = [str(label) for label in detector.classes_[:_MOST_CLASSES].tolist()]
    more = len(detector.classes_) - len(classes)
    rows: list[list[Any]] = [
        ["threshold", f"{detector.offset_:.6g}"],
        ["set by", f"the scores of {len(detector.joint_score_.calibrator_.scores_):,} held-out images"],
        [f"{len(detector.classes_)} classes", ", ".join(classes) + (f" and {more} more" if more else "")],
        *([f"parameter {name}", _described(value)] for name, value in detector.get_params(deep=False).items()),
        *([name, version] for name, version in _versions()),
        ["written at", when],
    ]
    body = [element("tr", element("th", name, scope="row"), element("td", value)) for name, value in rows]
    settings = element("table", element("tbody", *body), class_="settings")
    return _section("Settings", element("div", settings, class_="scroll", tabindex="0"))


def _versions() -> list[tuple[str, str]]:
    return [("python", platform.python_version()), *((name, importlib.metadata.version(name)) for name in _PACKAGES)]


def _described(value: Any) -> str:
    """Return a parameter as a text, without the folders of a path."""
    is_path = isinstance(value, os.PathLike) or (isinstance(value, str) and os.path.isabs(value))
    text = " ".join((short_name(os.fsdecode(value)) if is_path else repr(value)).split())
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"


def _section(title: str, *content: Any) -> Html:
    return element("section", element("h2", title), *content)


def _cell(row: dict[str, Any], metric: str, *, as_percent: bool = False) -> Html:
    value, interval = with_interval(row, metric, as_percent=as_percent)
    return joined(value, element("span", interval, class_="soft") if interval else "")


def _figure(display: Any, figsize: tuple[float, float], text: str) -> Html:
    """Return a plot, for light and for dark pages."""

    def plot(figure: Any) -> Any:
        return display.plot(ax=figure)

    light, dark = (data_uri(as_png(plot, figsize, dark=dark), "png") for dark in (False, True))
    return element(
        "picture",
        element("source", srcset=dark, media="screen and (prefers-color-scheme: dark)"),
        element("img", src=light, alt=text),
    )


def _card(example: Example) -> Html:
    picture = element("div", "no picture", class_="no-picture")
    if example.picture is not None:
        content, kind = example.picture
        few = "few-pixels" if kind == "png" else None
        picture = element("img", src=data_uri(content, kind), alt=example.name, class_=few)
    texts = [f" Its class: {example.label}." if example.label is not None else ""]
    texts.append(f" Most like: {example.nearest}." if example.nearest is not None else "")
    more = element("span", *texts, class_="soft")
    return element("figure", picture, element("figcaption", element("b", example.name), example.sentence, ".", more))


def _surest(images: ScoredSet) -> tuple[Rows, Rows]:
    """Return the rejected images, lowest scores first, and the accepted ones, highest scores first."""
    order = images.rows[np.argsort(images.scores, kind="stable")]
    out = images.explanation.rejected[order]
    return order[out], order[~out][::-1]
