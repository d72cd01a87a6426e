"""Metrics of a detector on each OOD set, with bootstrap intervals."""

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_scalar
from sklearn.utils.validation import _num_samples

from skdfb.evaluation._bootstrap import bootstrap_metrics, bootstrap_share, percentile_interval
from skdfb.evaluation._detectors import checked_labels, scoring_method, unwrapped
from skdfb.evaluation._table import Table, check_ood, metric_values
from skdfb.utils import check_scores, spawn_seeds

__all__ = ["evaluate", "evaluation_rows"]

Hits = npt.NDArray[np.bool_]


class _Scored(NamedTuple):
    """The scores of a set of images; whether each is rejected, and classified correctly, or None if not known."""

    scores: npt.NDArray[np.float64]
    rejected: Hits | None
    correct: Hits | None = None


class _Seeds(NamedTuple):
    """Seeds of the resamples; those of ID images and shares are the same for each OOD set."""

    id_images: int
    ood_images: int
    shares: int


def evaluate(
    detector: Any,
    X_id: Any,
    ood: Mapping[str, Any],
    y_id: Any = None,
    *,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_state: int | np.random.RandomState | None = None,
) -> Table:
    r"""Measure how well a fitted detector separates in-distribution from OOD images.

    Each set of images is scored once.

    Parameters
    ----------
    detector : estimator
        Fitted, with ``score_samples`` or, without it, ``decision_function``; higher is more in-distribution. It is a
        :class:`~skdfb.DFBDetector`, a :class:`~skdfb.detector.FeatureDetector`, an outlier detector of scikit-learn, or
        a pipeline or a parameter search that ends in one.
    X_id : images or features
        Test images of the known classes, in any form that the detector takes.
    ood : mapping of str to images or features
        OOD test images by name.
    y_id : array-like of shape (n_id,), default=None
        Labels of the in-distribution test images. Without them there is no accuracy.
    n_bootstrap : int, default=1000
        Number of resamples for the intervals; 0 leaves the intervals out.
    confidence : float, default=0.95
        Confidence level of the intervals, in (0, 1).
    random_state : int, RandomState or None, default=None
        Fixes the resamples. With an int, the row of a set does not depend on the other sets.

    Returns
    -------
    table : Table
        A row for each OOD set, with the columns

        - ``ood``: name of the set; ``n_id``, ``n_ood``: numbers of images;
        - ``auroc``, ``aupr_in``, ``aupr_out``, ``fpr95``: see :mod:`skdfb.metrics`; in-distribution is the positive
          class, except for ``aupr_out``;
        - ``accuracy``: share of the in-distribution images that are classified correctly, rejected or not; NaN without
          `y_id`;
        - ``id_rejected``, ``ood_rejected``: shares of the in-distribution and of the OOD images that score below the
          detector's threshold; NaN if it has none;
        - the ends of the interval of each of these seven metrics: ``auroc_low``, ``auroc_high``, and so on.

        All metrics are fractions. ``accuracy`` and ``id_rejected`` are the same in each row.

    Raises
    ------
    TypeError
        If `ood` is not a mapping or is empty, if the detector has no scores, or if there are labels and the detector
        does not classify.
    ValueError
        If there is not one label per image, if a label is not a class of the detector, if scores are not 1-d or contain
        NaN, or if a parameter is out of range.

    See Also
    --------
    compare_scorers : Several scorers on the networks of one detector.
    temperature_sweep : Several temperatures.
    skdfb.metrics : The metrics themselves.

    Notes
    -----
    The intervals are percentile intervals of the stratified bootstrap: in-distribution and OOD images are resampled
    separately, with replacement, to their own numbers, and the threshold of ``fpr95`` is set anew in each resample.
    They show how much a metric depends on the choice of *test images*, given this detector. They do not show how much
    it depends on the training run. A metric that is 0 or 1 in all resamples gets an interval of width 0, which is too
    narrow: if none of n images is rejected, shares up to about 3 / n are plausible at 95 %.

    Two detectors on the same images differ by less than their intervals suggest, since the same images are hard for
    both.

    The threshold is ``offset_`` for ``score_samples`` and 0 for ``decision_function``; images that score below it are
    rejected. A detector with ``score_samples`` and without ``offset_`` has no threshold.

    References
    ----------
    Efron and Tibshirani, *An Introduction to the Bootstrap*, Chapman & Hall, 1993, chapters 8 and 13.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdfb.detector import FeatureDetector
    >>> from skdfb.evaluation import evaluate
    >>> X, y = load_digits(return_X_y=True)
    >>> X, known = X / 16, y < 8
    >>> X_id, y_id, ood = X[known], y[known], {"eight": X[y == 8], "nine": X[y == 9]}
    >>> detector = FeatureDetector(random_state=0).fit(X_id[::2], y_id[::2])
    >>> table = evaluate(detector, X_id[1::2], ood, y_id[1::2], random_state=0)
    >>> table.ood.tolist(), table.n_ood.tolist()
    (['eight', 'nine'], [174, 180])
    >>> bool((table.auroc_low < table.auroc).all() and (table.auroc < table.auroc_high).all())
    True
    """
    check_scalar(n_bootstrap, "n_bootstrap", Integral, min_val=0)
    check_scalar(confidence, "confidence", Real, min_val=0, max_val=1, include_boundaries="neither")
    rows = evaluation_rows(
        detector, X_id, ood, y_id, n_bootstrap=n_bootstrap, confidence=confidence, random_state=random_state
    )
    return Table.from_rows(rows)


