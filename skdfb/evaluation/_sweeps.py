"""Figures of a detector as the temperature of the fusion or the number of classes varies."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.utils import _safe_indexing, assert_all_finite, check_scalar, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _num_samples
from torch.utils.data import Dataset, Subset

from skdfb.detector import DFBDetector
from skdfb.evaluation._compare import check_scorers, class_accuracy, compare_scorers
from skdfb.evaluation._detectors import can_classify, labels_in, shown_labels, unwrapped
from skdfb.evaluation._evaluate import evaluation_rows
from skdfb.evaluation._table import Table, check_ood, metric_values
from skdfb.fusion import TemperatureFusion
from skdfb.images import Images, labels_given
from skdfb.scorers import ForegroundScorer, scorer_output
from skdfb.utils import spawn_seeds

__all__ = ["class_count_sweep", "temperature_sweep"]

Rows = list[dict[str, Any]]

# The parts of the paper's Eq. 7, if a detector has several of a kind.
_EQ_7 = {"foreground": "foreground_dense", "background": "background_logit"}


def temperature_sweep(
    detector: Any,
    X_id: Any,
    ood: Mapping[str, Any],
    temperatures: Sequence[float] = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0),
    *,
    parts: tuple[str, str] | None = None,
) -> Table:
    r"""Join foreground and background score of a fitted detector by Eq. 7 at several temperatures.

    Nothing is trained or fitted, and the networks pass over each set once.

    Parameters
    ----------
    detector : DFBDetector
        Fitted. Its own fusion is not used. A pipeline may end in it.
    X_id : images
        Test images of the known classes.
    ood : mapping of str to images
        OOD test images by name.
    temperatures : sequence of float, default=(1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
        Each greater than 0 and finite. The larger, the less the background counts.
    parts : tuple of (str, str), default=None
        Names of the foreground and of the background part, of those in ``detector.score_parts(X)``. None takes the only
        ones; of several, ``"foreground_dense"`` and ``"background_logit"``, which are the paper's.

    Returns
    -------
    table : Table
        In long form, a row for each temperature and OOD set, with the columns ``temperature``, ``ood``, ``auroc``,
        ``aupr_in``, ``aupr_out``, ``fpr95``. All figures are fractions; in-distribution is the positive class, except
        for ``aupr_out``.

    Raises
    ------
    TypeError
        If the detector has no parts, or `ood` or `temperatures` is of another type.
    ValueError
        If a temperature is out of range, if `parts` does not name a foreground and a background part, or if it is None
        and there are several of a kind and none of the paper's.

    See Also
    --------
    skdfb.fusion.TemperatureFusion : Eq. 7.
    skdfb.DFBDetector.refit_scorer : Sets another temperature by its ``fusion``.

    Notes
    -----
    This is the paper's Fig. 6. With foreground score :math:`S_f`, background score :math:`S_b` and temperature T,

    .. math::
        S = \begin{cases}
            S_f + S_b / T & S_f \text{ from logits (Energy, ViM, ...)} \\
            S_f + \log(\mathrm{softplus}(S_b)) / T & S_f \text{ a probability (MSP, ODIN)}
        \end{cases}

    The ``output`` of the fitted foreground scorer decides which case holds. The paper has T = 2.5 in the first case
    and, in effect, T = 1 in the second one.

    The table shows how much depends on the temperature. Do not choose a temperature by it: figures on the OOD images
    that the choice was made on are too good.

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
    check_ood(ood)
    temperatures = _checked_temperatures(temperatures)
    step, prepared = unwrapped(detector)
    if not hasattr(step, "score_parts"):
        raise TypeError(f"{step!r} has no score_parts, so no background part: expected a fitted DFBDetector.")
    known = step.score_parts(prepared(X_id))
    names = _part_names(known, parts)
    known = _chosen(known, names)
    unknown = {name: _chosen(step.score_parts(prepared(X)), names) for name, X in ood.items()}
    outputs = {"foreground": scorer_output(step.scorer_)}
    rows = []
    for temperature in temperatures:
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


def _part_names(scores: Mapping[str, Any], parts: Any) -> dict[str, str]:
    """Return the names of the two parts by their kind."""
    if parts is None:
        return {kind: _only_part(scores, kind) for kind in _EQ_7}
    if isinstance(parts, str) or not isinstance(parts, Sequence) or len(parts) != len(_EQ_7):
        raise ValueError(f"parts={parts!r}: expected the names of a foreground and of a background part.")
    names = dict(zip(_EQ_7, parts, strict=True))
    for kind, name in names.items():
        if name not in _parts_of_kind(scores, kind):
            raise ValueError(
                f"parts={parts!r}: {name!r} is no {kind} part of the detector: expected one of "
                f"{_parts_of_kind(scores, kind)}."
            )
    return names


def _only_part(scores: Mapping[str, Any], kind: str) -> str:
    names = _parts_of_kind(scores, kind)
    if len(names) > 1 and _EQ_7[kind] in names:
        return _EQ_7[kind]
    if len(names) != 1:
        raise ValueError(
            f"parts is None, but the detector's parts are {list(scores)}; Eq. 7 joins one foreground and one "
            "background part: expected parts=(foreground, background), two of these names."
        )
    return names[0]


def _parts_of_kind(scores: Mapping[str, Any], kind: str) -> list[str]:
    return [name for name in scores if name.startswith(kind)]


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
    """Fit a detector on fewer and on more classes, and compute how well each separates the same OOD images.

    For each number of classes, so many classes are drawn, and a clone of the detector is fitted on their training
    images. Its in-distribution test images are those of the same classes. Within a repeat, the smaller sets of classes
    are inside the larger ones.

    Parameters
    ----------
    estimator : estimator
        Cloned, never fitted itself: a :class:`~skdfb.DFBDetector`, a :class:`~skdfb.detector.FeatureDetector`, another
        outlier detector with ``fit`` and ``score_samples`` or ``decision_function``, or a pipeline that ends in one.
    X : images or features
        Training images in any form that the estimator takes: an array, a data frame, a sequence, a torch dataset.
    y : array-like of shape (n,)
        Their labels; None if `X` is a torch dataset that has them.
    X_test : images or features
        In-distribution test images, likewise.
    y_test : array-like of shape (n_test,)
        Their labels. Images whose labels are not in `y` are not used.
    ood : mapping of str to images or features
        OOD test images by name. They must be of none of the classes.
    counts : sequence of int
        Numbers of classes, each from 2 to the number of classes in `y`.
    n_repeats : int, default=1
        Number of rounds through all counts, each with other classes.
    scorers : sequence of ForegroundScorer, default=None
        For a :class:`~skdfb.DFBDetector`: compare these on each fitted detector by :func:`compare_scorers`, without
        further training.
    random_state : int, RandomState or None, default=None
        Fixes which classes are drawn. It also gives a new seed in each repeat to every parameter ``random_state`` of
        the estimator that is None. If it is set there, it stays, and repeats differ by their classes only.

    Returns
    -------
    table : Table
        In long form, a row for each repeat, number of classes and OOD set, with the columns ``n_classes``, ``repeat``
        (from 0) and those of :func:`evaluate` without intervals; ``accuracy`` is NaN if the estimator cannot classify.
        With `scorers` a row also for each scorer and method, with ``n_classes``, ``repeat``, the columns of
        :func:`compare_scorers`, and ``accuracy``, that of the plain classifier where the method is ``"plain"``.

    Raises
    ------
    TypeError
        If `ood` or `counts` is of another type, or if there are `scorers` and the estimator is not a ``DFBDetector``.
    ValueError
        Before anything is fitted, if a count is out of range, if images and labels differ in number, if labels are
        missing or continuous, or if a class has no test images.

    See Also
    --------
    evaluate : The columns.
    LeaveClassesOut : The left-out classes are the unknown ones there.

    Notes
    -----
    This is the paper's Fig. 7, which has 200 to 1,000 classes of ImageNet.

    Compare ``auroc`` and ``fpr95`` between numbers of classes. ``aupr_in`` and ``aupr_out`` depend on the ratio of
    ``n_id`` to ``n_ood``, and more classes bring more test images.

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
    check_ood(ood)
    check_scalar(n_repeats, "n_repeats", Integral, min_val=1)
    _check_scorers(estimator, scorers)
    train, test = _labelled(X, y, ""), _labelled(X_test, y_test, "_test")
    classes = np.unique(train.labels)
    counts = _checked_counts(counts, len(classes))
    _check_tested(classes, test.labels)
    seeds = spawn_seeds(random_state, 2 * n_repeats)
    rows: Rows = []
    for repeat in range(n_repeats):
        # One order for all counts, so that smaller sets of classes are inside larger ones.
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
        classifies = can_classify(unwrapped(estimator)[0])
        return evaluation_rows(estimator, test.images, ood, test.labels if classifies else None)
    table = compare_scorers(estimator, test.images, ood, X=train.images, y=train.labels, scorers=scorers)
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    accuracy = class_accuracy(estimator, test.images, test.labels)
    return [row | {"accuracy": accuracy["plain" if row["method"] == "plain" else "dfb"]} for row in rows]


def _seeded(estimator: Any, seed: int) -> Any:
    """Set each ``random_state`` that is None, also in nested objects."""
    parameters = estimator.get_params(deep=True)
    missing = sorted(
        name for name, value in parameters.items() if name.split("__")[-1] == "random_state" and value is None
    )
    return estimator.set_params(**dict(zip(missing, spawn_seeds(seed, len(missing)), strict=True)))


def _subset(X: Any, rows: npt.NDArray[np.intp]) -> Any:
    if isinstance(X, Images):
        return X.subset(rows)
    return Subset(X, rows.tolist()) if isinstance(X, Dataset) else _safe_indexing(X, rows)


def _labelled(X: Any, y: Any, suffix: str) -> _LabelledImages:
    """Check images and labels against each other."""
    y = labels_given(X, y)
    if y is None:
        raise ValueError(f"y{suffix} is None: expected one class label per image of X{suffix}.")
    y = column_or_1d(y, warn=True)
    assert_all_finite(y, input_name=f"y{suffix}")
    check_classification_targets(y)
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
                f"counts={listed}: {count} is out of range: expected 2 to {n_classes}, the number of classes of y."
            )
    return [int(count) for count in listed]


def _check_tested(classes: npt.NDArray[Any], test_labels: npt.NDArray[Any]) -> None:
    untested = classes[~labels_in(classes, test_labels)]
    if len(untested):
        raise ValueError(
            f"y_test has no image of {len(untested)} of the {len(classes)} classes of y, {shown_labels(untested)}; "
            "each class may be drawn and needs test images: give some, or leave the class out of X and y."
        )


def _check_scorers(estimator: Any, scorers: Any) -> None:
    if scorers is None:
        return
    if not isinstance(estimator, DFBDetector):
        raise TypeError(
            f"scorers are given, but {estimator!r} is no DFBDetector: expected scorers=None. Set its own scorer, and "
            "run the sweep once per scorer."
        )
    check_scorers(scorers)
