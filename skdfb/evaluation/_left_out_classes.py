"""Tuning without OOD images: some of the known classes take the place of unknown ones."""

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils import check_random_state, check_scalar

from skdfb.evaluation._class_splitter import LEAST_KNOWN, ClassSplitter, Indices
from skdfb.evaluation._detectors import labels_in, shown_labels
from skdfb.images import label_array
from skdfb.metrics import auroc_score
from skdfb.utils import scoring_method

__all__ = ["LeaveClassesOut", "left_out_auroc"]


class LeaveClassesOut(ClassSplitter):
    r"""Cross-validator whose test parts contain classes that the training part does not contain.

    In each split some classes are left out: all their images are in the test part. Of each other class, a share of the
    images is in the test part and the rest in the training part. With :func:`left_out_auroc` as the metric, a parameter
    search chooses parameters of an OOD detector from labelled in-distribution images alone.

    Parameters
    ----------
    n_splits : int, default=5
        Number of splits; with ``n_left_out=None`` at most the number of classes.
    n_left_out : int, default=None
        Number of classes that are left out in each split. None divides all classes into `n_splits` random groups, so
        that each class is left out in one split. With a number, the classes are left out equally often, or some of them
        once more than others.
    test_size : float, default=0.2
        Share of the images of each kept class that is in the test part, in (0, 1). At least one image of each kept
        class is in the test part, and at least one in the training part.
    random_state : int, RandomState or None, default=None
        Fixes which classes are left out together and which images are in the test part. With an int, each call of
        `split` gives the same splits.

    Raises
    ------
    TypeError, ValueError
        From the constructor if a parameter is out of range; from `split` if `y` is missing or is not class labels, if a
        class has one image, or if fewer than two classes would be kept.

    See Also
    --------
    left_out_auroc : How well an estimator separates kept from left-out classes.
    OpenSetSplit : Draws the numbers of known and of unknown classes, to measure a detector.
    skdfb.detector.FeatureDetector : A detector that is fitted in seconds.

    Notes
    -----
    All images of the left-out classes are in the test part, not a share of them: the expected AUROC does not depend on
    the number of images, and more images make it less noisy. (AUPR does depend on the numbers.)

    The images of a kept class are tested in turn, in a random order, so that no image is tested twice before all have
    been tested once. The mean over the splits then covers more images than with independent draws.

    Left-out classes represent unknown images *of the same kind*: similar photographs of objects that are not among the
    labels. They say little about noise, or about images from other sources.

    References
    ----------
    Vyas et al., "Out-of-Distribution Detection Using an Ensemble of Self Supervised Leave-out Classifiers", ECCV 2018,
    :arxiv:`1809.03576`. It leaves out classes to train classifiers, not to tune them.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.evaluation import LeaveClassesOut
    >>> y = np.repeat(["ant", "bee", "cat", "dog"], 10)
    >>> X = np.zeros((40, 2))
    >>> for train, test in LeaveClassesOut(n_splits=2, random_state=0).split(X, y):
    ...     print(np.unique(y[train]), len(train), len(test))
    ['bee' 'dog'] 16 24
    ['ant' 'cat'] 16 24
    """

    def __init__(
        self,
        n_splits: int = 5,
        *,
        n_left_out: int | None = None,
        test_size: float = 0.2,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        check_scalar(n_splits, "n_splits", Integral, min_val=1)
        if n_left_out is not None:
            check_scalar(n_left_out, "n_left_out", Integral, min_val=1)
        check_scalar(test_size, "test_size", Real, min_val=0, max_val=1, include_boundaries="neither")
        check_random_state(random_state)
        self.n_splits = n_splits
        self.n_left_out = n_left_out
        self.test_size = test_size
        self.random_state = random_state

    def _class_splits(self, n_classes: int, rng: np.random.RandomState) -> Iterator[tuple[Indices, Indices]]:
        for left_out in self._left_out_classes(n_classes, rng):
            yield np.setdiff1d(np.arange(n_classes), left_out), left_out

    def _left_out_classes(self, n_classes: int, rng: np.random.RandomState) -> Iterator[Indices]:
        """Yield the class indices left out in each split: those left out least often so far, with ties at random."""
        n_times = np.zeros(n_classes, dtype=np.intp)  # how often each class was left out
        for size in self._group_sizes(n_classes):
            # The stable sort keeps the random order among classes that were left out equally often.
            order = rng.permutation(n_classes)
            left_out = order[np.argsort(n_times[order], kind="stable")[:size]]
            n_times[left_out] += 1
            yield left_out

    def _group_sizes(self, n_classes: int) -> list[int]:
        if self.n_left_out is not None:
            return [self.n_left_out] * self.n_splits
        return [len(part) for part in np.array_split(np.arange(n_classes), self.n_splits)]

    def _check_number(self, n_classes: int) -> None:
        if n_classes <= LEAST_KNOWN:
            raise ValueError(
                f"y has {n_classes} class(es): expected at least {LEAST_KNOWN + 1}, to leave one out and keep "
                f"{LEAST_KNOWN}."
            )
        if self.n_left_out is None and self.n_splits > n_classes:
            raise ValueError(
                f"n_splits={self.n_splits} is more than the {n_classes} classes of y, each of which is left out once: "
                f"expected n_splits <= {n_classes}. Lower n_splits, or pass n_left_out, which leaves classes out "
                "repeatedly."
            )
        # A classifier needs two classes.
        n_left_out = max(self._group_sizes(n_classes))
        if n_classes - n_left_out < LEAST_KNOWN:
            remedy = "Raise n_splits" if self.n_left_out is None else "Lower n_left_out"
            raise ValueError(
                f"n_splits={self.n_splits}, n_left_out={self.n_left_out} leaves out {n_left_out} of the {n_classes} "
                f"classes of y: expected at least {LEAST_KNOWN} to be kept. {remedy}, or add classes."
            )


def left_out_auroc(estimator: Any, X: Any, y: Any) -> float:
    """Compute the AUROC between images of the classes of a fitted estimator and images of other classes.

    Pass it as ``scoring=`` to ``GridSearchCV`` or ``cross_val_score`` of scikit-learn, with ``cv=LeaveClassesOut()``.

    Parameters
    ----------
    estimator : estimator
        Fitted, with ``classes_`` and ``score_samples`` (or, without it, ``decision_function``), higher for more
        in-distribution images: a detector, or a pipeline that ends in one.
    X : array-like or sequence of length n
        Images or features of kept and of left-out classes.
    y : array-like of shape (n,)
        Their labels. Images with a label in ``estimator.classes_`` are in-distribution, all others are OOD.

    Returns
    -------
    auroc : float
        In [0, 1]; 1 if all in-distribution images score higher than all others, 0.5 for chance.

    Raises
    ------
    TypeError
        If the estimator has no ``classes_``, or neither ``score_samples`` nor ``decision_function``.
    ValueError
        If `y` is None, or if all labels are in ``classes_``, or none of them.

    See Also
    --------
    LeaveClassesOut : Makes the splits.
    skdfb.metrics.auroc_score : The metric itself.

    Notes
    -----
    A pipeline has ``classes_`` and ``score_samples`` of its last step. ``score_samples`` is preferred because
    ``decision_function`` is infinite for every image of a detector with ``alpha=None``.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skdfb.detector import FeatureDetector
    >>> from skdfb.evaluation import LeaveClassesOut, left_out_auroc
    >>> from skdfb.scorers import ViM
    >>> X, y = load_digits(return_X_y=True)
    >>> search = GridSearchCV(
    ...     FeatureDetector(ViM(), random_state=0),
    ...     {"scorer__n_components": [2, 20]},
    ...     cv=LeaveClassesOut(n_splits=2, random_state=0),
    ...     scoring=left_out_auroc,
    ... ).fit(X / 16, y)
    >>> search.best_params_
    {'scorer__n_components': 20}
    """
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        raise TypeError(
            f"{estimator!r} has no classes_, which separate known labels from left-out ones: expected a fitted "
            "detector such as FeatureDetector or DFBDetector, or a pipeline that ends in one."
        )
    if y is None:
        raise ValueError("y is None: expected one label per image, also for images of left-out classes.")
    # The estimator was fitted on the training part, so the labels that it does not know are those of left-out classes.
    known = labels_in(label_array(y), classes)
    if known.all() or not known.any():
        raise ValueError(
            f"{'All' if known.all() else 'None'} of the labels of y are classes of the estimator, "
            f"{shown_labels(classes)}: expected images of these and of other classes. Pass cv=LeaveClassesOut()."
        )
    scores = np.asarray(scoring_method(estimator)(X))
    return auroc_score(scores[known], scores[~known])