def evaluation_rows(
    detector: Any,
    X_id: Any,
    ood: Mapping[str, Any],
    y_id: Any,
    *,
    n_bootstrap: int = 0,
    confidence: float = 0.95,
    random_state: int | np.random.RandomState | None = None,
) -> list[dict[str, Any]]:
    """Return the rows of :func:`evaluate`."""
    # 1. Check everything before an image is scored.
    check_ood(ood)
    seeds = _Seeds(*spawn_seeds(random_state, len(_Seeds._fields)))
    step, prepared = unwrapped(detector)
    labels = None if y_id is None else checked_labels(step, y_id, _num_samples(X_id), "X_id", "y_id")

    # 2. Score each set once.
    known = _scored(step, prepared(X_id), "X_id", labels)
    rows = []
    for name, X in ood.items():
        unknown = _scored(step, prepared(X), f"ood[{name!r}]")
        metrics, samples = _all_metrics(known, unknown), _bootstrap_samples(known, unknown, n_bootstrap, seeds)
        row = {"ood": name, "n_id": len(known.scores), "n_ood": len(unknown.scores), **metrics}
        for metric, values in samples.items():
            row[f"{metric}_low"], row[f"{metric}_high"] = percentile_interval(values, confidence)
        rows.append(row)
    return rows


def _all_metrics(known: _Scored, unknown: _Scored) -> dict[str, float]:
    shares = {name: float("nan") if hits is None else float(np.mean(hits)) for name, hits in _hits(known, unknown)}
    return metric_values(known.scores, unknown.scores) | shares


def _bootstrap_samples(
    known: _Scored, unknown: _Scored, n_bootstrap: int, seeds: _Seeds
) -> dict[str, npt.NDArray[np.float64]]:
    """Return each metric in each resample; no metric without resamples."""
    if n_bootstrap == 0:
        return {}
    samples = bootstrap_metrics(
        known.scores,
        unknown.scores,
        n_bootstrap=n_bootstrap,
        id_seed=seeds.id_images,
        ood_seed=seeds.ood_images,
    )
    # Shares depend on one side only, so a single binomial draw is enough.
    for name, hits in _hits(known, unknown):
        missing = np.full(n_bootstrap, np.nan)
        samples[name] = missing if hits is None else bootstrap_share(hits, n_bootstrap=n_bootstrap, seed=seeds.shares)
    return samples


def _hits(known: _Scored, unknown: _Scored) -> list[tuple[str, Hits | None]]:
    """Return the columns that are shares of images, and which images count."""
    return [("accuracy", known.correct), ("id_rejected", known.rejected), ("ood_rejected", unknown.rejected)]


# ------------------------------------------------------------------ scoring


def _scored(step: Any, X: Any, name: str, y: npt.NDArray[Any] | None = None) -> _Scored:
    """Score images, and compare their predicted labels with ``y`` if it is given."""
    scores, labels = _scores_and_labels(step, X, y is not None)
    scores = check_scores(scores, f"the scores of {name}", allow_infinite=True)
    # scikit-learn's decision functions have the threshold 0.
    threshold = getattr(step, "offset_", None) if hasattr(step, "score_samples") else 0.0
    return _Scored(scores, None if threshold is None else scores < threshold, None if y is None else labels == y)


def _scores_and_labels(step: Any, X: Any, with_labels: bool) -> tuple[Any, Any]:
    """Return the scores of images, and their predicted labels or None."""
    score = scoring_method(step)
    if not with_labels:
        return score(X), None
    # One pass of the networks for both, if the detector has a method for it.
    if hasattr(step, "score_and_classify"):
        scores, labels = step.score_and_classify(X)
        return scores, labels
    if hasattr(step, "classify"):
        return score(X), step.classify(X)
    return score(X), np.asarray(step.classes_)[np.argmax(step.predict_proba(X), axis=1)]
