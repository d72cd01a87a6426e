"""The plain classifier against DFB, with several scorers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from skdfb.detector import DFBDetector
from skdfb.evaluation._detectors import checked_labels
from skdfb.evaluation._table import Table, check_ood, metric_values
from skdfb.images import labels_given
from skdfb.scorers import MSP, ODIN, Energy, ForegroundScorer, MaxLogit, Representation, ViM, check_scorer
from skdfb.scoring import JointScore
from skdfb.scoring._parts import BACKGROUND, CLASSIFIER, DENSE
from skdfb.utils import numbered

__all__ = ["class_accuracy", "compare_scorers", "format_comparison"]

_ID = "in-distribution"  # key of that image set; keys of OOD sets are tuples, so that an OOD set may have any name


def compare_scorers(
    detector: DFBDetector,
    X_id: Any,
    ood: Mapping[str, Any],
    *,
    X: Any,
    y: Any,
    scorers: Sequence[ForegroundScorer] | None = None,
) -> Table:
    """Compare scorers on the plain classifier and in DFB, on each OOD set.

    Nothing is trained. Both networks run over each set once, training images included, and once more for each scorer
    that needs perturbed images or activations.

    Parameters
    ----------
    detector : DFBDetector
        Fitted. It is not changed.
    X_id : images
        Test images of the known classes.
    ood : mapping of str to images
        OOD test images by name.
    X : images
        The images of the detector's ``fit``, in the same order. Scorers are fitted on them.
    y : array-like of shape (n,)
        The labels of ``fit``.
    scorers : sequence of ForegroundScorer, default=None
        None is ``MSP``, ``MaxLogit``, ``ODIN``, ``Energy`` and ``ViM``. If several scorers are of one class, their
        labels have their parameters.

    Returns
    -------
    table : Table
        A row for each scorer, method and OOD set, with the columns

        - ``scorer``: label of the scorer;
        - ``method``: ``"plain"`` is the scorer on the classifier of K classes, ``"dfb"`` the detector's joint score
          with this scorer on all foreground views, ``"background"`` the background parts of that score alone;
        - ``ood``: name of the OOD set;
        - ``auroc``, ``aupr_in``, ``aupr_out``, ``fpr95``: fractions, see :mod:`skdfb.metrics`; in-distribution is the
          positive class, except for ``aupr_out``.

    Raises
    ------
    TypeError
        If `ood` is not a mapping or is empty, or `scorers` is not a list of scorers.
    ValueError
        If `X` and `y` are not those of ``fit``, or a scorer cannot be fitted on them.

    See Also
    --------
    format_comparison : The table as a wide text.

    Notes
    -----
    The plain classifier is the network of stage 1. The dense network starts from it by default, so it has trained for
    the steps of both stages.

    Examples
    --------
    >>> from skdfb import DFBDetector, Trainer
    >>> from skdfb.datasets import load_digits_on_photos
    >>> from skdfb.evaluation import compare_scorers
    >>> from skdfb.networks import create_backbone
    >>> from skdfb.scorers import Energy, ViM
    >>> data = load_digits_on_photos(n_train=400, n_test=20, n_ood=20, random_state=0)
    >>> backbone = create_backbone("test_resnet", pretrained=False, output_stride=8)
    >>> trainer = Trainer(max_steps=3, batch_size=32)  # far too few, only to keep the example short
    >>> detector = DFBDetector(
    ...     backbone, scorer=Energy(), classifier_trainer=trainer, dense_trainer=trainer, image_size=32, random_state=0
    ... ).fit(data.images, data.target)
    >>> table = compare_scorers(
    ...     detector, data.images_test, data.ood_images, X=data.images, y=data.target, scorers=[Energy()]
    ... )
    >>> len(table.auroc)  # 1 scorer, 3 methods, 4 OOD sets
    12
    """
    check_is_fitted(detector)
    scorers = [MSP(), MaxLogit(), ODIN(), Energy(), ViM()] if scorers is None else scorers
    check_ood(ood)
    check_scorers(scorers)
    image_sets: dict[Any, Any] = {_ID: X_id} | {(name,): images for name, images in ood.items()}
    rows = []
    for label, method, scores in _all_scores(detector, _labelled(scorers), image_sets, X, y):
        for name in ood:
            values = metric_values(scores[_ID], scores[(name,)])
            rows.append({"scorer": label, "method": method, "ood": name} | values)
    return Table.from_rows(rows)


def check_scorers(scorers: Any) -> None:
    """Refuse anything but a list of scorers."""
    if not isinstance(scorers, Sequence) or isinstance(scorers, str) or not scorers:
        raise TypeError(f"scorers={scorers!r}: expected a list of scorers, like [MSP(), ViM()].")
    for place, scorer in enumerate(scorers):
        check_scorer(scorer, f"scorers[{place}]")


def _labelled(scorers: Sequence[Any]) -> dict[str, Any]:
    """Return scorers by their label: the class, with parameters if two share a class, with a number if these are equal.

    The labels are different from each other.
    """
    names = [type(scorer).__name__ for scorer in scorers]
    names = [name if names.count(name) == 1 else repr(scorer) for name, scorer in zip(names, scorers, strict=True)]
    return dict(zip(numbered(names, " #"), scorers, strict=True))


# The scores of each image set by its key.
SetScores = dict[Any, npt.NDArray[np.float64]]


def _all_scores(
    detector: DFBDetector, scorers: Mapping[str, Any], image_sets: Mapping[Any, Any], X: Any, y: Any
) -> Iterator[tuple[str, str, SetScores]]:
    """Yield the label of each scorer, the method, and its scores of each image set."""
    shared: _Views | None = None
    for label, scorer in scorers.items():
        dfb = detector.joint_score_.with_foreground(scorer)
        # With the same alpha, a scorer that learns from held-out images gets the same ones in both joint scores.
        plain = JointScore([("foreground", CLASSIFIER, scorer)], alpha=detector.joint_score_.alpha)
        # A scorer that needs perturbed images or activations has its own pass over the images; the others share one.
        if any(dfb.view_needs().values()):
            views = _views(detector, [dfb, plain], image_sets, X, y)
        else:
            views = shared = shared or _views(detector, [dfb, plain], image_sets, X, y)
        for joint_score in (dfb, plain):
            joint_score.fit(*views.train, held_out=views.held_out)
        yield label, "plain", {key: plain.score_parts(found)["foreground"] for key, found in views.sets.items()}
        # The parts are scored once for the joint score and for the background alone.
        parts = {key: dfb.score_parts(found) for key, found in views.sets.items()}
        yield label, "dfb", {key: dfb.combine(part) for key, part in parts.items()}
        if any(view == BACKGROUND for _, view, _ in dfb.parts):
            yield label, "background", {key: dfb.combine_group("background", part) for key, part in parts.items()}


class _Views(NamedTuple):
    """The views of the images of ``fit``, as :meth:`JointScore.fit` takes them, and those of each image set."""

    train: Any
    held_out: Any
    sets: dict[Any, dict[str, Representation]]


def _views(
    detector: DFBDetector, joint_scores: Sequence[JointScore], image_sets: Mapping[Any, Any], X: Any, y: Any
) -> _Views:
    """Return the views that all of the joint scores need, from one pass over each image set."""
    # One joint score with the parts of all, under different names, needs the views of all.
    parts = [
        (f"{index}_{name}", view, scorer)
        for index, joint_score in enumerate(joint_scores)
        for name, view, scorer in joint_score.parts
    ]
    together = JointScore(parts, alpha=None)
    train, held_out = detector.represent_training_images(X, y, together)
    needs = together.view_needs()
    return _Views(train, held_out, {key: detector.represent(images, needs) for key, images in image_sets.items()})


def class_accuracy(detector: DFBDetector, X: Any, y: Any = None) -> dict[str, float]:
    """Return the accuracy of the classifier and of the dense network.

    Parameters
    ----------
    detector : DFBDetector
        A fitted detector.
    X : images
        The n in-distribution test images.
    y : array-like of shape (n,), default=None
        Their labels. None takes those of a torch dataset of (image, label) items.

    Returns
    -------
    accuracy : dict of str to float
        In [0, 1]: ``"plain"`` is that of the classifier, ``"dfb"`` that of the dense network.

    Raises
    ------
    ValueError
        If there are no labels, not one label per image, or a label that is not one of ``classes_``.

    Examples
    --------
    >>> from skdfb import DFBDetector, Trainer
    >>> from skdfb.datasets import load_digits_on_photos
    >>> from skdfb.evaluation import class_accuracy
    >>> from skdfb.networks import create_backbone
    >>> from skdfb.scorers import Energy
    >>> data = load_digits_on_photos(n_train=400, n_test=20, n_ood=20, random_state=0)
    >>> backbone = create_backbone("test_resnet", pretrained=False, output_stride=8)
    >>> trainer = Trainer(max_steps=3, batch_size=32)  # far too few, only to keep the example short
    >>> detector = DFBDetector(
    ...     backbone, scorer=Energy(), classifier_trainer=trainer, dense_trainer=trainer, image_size=32, random_state=0
    ... ).fit(data.images, data.target)
    >>> sorted(class_accuracy(detector, data.images_test, data.target_test))
    ['dfb', 'plain']
    """
    check_is_fitted(detector)
    y = labels_given(X, y)
    if y is None:
        raise ValueError("y is None, and X has no labels: expected one label per image.")
    # Both networks in one pass over the images.
    views = detector.represent(X, [CLASSIFIER, DENSE])
    labels = checked_labels(detector, y, len(views[DENSE]), "X", "y")
    predicted = {
        method: detector.classes_[views[view].logits.argmax(1).numpy()]
        for method, view in (("plain", CLASSIFIER), ("dfb", DENSE))
    }
    return {method: float(np.mean(classes == labels)) for method, classes in predicted.items()}


def format_comparison(table: Any, metrics: Sequence[str] = ("auroc", "fpr95")) -> str:
    """Return a comparison as a wide text: a row per scorer, a column per OOD set.

    Each cell has the metric of the plain classifier and that of DFB, in percent.

    Parameters
    ----------
    table : Table or DataFrame
        What :func:`compare_scorers` returns.
    metrics : sequence of str, default=("auroc", "fpr95")
        Columns of the table. The text has one block of rows for each.

    Returns
    -------
    text : str
        Lines of aligned columns.

    Raises
    ------
    ValueError
        If the table does not have such a column.

    See Also
    --------
    compare_scorers : Makes the table.

    Examples
    --------
    >>> from skdfb.evaluation import format_comparison
    >>> table = {
    ...     "scorer": ["MSP", "MSP"], "method": ["plain", "dfb"], "ood": ["noise", "noise"], "auroc": [0.9, 0.95],
    ... }
    >>> print(format_comparison(table, metrics=["auroc"]))
    AUROC [%]  noise         mean
    MSP        90.0 -> 95.0  90.0 -> 95.0
    """
    known = [name for name in table if name not in ("scorer", "method", "ood")]
    if isinstance(metrics, str) or not set(metrics) <= set(known):
        raise ValueError(f"metrics={metrics!r}: expected a list of some of the table's columns {known}.")
    # Lists, whether the table is a Table, a dict or a data frame.
    columns = {name: list(table[name]) for name in ("scorer", "method", "ood", *metrics)}
    keys = list(zip(columns["scorer"], columns["method"], columns["ood"], strict=True))
    scorers, oods = list(dict.fromkeys(columns["scorer"])), list(dict.fromkeys(columns["ood"]))
    lines: list[list[str]] = []
    for metric in metrics:
        value = dict(zip(keys, columns[metric], strict=True))
        lines.append([f"{metric.upper()} [%]", *oods, "mean"])
        for scorer in scorers:
            cells = [(value[scorer, "plain", name], value[scorer, "dfb", name]) for name in oods]
            cells.append(tuple(np.mean(cells, axis=0)))  # of the OOD sets
            lines.append([scorer, *(f"{100 * plain:.1f} -> {100 * dfb:.1f}" for plain, dfb in cells)])
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
