"""Metrics of a detector for each OOD set, with confidence intervals."""

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_scalar
from sklearn.utils.validation import _num_samples

from skdfb._progress import progress
from skdfb.evaluation._bootstrap import bootstrap_metrics, bootstrap_share, percentile_interval
from skdfb.evaluation._detectors import checked_labels, known_images
from skdfb.evaluation._table import Table, check_ood, metric_values
from skdfb.metrics import oscr_score
from skdfb.utils import check_scores, last_step, scoring_method, spawn_seeds

__all__ = ["evaluate", "evaluation_rows"]

Hits = npt.NDArray[np.bool_]


class _Scored(NamedTuple):
    """The outputs of a detector for n images; None for an output that it does not have."""

    scores: npt.NDArray[np.float64]  # (n,)
    rejected: Hits | None  # (n,)
    correct: Hits | None = None  # (n,)


class _Seeds(NamedTuple):
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
    verbose: int = 0,
) -> Table:
    r"""Measure how well a fitted detector separates in-distribution from OOD images.

    Each image set is scored once.

    Parameters
    ----------
    detector : estimator
        Fitted, with ``score_samples`` (or, without it, ``decision_function``), higher for more in-distribution images:
        a :class:`~skdfb.DFBDetector`, a :class:`~skdfb.detector.FeatureDetector`, an outlier detector of scikit-learn,
        or a pipeline or a parameter search that ends in one.
    X_id : images or features
        The n_id test images of the known classes, in any form that the detector takes.
    ood : mapping of str to images or features
        OOD test images by name, such as ``{"textures": "textures/"}`` for those of a folder.
    y_id : array-like of shape (n_id,), default=None
        Labels of these images. None takes those of a folder of class folders, and else computes neither accuracy nor
        OSCR.
    n_bootstrap : int, default=1000
        Number of bootstrap resamples for the intervals; 0 leaves the intervals out.
    confidence : float, default=0.95
        Confidence level of the intervals, in (0, 1).
    random_state : int, RandomState or None, default=None
        Fixes the resamples. With an int, the row of an OOD set does not depend on the other sets.
    verbose : int, default=0
        1 shows progress bars for image sets and resamples that take long.

    Returns
    -------
    table : Table
        One row per OOD set, with the columns

        - ``ood``: name of the set; ``n_id``, ``n_ood``: numbers of images;
        - ``auroc``, ``aupr_in``, ``aupr_out``, ``fpr95``: see :mod:`skdfb.metrics`. In-distribution is the positive
          class, except in ``aupr_out``;
        - ``oscr``: :func:`~skdfb.metrics.oscr_score`, which counts in-distribution images only if their label is
          predicted correctly; NaN without labels;
        - ``accuracy``: share of the in-distribution images whose label is predicted correctly, including rejected
          images; NaN without labels;
        - ``id_rejected``, ``ood_rejected``: shares of the in-distribution and of the OOD images with a score below the
          threshold of the detector; NaN if it has none;
        - the ends of the interval of each of these eight metrics: ``auroc_low``, ``auroc_high``, and so on.

        All metrics are fractions. ``accuracy`` and ``id_rejected`` are the same in each row.

    Raises
    ------
    TypeError
        If `ood` is not a mapping or is empty, if the detector has no scores, or if there are labels, but the detector
        does not classify.
    ValueError
        If `y_id` and `X_id` differ in length, if a label or a class folder is not a class of ``fit``, if scores are not
        1-d or hold NaN, or if a parameter is out of range.

    See Also
    --------
    compare_scorers : Several scorers on the networks of one detector.
    temperature_sweep : Several temperatures.
    skdfb.metrics : The metrics themselves.

    Notes
    -----
    The intervals are percentile intervals of the stratified bootstrap: in-distribution and OOD images are resampled
    separately, with replacement, to as many as there are. The threshold of ``fpr95`` is computed again in each
    resample. The intervals cover the random choice of *test images* for this detector. They do not cover the variation
    between training runs. A metric that is 0 or 1 in all resamples gets an interval of width 0, which is too narrow: if
    none of n images is rejected, shares up to about 3 / n are plausible at 95 %.

    The intervals of two detectors on the same images exaggerate the uncertainty of their difference, since the same
    images are hard for both.

    Images with a score below the threshold are rejected. The threshold is ``offset_`` for ``score_samples`` and 0 for
    ``decision_function``. A detector with ``score_samples`` and without ``offset_`` has no threshold.

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
    with progress(verbose):
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
    # 1. Check all arguments before any image is scored.
    ood = check_ood(ood)
    seeds = _Seeds(*spawn_seeds(random_state, len(_Seeds._fields)))
    step, prepared = last_step(detector)
    X_id, y_id = known_images(step, X_id, y_id, "X_id")
    labels = None if y_id is None else checked_labels(step, y_id, _num_samples(X_id), "X_id", "y_id")
    # 2. Score the in-distribution images once, then each OOD set.
    known = _scored(step, prepared(X_id), "X_id", labels)
    rows = []
    for name, X in ood.items():
        unknown = _scored(step, prepared(X), f"ood[{name!r}]")
        metrics, samples = _metrics(known, unknown), _bootstrap_samples(known, unknown, n_bootstrap, seeds)
        row = {"ood": name, "n_id": len(known.scores), "n_ood": len(unknown.scores), **metrics}
        for metric, values in samples.items():
            row[f"{metric}_low"], row[f"{metric}_high"] = percentile_interval(values, confidence)
        rows.append(row)
    return rows


def _metrics(known: _Scored, unknown: _Scored) -> dict[str, float]:
    shares = {name: float("nan") if hits is None else float(np.mean(hits)) for name, hits in _hits(known, unknown)}
    oscr = float("nan") if known.correct is None else oscr_score(known.scores, unknown.scores, known.correct)
    return metric_values(known.scores, unknown.scores) | {"oscr": oscr} | shares


def _bootstrap_samples(
    known: _Scored, unknown: _Scored, n_bootstrap: int, seeds: _Seeds
) -> dict[str, npt.NDArray[np.float64]]:
    """Return each metric in each resample, (n_bootstrap,); an empty dict if there are no resamples."""
    if n_bootstrap == 0:
        return {}
    samples = bootstrap_metrics(
        known.scores,
        unknown.scores,
        n_bootstrap=n_bootstrap,
        id_seed=seeds.id_images,
        ood_seed=seeds.ood_images,
        correct=known.correct,
    )
    nothing = np.full(n_bootstrap, np.nan)
    samples.setdefault("oscr", nothing)
    # Shares have one seed, so that those of the in-distribution images are the same in each row.
    for name, hits in _hits(known, unknown):
        samples[name] = nothing if hits is None else bootstrap_share(hits, n_bootstrap=n_bootstrap, seed=seeds.shares)
    return samples


def _hits(known: _Scored, unknown: _Scored) -> list[tuple[str, Hits | None]]:
    return [("accuracy", known.correct), ("id_rejected", known.rejected), ("ood_rejected", unknown.rejected)]


def _scored(step: Any, X: Any, name: str, y: npt.NDArray[Any] | None = None) -> _Scored:
    """Return the scores, which images are rejected and, with labels y, which are classified correctly."""
    with progress(label=f"scoring {name}"):
        scores, labels = _scores_and_labels(step, X, y is not None)
    scores = check_scores(scores, f"the scores of {name}", allow_infinite=True)
    # As in scikit-learn's outlier detectors: decision_function = score_samples - offset_.
    threshold = getattr(step, "offset_", None) if hasattr(step, "score_samples") else 0.0
    return _Scored(scores, None if threshold is None else scores < threshold, None if y is None else labels == y)


def _scores_and_labels(step: Any, X: Any, with_labels: bool) -> tuple[Any, Any]:
    score = scoring_method(step)
    if not with_labels:
        return score(X), None
    if hasattr(step, "score_and_classify"):  # both from one pass of the networks
        scores, labels = step.score_and_classify(X)
        return scores, labels
    if hasattr(step, "classify"):
        return score(X), step.classify(X)
    return score(X), np.asarray(step.classes_)[np.argmax(step.predict_proba(X), axis=1)]
