"""Plain classifier against DFB, scorer by scorer."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skdfb.calibration import ConformalCalibrator
from skdfb.detector import DFBDetector
from skdfb.detector._collect import collect
from skdfb.detector._parts import LabelledViews, Part, PartScorers, Scores, learning_share
from skdfb.detector._views import PLAIN, VIEWS
from skdfb.evaluation._frame import METRICS, as_frame, check_ood, metric_values
from skdfb.evaluation._questions import checked_labels
from skdfb.images import Images, check_images, labels_given
from skdfb.scorers import MSP, ODIN, Energy, ForegroundScorer, MaxLogit, Representation, ViM, check_scorer
from skdfb.scorers._protocol import needs_images
from skdfb.utils import numbered

__all__ = ["class_accuracy", "compare_scorers", "format_comparison"]

_ID = "in-distribution"


def compare_scorers(
    detector: DFBDetector,
    X_id: Any,
    ood: Mapping[str, Any],
    *,
    X: Any,
    y: Any,
    scorers: Sequence[ForegroundScorer] | None = None,
) -> Any:
    """Score in-distribution and OOD images by each scorer, on the plain classifier and by DFB.

    Nothing is trained. Both networks pass over each set once, and once more for a scorer that asks for perturbed
    images or activations. A detector that was unpickled passes over the training images once more for each scorer.

    Parameters
    ----------
    detector : DFBDetector
        Fitted.
    X_id : images
        Test images of the known classes.
    ood : mapping of str to images
        OOD test images by name.
    X, y : images and labels
        Those of the detector's ``fit``, on which scorers are fitted.
    scorers : sequence of ForegroundScorer, default=None
        None takes ``MSP``, ``MaxLogit``, ``ODIN``, ``Energy`` and ``ViM``. Two of one class are told apart by their
        parameters.

    Returns
    -------
    table : pandas.DataFrame, or dict of lists where pandas is absent
        In long form, a row for each scorer, method and OOD set, with the columns ``scorer``, ``method`` (``"plain"``:
        the scorer on the classifier of K classes; ``"dfb"``: the detector's score with this scorer; ``"background"``:
        its background parts alone), ``ood``, ``auroc``, ``aupr_in``, ``aupr_out``, ``fpr95``. All are fractions;
        in-distribution is the positive class, except for ``aupr_out``.

    See Also
    --------
    format_comparison : A wide print of the table.

    Notes
    -----
    The plain classifier is the network of the first stage; the dense network has been trained for both stages' steps.

    Examples
    --------
    >>> from skdfb import DFBDetector, Trainer
    >>> from skdfb.datasets import load_digits_on_photos
    >>> from skdfb.evaluation import compare_scorers
    >>> from skdfb.networks import create_backbone
    >>> from skdfb.scorers import Energy, ViM
    >>> data = load_digits_on_photos(n_train=400, n_test=20, n_ood=20, random_state=0)
    >>> backbone = create_backbone("test_resnet", pretrained=False, output_stride=8)
    >>> trainer = Trainer(max_steps=3, batch_size=32)  # far too few, for the example's sake
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
    check_ood(ood)
    check_scorers(scorers)
    images = {_ID: check_images(detector, X_id, reset=False)}
    images |= {name: check_images(detector, value, reset=False) for name, value in ood.items()}
    train = check_images(detector, X, reset=False)
    columns: dict[str, list[Any]] = {name: [] for name in ("scorer", "method", "ood", *METRICS)}
    for scorer, method, scores in _all_scores(detector, _named(scorers), images, train, X, y):
        for name in ood:
            values = metric_values(scores[_ID], scores[name])
            row = (scorer, method, name, *(values[metric] for metric in METRICS))
            for column, value in zip(columns, row, strict=True):
                columns[column].append(value)
    return as_frame(columns)


def check_scorers(scorers: Any) -> None:
    """Refuse what is no list of scorers."""
    if not isinstance(scorers, Sequence) or isinstance(scorers, str) or not scorers:
        raise TypeError(f"scorers={scorers!r}; a list of scorers is wanted, like [MSP(), ViM()].")
    for place, scorer in enumerate(scorers):
        check_scorer(scorer, f"scorers[{place}]")


def _named(scorers: Sequence[Any]) -> dict[str, Any]:
    """Name scorers by their class, or, where two share it, by their parameters too, or else by numbers."""
    names = [type(scorer).__name__ for scorer in scorers]
    names = [name if names.count(name) == 1 else repr(scorer) for name, scorer in zip(names, scorers, strict=True)]
    return dict(zip(numbered(names, " #"), scorers, strict=True))


