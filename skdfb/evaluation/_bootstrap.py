"""Bootstrap distributions of the metrics, computed from counts instead of resampled scores."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from skdfb._progress import progress_bar

__all__ = ["bootstrap_metrics", "bootstrap_share", "metrics_of_counts", "oscr_of_counts", "percentile_interval"]

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.intp]

# Counts per side that are processed at once. They fit into a processor's cache: 2**18 take three times as long.
_MOST_COUNTS = 2**16
_FEW = 100  # such pieces that need no progress bar


def bootstrap_metrics(
    id_scores: Floats,
    ood_scores: Floats,
    *,
    n_bootstrap: int,
    id_seed: int,
    ood_seed: int,
    correct: npt.NDArray[np.bool_] | None = None,
) -> dict[str, Floats]:
    """Return each metric in each resample, shape (n_bootstrap,).

    OSCR is one of them if `correct` says which ID images are classified correctly.

    ID and OOD images are resampled separately, to as many as there are. A resample counts how often each image was
    drawn. After all scores are sorted once, the metrics of a resample are cumulative sums of its counts. The draws of a
    side depend on its seed and its number of images alone.
    """
    # The place of a score is its rank among the different scores; metrics depend on ranks only.
    levels, places = np.unique(np.concatenate([id_scores, ood_scores]), return_inverse=True)
    # Two places per level for ID images: for those that are classified wrongly and correctly.
    hits = np.zeros(len(id_scores), dtype=bool) if correct is None else correct
    # Sorted, so that the order of the images does not matter.
    id_places, ood_places = np.sort(2 * places[: len(id_scores)] + hits), np.sort(places[len(id_scores) :])
    n_at_once = max(1, _MOST_COUNTS // len(levels))
    batches = [min(n_at_once, n_bootstrap - start) for start in range(0, n_bootstrap, n_at_once)]
    found = []
    with progress_bar(n_bootstrap, "bootstrap", unit="resample", is_long=len(batches) > _FEW) as bar:
        for id_counts, ood_counts in zip(
            _drawn_counts(id_places, 2 * len(levels), batches, id_seed),
            _drawn_counts(ood_places, len(levels), batches, ood_seed),
            strict=True,
        ):
            correct_counts = id_counts[:, 1::2]
            values = metrics_of_counts(id_counts[:, ::2] + correct_counts, ood_counts)
            oscr = {} if correct is None else {"oscr": oscr_of_counts(correct_counts, ood_counts, len(id_scores))}
            found.append(values | oscr)
            bar.update(len(id_counts))
    return {name: np.concatenate([values[name] for values in found]) for name in found[0]}


def _drawn_counts(places: Counts, n_levels: int, batches: list[int], seed: int) -> Iterator[Counts]:
    """Yield how often images at each level were drawn, (b, n_levels), for b resamples at a time."""
    rng = np.random.default_rng(seed)
    for b in batches:
        # Each resample has its own range of levels, so that one bincount serves all b of them.
        drawn = places[rng.integers(0, len(places), size=(b, len(places)))]
        drawn += n_levels * np.arange(b)[:, None]
        yield np.bincount(drawn.ravel(), minlength=b * n_levels).reshape(b, n_levels)


def metrics_of_counts(id_counts: Counts, ood_counts: Counts) -> dict[str, Floats]:
    """Return the metrics of b sets of scores that are given as histograms, one per row.

    Both arrays have the shape (b, n_levels). Column j counts the images at the j-th lowest score, which may be 0. All
    rows of a side have the same sum. The metrics are those of :mod:`skdfb.metrics`, shape (b,).
    """
    n_id, n_ood = int(id_counts[0].sum()), int(ood_counts[0].sum())
    id_up_to, ood_up_to = id_counts.cumsum(1), ood_counts.cumsum(1)
    id_from, ood_from = n_id - id_up_to + id_counts, n_ood - ood_up_to + ood_counts
    # The highest threshold that keeps 95 % of the ID images, in integers: 0.95 * n is subject to rounding.
    n_kept = -(-95 * n_id // 100)
    threshold = (id_from >= n_kept).sum(1) - 1
    return {
        "auroc": oscr_of_counts(id_counts, ood_counts, n_id),  # as if all images were classified correctly
        "aupr_in": _average_precision(id_counts, id_from, ood_from),
        "aupr_out": _average_precision(ood_counts, ood_up_to, id_up_to),
        "fpr95": np.take_along_axis(ood_from, threshold[:, None], axis=1)[:, 0] / n_ood,
    }


def oscr_of_counts(correct_counts: Counts, ood_counts: Counts, n_id: int) -> Floats:
    """Return OSCR, shape (b,), from histograms of the ID images that are classified correctly and of OOD images."""
    # Twice the number of (ID, OOD) pairs with the higher ID score; a tie counts as half a pair.
    pairs_won_twice = (correct_counts * (2 * ood_counts.cumsum(1) - ood_counts)).sum(1)
    values: Floats = pairs_won_twice / (2 * n_id * int(ood_counts[0].sum()))
    return values


def _average_precision(positives: Counts, true_positives: Counts, false_positives: Counts) -> Floats:
    # At a level with no positives so far the term is 0: the maximum only avoids 0 / 0.
    precision = true_positives / np.maximum(true_positives + false_positives, 1)
    values: Floats = (positives * precision).sum(1) / positives.sum(1)
    return values


def bootstrap_share(hits: npt.NDArray[np.bool_], *, n_bootstrap: int, seed: int) -> Floats:
    """Return the share of hits in each resample, shape (n_bootstrap,)."""
    # The number of hits in a draw with replacement is binomial, so that no images need to be drawn.
    n = len(hits)
    return np.random.default_rng(seed).binomial(n, np.mean(hits), size=n_bootstrap) / n


def percentile_interval(values: Floats, confidence: float) -> tuple[float, float]:
    """Return the interval that excludes (1 - confidence) / 2 of the values on each side."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
