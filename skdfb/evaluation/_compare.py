"""A comparison of the classifier alone with DFB, scorer by scorer."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import _num_samples, check_is_fitted

from skdfb._progress import progress
from skdfb.detector import DFBDetector
from skdfb.evaluation._detectors import checked_labels, known_images
from skdfb.evaluation._table import Table, check_ood, metric_values
from skdfb.images import labels_given
from skdfb.metrics import oscr_score
from skdfb.scorers import MSP, ODIN, Energy, ForegroundScorer, MaxLogit, Representation, ViM, check_scorer
from skdfb.scoring import JointScore
from skdfb.scoring._parts import BACKGROUND, CLASSIFIER, DENSE
from skdfb.utils import numbered

__all__ = ["class_accuracy", "compare_scorers", "format_comparison"]

_ID = "in-distribution"  # key of that image set; keys of OOD sets are tuples, so that a user may choose any name


def compare_scorers(
    detector: DFBDetector,
    X_id: Any,
    ood: Mapping[str, Any],
    *,
    X: Any,
    y: Any,
    scorers: Sequence[ForegroundScorer] | None = None,
    y_id: Any = None,
    X_calibration: Any = None,
    verbose: int = 0,
) -> Table:
    """Compare scorers on the classifier alone with the same scorers in DFB.

    No network is trained. Both networks pass over each image set once, including the training images, and once more for
    each scorer that needs perturbed images or activations. With `y_id` they pass over `X_id` once more.

    Parameters
    ----------
    detector : DFBDetector
        Fitted.
    X_id : images
        Test images of the known classes.
    ood : mapping of str to images
        OOD test images by name.
    X : images
        The n images of the detector's ``fit``. The scorers are fitted on them.
    y : array-like of shape (n,)
        The labels of the detector's ``fit``. None takes those of a folder of class folders.
    scorers : sequence of ForegroundScorer, default=None
        None is ``MSP``, ``MaxLogit``, ``ODIN``, ``Energy`` and ``ViM``. The table names a scorer by its class, or by
        class and parameters if several are of this class.
    y_id : array-like of shape (n_id,), default=None
        Labels of the n_id images of `X_id`. None takes those of a folder of class folders, and else leaves out the
        columns that need them.
    X_calibration : images, default=None
        Those of the detector's ``fit``, if it was given any.
    verbose : int, default=0
        1 shows progress bars for image sets that take long.

    Returns
    -------
    table : Table
        One row per scorer, method and OOD set, with the columns

        - ``scorer``: name of the scorer;
        - ``method``: ``"plain"`` is the scorer on the classifier alone, ``"dfb"`` the joint score of the detector with
          this scorer, ``"background"`` its background parts alone;
        - ``ood``: name of the OOD set;
        - ``auroc``, ``aupr_in``, ``aupr_out``, ``fpr95``: fractions, see :mod:`skdfb.metrics`. In-distribution is the
          positive class, except in ``aupr_out``;
        - with `y_id`, ``oscr``, see :func:`~skdfb.metrics.oscr_score`, and ``accuracy``, both with the labels of the
          classifier for ``"plain"`` and of the dense network for the other methods.

    Raises
    ------
    TypeError
        If `ood` is not a mapping or is empty, or `scorers` is not a list of scorers.
    ValueError
        If `X` and `y` are not those of ``fit``, as far as the number of images and the labels show, if `y_id` and
        `X_id` differ in length, or if a label is not a class of ``fit``.

    See Also
    --------
    format_comparison : A wide text of the table.
    evaluate : One detector, with confidence intervals.

    Notes
    -----
    The classifier is the network of stage 1. By default the dense network starts from its weights, so it has been
    trained for the steps of both stages.

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
    >>> len(table["auroc"])  # 1 scorer, 3 methods, 4 OOD sets
    12
    """
    check_is_fitted(detector)
    scorers = [MSP(), MaxLogit(), ODIN(), Energy(), ViM()] if scorers is None else scorers
    ood = check_ood(ood)
    check_scorers(scorers)
    X_id, y_id = known_images(detector, X_id, y_id, "X_id")
    X, y = known_images(detector, X, y, "X")
    labels = None if y_id is None else checked_labels(detector, y_id, _num_samples(X_id), "X_id", "y_id")
    image_sets: dict[Any, Any] = {_ID: X_id} | {(name,): images for name, images in ood.items()}
    with progress(verbose):
        return Table.from_rows(_rows(detector, _labelled(scorers), image_sets, labels, (X, y, X_calibration)))


def _rows(
    detector: DFBDetector,
    scorers: Mapping[str, Any],
    image_sets: Mapping[Any, Any],
    labels: npt.NDArray[Any] | None,
    of_fit: tuple[Any, Any, Any],
) -> list[dict[str, Any]]:
    """Return the rows of the table."""
    correct = None if labels is None else _correct(detector, image_sets[_ID], labels)
    rows = []
    for label, method, scores in _all_scores(detector, scorers, image_sets, of_fit):
        for key in (key for key in scores if key != _ID):
            values = metric_values(scores[_ID], scores[key])
            if correct is not None:
                hits = correct["plain" if method == "plain" else "dfb"]
                oscr = oscr_score(scores[_ID], scores[key], hits)
                values |= {"oscr": oscr, "accuracy": float(np.mean(hits))}
            rows.append({"scorer": label, "method": method, "ood": key[0]} | values)
    return rows


def check_scorers(scorers: Any) -> None:
    """Refuse what is not a list of scorers."""
    if not isinstance(scorers, Sequence) or isinstance(scorers, str) or not scorers:
        raise TypeError(f"scorers={scorers!r}: expected a list of scorers, like [MSP(), ViM()].")
    for place, scorer in enumerate(scorers):
        check_scorer(scorer, f"scorers[{place}]")


def _labelled(scorers: Sequence[Any]) -> dict[str, Any]:
    """Return the scorers by the name of their class.

    If several are of one class, they are named by class and parameters; if these are equal, numbers are added.
    """
    names = [type(scorer).__name__ for scorer in scorers]
    names = [name if names.count(name) == 1 else repr(scorer) for name, scorer in zip(names, scorers, strict=True)]
    return dict(zip(numbered(names, " #"), scorers, strict=True))


# Scores of each image set by its key.
SetScores = dict[Any, npt.NDArray[np.float64]]


def _all_scores(
    detector: DFBDetector, scorers: Mapping[str, Any], image_sets: Mapping[Any, Any], of_fit: tuple[Any, Any, Any]
) -> Iterator[tuple[str, str, SetScores]]:
    """Yield the label of each scorer, the method, and its scores of each image set."""
    shared: _Views | None = None
    for label, scorer in scorers.items():
        dfb = detector.joint_score_.with_foreground(scorer)
        # The same alpha, so that a scorer that learns from held-out images learns from as many as it does in DFB.
        plain = JointScore([("foreground", CLASSIFIER, scorer)], alpha=detector.joint_score_.alpha)
        # Perturbed images and activations serve one scorer only. All other scorers share one pass over the images.
        if any(dfb.view_needs().values()):
            views = _views(detector, [dfb, plain], image_sets, of_fit)
        else:
            views = shared = shared or _views(detector, [dfb, plain], image_sets, of_fit)
        for joint_score in (dfb, plain):
            joint_score.fit(*views.train, held_out=views.held_out)
        # Image sets are scored one by one, from views that already exist: no network runs here.
        yield label, "plain", {key: plain.score_parts(found)["foreground"] for key, found in views.sets.items()}
        parts = {key: dfb.score_parts(found) for key, found in views.sets.items()}
        yield label, "dfb", {key: dfb.combine(part) for key, part in parts.items()}
        if any(view == BACKGROUND for _, view, _ in dfb.parts):
            yield label, "background", {key: dfb.combine_group("background", part) for key, part in parts.items()}


class _Views(NamedTuple):
    """Views of the images of ``fit``, in the form that :meth:`JointScore.fit` takes, and of each image set."""

    train: Any
    held_out: Any
    sets: dict[Any, dict[str, Representation]]


def _views(
    detector: DFBDetector,
    joint_scores: Sequence[JointScore],
    image_sets: Mapping[Any, Any],
    of_fit: tuple[Any, Any, Any],
) -> _Views:
    """Return all views that the joint scores need, from one pass over each image set."""
    # A joint score of all parts is never fitted: it collects what all scorers need. Its names must differ.
    parts = [
        (f"{index}_{name}", view, scorer)
        for index, joint_score in enumerate(joint_scores)
        for name, view, scorer in joint_score.parts
    ]
    together = JointScore(parts, alpha=None)
    X, y, X_calibration = of_fit
    train, held_out = detector.represent_training_images(X, y, together, X_calibration=X_calibration)
    needs = together.view_needs()
    return _Views(train, held_out, {key: detector.represent(images, needs) for key, images in image_sets.items()})


def class_accuracy(detector: DFBDetector, X: Any, y: Any = None) -> dict[str, float]:
    """Return the accuracy of the classifier and of the dense network.

    Parameters
    ----------
    detector : DFBDetector
        Fitted.
    X : images
        The n in-distribution test images.
    y : array-like of shape (n,), default=None
        Their labels. None takes those of a folder of class folders, or of a dataset of (image, label) items.

    Returns
    -------
    accuracy : dict of str to float
        Fractions in [0, 1]: ``"plain"`` for the classifier, ``"dfb"`` for the dense network.

    Raises
    ------
    ValueError
        If there is not one label per image, or a label is not in ``classes_``.

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
    X, y = known_images(detector, X, y, "X")
    y = labels_given(X, y)
    if y is None:
        raise ValueError("y is None: expected the label of each image.")
    labels = checked_labels(detector, y, _num_samples(X), "X", "y")
    return {method: float(np.mean(hits)) for method, hits in _correct(detector, X, labels).items()}


