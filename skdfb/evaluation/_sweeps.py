"""Metrics of a detector as a function of the temperature of its fusion, or of the number of classes."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.utils import _safe_indexing, check_scalar
from sklearn.utils.validation import _num_samples, check_is_fitted
from torch.utils.data import Dataset, Subset

from skdfb.detector import DFBDetector
from skdfb.evaluation._compare import check_scorers, compare_scorers
from skdfb.evaluation._detectors import can_classify, labels_in, listed, shown_labels
from skdfb.evaluation._evaluate import evaluation_rows
from skdfb.evaluation._table import Table, check_ood, metric_values
from skdfb.fusion import TemperatureFusion
from skdfb.images import Folder, Images, encode_labels, label_array, labels_given, opened
from skdfb.scorers import ForegroundScorer, scorer_output
from skdfb.scoring._parts import BACKGROUND
from skdfb.utils import last_step, spawn_seeds

__all__ = ["class_count_sweep", "temperature_sweep"]

Rows = list[dict[str, Any]]

# The default choice among several foreground or background parts: those of the paper's Eq. 7.
_EQ_7 = {"foreground": "foreground_dense", "background": "background_logit"}


def temperature_sweep(
    detector: Any,
    X_id: Any,
    ood: Mapping[str, Any],
    temperatures: Sequence[float] = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0),
    *,
    parts: tuple[str, str] | None = None,
) -> Table:
    r"""Join the foreground and the background score of a fitted detector at several temperatures.

    The scores are joined by Eq. 7 of the paper (:class:`~skdfb.fusion.TemperatureFusion`). Nothing is trained
    or fitted. The networks pass over each image set once.

    Parameters
    ----------
    detector : DFBDetector
        Fitted, or a pipeline or parameter search that ends in one. Its own fusion is not used.
    X_id : images
        Test images of the known classes.
    ood : mapping of str to images
        OOD test images by name.
    temperatures : sequence of float, default=(1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
        Each is finite and greater than 0. The higher the temperature, the lower the weight of the background.
    parts : tuple of (str, str), default=None
        Names of the foreground and of the background part, as in ``detector.score_parts(X)``. Background parts are
        those on the view ``"background"``. None takes the only part of each kind, or, if there are several, those of
        the paper: ``"foreground_dense"`` and ``"background_logit"``.

    Returns
    -------
    table : Table
        One row per temperature and OOD set, with the columns ``temperature``, ``ood``, ``auroc``, ``aupr_in``,
        ``aupr_out`` and ``fpr95``. All metrics are fractions. In-distribution is the positive class, except in
        ``aupr_out``.

    Raises
    ------
    TypeError
        If the detector has no parts, `ood` is not a mapping or is empty, or `temperatures` is not a list of numbers.
    ValueError
        If a temperature is out of range, if `parts` does not name a foreground and a background part, or if `parts` is
        None and the detector has several parts of a kind, but not that of the paper.

    See Also
    --------
    skdfb.fusion.TemperatureFusion : Eq. 7.
    skdfb.DFBDetector.refit_scorer : Gives a detector a fusion with another temperature.

    Notes
    -----
    This is Fig. 6 of the paper. With the foreground score :math:`S_f`, the background score :math:`S_b` and the
    temperature T,

    .. math::
        S = \begin{cases}
            S_f + S_b / T & S_f \text{ from logits (Energy, ViM, ...)} \\
            S_f + \log(\mathrm{softplus}(S_b)) / T & S_f \text{ a probability (MSP, ODIN)}
        \end{cases}

    The output of the fitted scorer of the foreground part decides between the two, see
    :func:`skdfb.scorers.scorer_output`. The paper takes T = 2.5 in the first case and, in effect, T = 1 in the second.

    The table shows how much the temperature matters. Do not report the best row: its temperature was chosen on the same
    OOD images, so its metrics are too good.

    Examples
    --------
    >>> from skdfb import DFBDetector, Trainer
    >>> from skdfb.datasets import load_digits_on_photos
    >>> from skdfb.evaluation import temperature_sweep
    >>> from skdfb.networks import create_backbone
    >>> from skdfb.scorers import Energy
    >>> data = load_digits_on_photos(n_train=400, n_test=20, n_ood=20, random_state=0)
    >>> backbone = create_backbone("test_resnet", pretrained=False, output_stride=8)
    >>> trainer = Trainer(max_steps=3, batch_size=32)  # far too few, only to keep the example short
    >>> detector = DFBDetector(
    ...     backbone, scorer=Energy(), classifier_trainer=trainer, dense_trainer=trainer, image_size=32, random_state=0
    ... ).fit(data.images, data.target)
    >>> ood = {"unseen_photo": data.ood_images["unseen_photo"]}
    >>> table = temperature_sweep(detector, data.images_test, ood, temperatures=[1.0, 2.5])
    >>> table.temperature.tolist()
    [1.0, 2.5]
    """
    ood = check_ood(ood)
    temperatures = _checked_temperatures(temperatures)
    step, prepared = last_step(detector)
    if not hasattr(step, "score_parts"):
        raise TypeError(f"Expected a fitted DFBDetector, got {step!r}, which has no score_parts.")
    check_is_fitted(step)
    names = _part_names(step.joint_score_.parts_, parts)
    known = _chosen(step.score_parts(prepared(listed(X_id, "X_id"))), names)
    unknown = {name: _chosen(step.score_parts(prepared(X)), names) for name, X in ood.items()}
    # Eq. 7 has a branch for probabilities: the chosen part decides, which need not be the first one.
    outputs = {"foreground": scorer_output(step.part_scorers_[names["foreground"]])}
    rows = []
    for temperature in temperatures:
        # Both temperatures, since the output of the scorer decides which of them is used.
        fusion = TemperatureFusion(temperature, probability_temperature=temperature).fit(known, outputs=outputs)
        known_scores = fusion.combine(known)
        for name, scores in unknown.items():
            values = metric_values(known_scores, fusion.combine(scores))
            rows.append({"temperature": temperature, "ood": name, **values})
    return Table.from_rows(rows)


def _checked_temperatures(temperatures: Any) -> list[float]:
    if isinstance(temperatures, str) or not isinstance(temperatures, Iterable) or not len(listed := list(temperatures)):
        raise TypeError(f"temperatures={temperatures!r}: expected a list of numbers, like [1.0, 2.5].")
    for temperature in listed:
        if not isinstance(temperature, Real) or not 0 < float(temperature) < np.inf:
            raise ValueError(f"temperatures={listed}: expected finite numbers greater than 0, got {temperature!r}.")
    return [float(temperature) for temperature in listed]


def _part_names(fitted: Sequence[tuple[str, str, Any]], parts: Any) -> dict[str, str]:
    """Return the names of the two parts by ``"foreground"`` and ``"background"``, from (name, view, scorer) tuples."""
    names_of: dict[str, list[str]] = {kind: [] for kind in _EQ_7}
    for name, view, _ in fitted:
        names_of["background" if view == BACKGROUND else "foreground"].append(name)
    if parts is None:
        return {kind: _only_part(names_of, kind) for kind in _EQ_7}
    if isinstance(parts, str) or not isinstance(parts, Sequence) or len(parts) != len(_EQ_7):
        raise ValueError(f"parts={parts!r}: expected the names of a foreground and of a background part.")
    chosen = dict(zip(_EQ_7, parts, strict=True))
    for kind, name in chosen.items():
        if name not in names_of[kind]:
            raise ValueError(f"parts={parts!r}: expected a {kind} part, one of {names_of[kind]}, got {name!r}.")
    return chosen


def _only_part(names_of: Mapping[str, list[str]], kind: str) -> str:
    names = names_of[kind]
    if len(names) > 1 and _EQ_7[kind] in names:
        return _EQ_7[kind]
    if len(names) != 1:
        raise ValueError(
            f"parts is None: expected one foreground and one background part, got {names_of['foreground']} and "
            f"{names_of['background']}. Pass parts=(foreground, background), two of these names."
        )
    return names[0]


def _chosen(scores: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {kind: scores[name] for kind, name in names.items()}


# -------------------------------------------------------- number of classes


class _LabelledImages(NamedTuple):
    images: Any
    labels: npt.NDArray[Any]

    def of(self, classes: npt.NDArray[Any]) -> "_LabelledImages":
        """Return the images of some classes."""
        rows = np.flatnonzero(labels_in(self.labels, classes))
        return _LabelledImages(_subset(self.images, rows), self.labels[rows])


def class_count_sweep(
    estimator: Any,
    X: Any,
    y: Any,
    X_test: Any,
    y_test: Any,
    ood: Mapping[str, Any],
    counts: Sequence[int],
    *,
    n_repeats: int = 1,
    scorers: Sequence[ForegroundScorer] | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> Table:
    """Fit a detector on different numbers of classes, and compute how well it separates the same OOD images.

    For each number of classes, that many classes are drawn at random, and a clone of the detector is fitted on their
    training images. The in-distribution test images are those of the same classes. Within a repeat, the smaller sets of
    classes are subsets of the larger ones.

    Parameters
    ----------
    estimator : estimator
        A :class:`~skdfb.DFBDetector`, a :class:`~skdfb.detector.FeatureDetector`, another outlier detector with ``fit``
        and ``score_samples`` or ``decision_function``, or a pipeline that ends in one. It is cloned and stays unfitted.
    X : images or features
        The n training images, in any form that the estimator takes: an array, a data frame, a sequence, a torch
        dataset, the path of a folder.
    y : array-like of shape (n,)
        Their labels. None takes those of a folder of class folders, or of a dataset of (image, label) items.
    X_test : images or features
        The m in-distribution test images, in any of these forms. Images with a label that is not in `y` are ignored.
    y_test : array-like of shape (m,)
        Their labels. None takes those of a folder of class folders, or of a dataset of (image, label) items.
    ood : mapping of str to images or features
        OOD test images by name. They must not belong to any of the classes.
    counts : sequence of int
        Numbers of classes, each from 2 to the number of classes in `y`.
    n_repeats : int, default=1
        Number of repeats of all counts, each with a new random order of the classes.
    scorers : sequence of ForegroundScorer, default=None
        For a :class:`~skdfb.DFBDetector` only. Each fitted detector compares these scorers by :func:`compare_scorers`,
        without further training.
    random_state : int, RandomState or None, default=None
        Fixes which classes are drawn. It also seeds each parameter ``random_state`` of the estimator that is None, anew
        for each repeat. A ``random_state`` that is set stays as it is; then repeats differ in their classes only.

    Returns
    -------
    table : Table
        One row per repeat, number of classes and OOD set, with the columns ``n_classes``, ``repeat`` (from 0) and those
        of :func:`evaluate` without intervals. ``accuracy`` and ``oscr`` are NaN if the estimator does not classify.
        With `scorers`, one row per repeat, number of classes, scorer, method and OOD set, with ``n_classes``,
        ``repeat`` and the columns of :func:`compare_scorers` with labels.

    Raises
    ------
    TypeError
        If `ood` is not a mapping or is empty, if `counts` is not a list of integers, or if there are `scorers` and the
        estimator is not a ``DFBDetector``.
    ValueError
        Before anything is fitted, if a count is out of range, images and labels differ in number, labels are missing or
        continuous, or a class has no test images.

    See Also
    --------
    evaluate : The columns.
    LeaveClassesOut : Splits for tuning, in which images of left-out classes are the OOD images.

    Notes
    -----
    This is Fig. 7 of the paper, which has 200 to 1,000 classes of ImageNet.

    Compare ``auroc`` and ``fpr95`` between numbers of classes. ``aupr_in`` and ``aupr_out`` also depend on the ratio of
    ``n_id`` to ``n_ood``, which grows with the number of classes.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdfb.detector import FeatureDetector
    >>> from skdfb.evaluation import class_count_sweep
    >>> X, y = load_digits(return_X_y=True)
    >>> X, known = X / 16, y < 8
    >>> table = class_count_sweep(
    ...     FeatureDetector(calibration_fraction=0.2),
    ...     *(X[known][::2], y[known][::2]),
    ...     *(X[known][1::2], y[known][1::2]),
    ...     {"other": X[~known]},
    ...     counts=[2, 4, 8],
    ...     random_state=0,
    ... )
    >>> table.n_classes.tolist()
    [2, 4, 8]
    """
    ood = check_ood(ood)
    check_scalar(n_repeats, "n_repeats", Integral, min_val=1)
    # 1. Check all arguments before anything is fitted.
    _check_scorers(estimator, scorers)
    train, test = _labelled(X, y, ""), _labelled(X_test, y_test, "_test")
    classes, _ = encode_labels(train.labels)
    counts = _checked_counts(counts, len(classes))
    _check_tested(classes, test.labels)
    # 2. Fit a clone per repeat and number of classes. Two seeds per repeat: for the classes and for the estimator.
    seeds = spawn_seeds(random_state, 2 * n_repeats)
    rows: Rows = []
    for repeat in range(n_repeats):
        # All counts share one order, so that the smaller sets of classes are subsets of the larger ones.
        order = np.random.RandomState(seeds[2 * repeat]).permutation(classes)
        seeded = _seeded(clone(estimator), seeds[2 * repeat + 1])
        for count in counts:
            drawn = order[:count]
            found = _rows_of_fitted(clone(seeded), train.of(drawn), test.of(drawn), ood, scorers)
            rows += [{"n_classes": count, "repeat": repeat} | row for row in found]
    return Table.from_rows(rows)


def _rows_of_fitted(
    estimator: Any,
    train: _LabelledImages,
    test: _LabelledImages,
    ood: Mapping[str, Any],
    scorers: Sequence[ForegroundScorer] | None,
) -> Rows:
    estimator.fit(train.images, train.labels)
    if scorers is None:
        classifies = can_classify(last_step(estimator)[0])
        return evaluation_rows(estimator, test.images, ood, test.labels if classifies else None)
    table = compare_scorers(
        estimator, test.images, ood, X=train.images, y=train.labels, scorers=scorers, y_id=test.labels
    )
    # From columns to rows, to which the number of classes is added.
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def _seeded(estimator: Any, seed: int) -> Any:
    """Set each ``random_state`` that is None, also in steps of a pipeline and in nested estimators."""
    parameters = estimator.get_params(deep=True)
    # Sorted, so that seeds do not depend on the order of the parameters.
    missing = sorted(
        name for name, value in parameters.items() if name.split("__")[-1] == "random_state" and value is None
    )
    return estimator.set_params(**dict(zip(missing, spawn_seeds(seed, len(missing)), strict=True)))


def _subset(X: Any, rows: npt.NDArray[np.intp]) -> Any:
    # scikit-learn's indexing handles neither image sequences that read files lazily nor torch datasets.
    if isinstance(X, Images):
        return X.subset(rows)
    return Subset(X, rows.tolist()) if isinstance(X, Dataset) else _safe_indexing(X, rows)


def _labelled(X: Any, y: Any, suffix: str) -> _LabelledImages:
    """Return images with their labels; refuse labels that do not fit the images."""
    X = opened(X, f"X{suffix}")
    y = labels_given(X, y)
    X = X.paths if isinstance(X, Folder) else X
    if y is None:
        raise ValueError(f"y{suffix} is None: expected one class label per image of X{suffix}.")
    y = label_array(y, f"y{suffix}")
    if _num_samples(X) != len(y):
        raise ValueError(
            f"X{suffix} has {_num_samples(X)} images and y{suffix} has {len(y)} labels: expected one label per image."
        )
    return _LabelledImages(X, y)


def _checked_counts(counts: Any, n_classes: int) -> list[int]:
    if not isinstance(counts, Iterable) or isinstance(counts, str) or not len(listed := list(counts)):
        raise TypeError(f"counts={counts!r}: expected a list of numbers of classes, like [5, 10].")
    for count in listed:
        check_scalar(count, "each of counts", Integral)
        if not 2 <= count <= n_classes:
            raise ValueError(
                f"counts={listed}: expected numbers from 2 to {n_classes}, the number of classes of y, got {count}."
            )
    return [int(count) for count in listed]


def _check_tested(classes: npt.NDArray[Any], test_labels: npt.NDArray[Any]) -> None:
    untested = classes[~labels_in(classes, test_labels)]
    if len(untested):
        raise ValueError(
            f"y_test has no image of {len(untested)} of the {len(classes)} classes of y, {shown_labels(untested)}: "
            "expected test images of each class, since each may be drawn. Add some, or remove the class from X and y."
        )


def _check_scorers(estimator: Any, scorers: Any) -> None:
    if scorers is None:
        return
    if not isinstance(estimator, DFBDetector):
        raise TypeError(
            f"scorers are given, but {estimator!r} is not a DFBDetector: expected scorers=None. To compare scorers, "
            "call this function once per scorer, with that scorer in the estimator."
        )
    check_scorers(scorers)