def _all_scores(
    detector: DFBDetector, scorers: Mapping[str, Any], images: Mapping[str, Images], train: Images, X: Any, y: Any
) -> Iterator[tuple[str, str, dict[str, Scores]]]:
    """Yield scorer, method and scores by image set."""
    detector._check_same(train, X, y)
    split = detector._split_
    fitting = train.subset(split.train)
    shown, shown_train = _collected(detector, images), _collected(detector, {"": fitting}, (PLAIN,))[""]
    for name, scorer in scorers.items():
        needs = needs_images(scorer)
        on_each = _collected(detector, images, scorer=scorer) if needs else shown
        plain = PartScorers({"foreground": Part(PLAIN, scorer)})
        asks = needs and plain.learning_foreground is not None
        on_train = _collected(detector, {"": fitting}, (PLAIN,), scorer)[""] if asks else shown_train
        held_out = _learning_views(detector, scorer, train)
        plain = plain.fitted_clone(LabelledViews(on_train, split.labels[split.train]), held_out)
        yield name, "plain", {key: plain.score(views)["foreground"] for key, views in on_each.items()}
        # What fit kept of the training images saves a pass over them.
        refitted = detector.refit_scorer(scorer, *((X, y) if needs or detector._kept_ is None else ()))
        parts = {key: refitted._parts_.score(views) for key, views in on_each.items()}
        yield name, "dfb", {key: refitted.fusion_.combine(part) for key, part in parts.items()}
        yield name, "background", {key: refitted._combine_group("background", part) for key, part in parts.items()}


def _learning_views(detector: DFBDetector, scorer: Any, train: Images) -> LabelledViews | None:
    """Return the held-out images that a detector lets the scorer learn from, as the plain classifier sees them."""
    if not getattr(scorer, "learns_from_held_out", False):
        return None
    split = detector._split_
    n_needed = ConformalCalibrator(detector.alpha).number_needed
    rows = split.held_out[: learning_share(len(split.held_out), n_needed)]
    return LabelledViews(_collected(detector, {"": train.subset(rows)}, (PLAIN,), scorer)[""], split.labels[rows])


def _collected(
    detector: DFBDetector, images: Mapping[str, Images], wanted: Sequence[str] = VIEWS, scorer: Any = None
) -> dict[str, dict[str, Representation]]:
    with detector._batches() as batch_size:
        views = detector._views(batch_size)
        return {name: collect(views, value, wanted, scorer) for name, value in images.items()}


def class_accuracy(detector: DFBDetector, X: Any, y: Any = None) -> dict[str, float]:
    """Return the accuracy of the plain classifier and of the dense network.

    Parameters
    ----------
    detector : DFBDetector
        Fitted.
    X : images
        In-distribution test images.
    y : array-like of shape (n,), default=None
        Their labels; a torch dataset of (image, label) items brings its own, with ``y=None``.

    Returns
    -------
    accuracy : dict
        ``"plain"`` and ``"dfb"``, fractions.

    Raises
    ------
    ValueError
        If there is not one label for each image, or a label is none that the detector was fitted on.

    Examples
    --------
    >>> from skdfb import DFBDetector, Trainer
    >>> from skdfb.datasets import load_digits_on_photos
    >>> from skdfb.evaluation import class_accuracy
    >>> from skdfb.networks import create_backbone
    >>> from skdfb.scorers import Energy
    >>> data = load_digits_on_photos(n_train=400, n_test=20, n_ood=20, random_state=0)
    >>> backbone = create_backbone("test_resnet", pretrained=False, output_stride=8)
    >>> trainer = Trainer(max_steps=3, batch_size=32)  # far too few, for the example's sake
    >>> detector = DFBDetector(
    ...     backbone, scorer=Energy(), classifier_trainer=trainer, dense_trainer=trainer, image_size=32, random_state=0
    ... ).fit(data.images, data.target)
    >>> sorted(class_accuracy(detector, data.images_test, data.target_test))
    ['dfb', 'plain']
    """
    check_is_fitted(detector)
    y = labels_given(X, y)
    images = check_images(detector, X, reset=False)
    if y is None:
        raise ValueError(f"y is None for {len(images)} images; the label of each image is wanted.")
    labels = checked_labels(detector, y, len(images), "X", "y")
    plain = _collected(detector, {"": images}, (PLAIN,))[""][PLAIN].logits.argmax(1).numpy()
    predicted = {"plain": detector.classes_[plain], "dfb": detector.classify(X)}
    return {method: float(np.mean(classes == labels)) for method, classes in predicted.items()}


def format_comparison(table: Any, metrics: Sequence[str] = ("auroc", "fpr95")) -> str:
    """Print a comparison wide: a row a scorer, a column an OOD set, plain -> DFB in percent.

    Parameters
    ----------
    table : DataFrame or dict of lists
        From :func:`compare_scorers`.
    metrics : sequence of str, default=("auroc", "fpr95")
        A block of rows each.

    Returns
    -------
    text : str

    Raises
    ------
    ValueError
        If the table has no such column.

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
        raise ValueError(f"metrics={metrics!r}; some of the table's columns {known} are wanted.")
    columns = {name: list(table[name]) for name in ("scorer", "method", "ood", *metrics)}
    keys = list(zip(columns["scorer"], columns["method"], columns["ood"], strict=True))
    scorers, oods = list(dict.fromkeys(columns["scorer"])), list(dict.fromkeys(columns["ood"]))
    lines: list[list[str]] = []
    for metric in metrics:
        value = dict(zip(keys, columns[metric], strict=True))
        lines.append([f"{metric.upper()} [%]", *oods, "mean"])
        for scorer in scorers:
            cells = [(value[scorer, "plain", name], value[scorer, "dfb", name]) for name in oods]
            cells.append(tuple(np.mean(cells, axis=0)))
            lines.append([scorer, *(f"{100 * plain:.1f} -> {100 * dfb:.1f}" for plain, dfb in cells)])
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