def _correct(detector: DFBDetector, X: Any, labels: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.bool_]]:
    """Return which images the classifier (``"plain"``) and the dense network (``"dfb"``) classify correctly, (n,)."""
    views = detector.represent(X, [CLASSIFIER, DENSE])
    return {
        method: detector.classes_[views[view].logits.argmax(1).numpy()] == labels
        for method, view in (("plain", CLASSIFIER), ("dfb", DENSE))
    }


def format_comparison(table: Any, metrics: Sequence[str] = ("auroc", "fpr95")) -> str:
    """Format a comparison as a wide text, with one row per scorer and one column per OOD set.

    Each cell is "classifier alone -> DFB", in percent. The last column is the mean of the others.

    Parameters
    ----------
    table : Table or DataFrame
        From :func:`compare_scorers`.
    metrics : sequence of str, default=("auroc", "fpr95")
        Columns of the table. There is one block of rows per metric.

    Returns
    -------
    text : str
        Several lines of aligned columns.

    Raises
    ------
    ValueError
        If a metric is not a column of the table.

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
        raise ValueError(f"metrics={metrics!r}: expected some of the table's columns {known}.")
    columns = {name: list(table[name]) for name in ("scorer", "method", "ood", *metrics)}
    keys = list(zip(columns["scorer"], columns["method"], columns["ood"], strict=True))
    # dict.fromkeys keeps the order of the table.
    scorers, oods = list(dict.fromkeys(columns["scorer"])), list(dict.fromkeys(columns["ood"]))
    lines: list[list[str]] = []  # cells of each line
    for metric in metrics:
        value = dict(zip(keys, columns[metric], strict=True))
        lines.append([f"{metric.upper()} [%]", *oods, "mean"])
        for scorer in scorers:
            cells = [(value[scorer, "plain", name], value[scorer, "dfb", name]) for name in oods]
            cells.append(tuple(np.mean(cells, axis=0)))
            lines.append([scorer, *(f"{100 * plain:.1f} -> {100 * dfb:.1f}" for plain, dfb in cells)])
    # All blocks share the widths of their columns, so that they are aligned with each other.
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
