"""Splits into known and unknown classes, to measure how well a detector finds images of unknown classes."""

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state, check_scalar

from skdfb.evaluation._class_splitter import LEAST_KNOWN, ClassSplitter, Indices, distinct_classes

__all__ = ["OpenSetSplit"]


class OpenSetSplit(ClassSplitter):
    r"""Cross-validator that draws known and unknown classes, as in the experiments of open-set recognition.

    In each split, `n_known` classes are known and `n_unknown` others are unknown. The training part has images of the
    known classes. The test part has the other images of the known classes, and all images of the unknown ones. Images
    of any other class are in neither part.

    Parameters
    ----------
    n_known : int
        Number of known classes in each split, at least 2.
    n_unknown : int, default=None
        Number of unknown classes in each split, at least 1. None takes all classes that are not known.
    n_splits : int, default=5
        Number of splits.
    test_size : float, default=0.2
        Share of the images of each known class that is in the test part, in (0, 1). At least one image of each known
        class is in the test part, and at least one in the training part.
    random_state : int, RandomState or None, default=None
        Fixes the classes of the splits and which images are in the test part. With an int, each call of `split` gives
        the same splits, and `class_splits` their classes.

    Raises
    ------
    TypeError, ValueError
        From the constructor if a parameter is out of range; from `split` and `class_splits` if `y` is missing, is not
        class labels or has too few classes; from `split` if a class has one image.

    See Also
    --------
    LeaveClassesOut : Leaves each class out in turn, to choose parameters.
    open_set_protocol : The classes of published experiments.
    evaluate : Measures a detector on the test part.
    skdfb.metrics.open_set_f1_score : Measures the labels of the test part.

    Notes
    -----
    The classes of each split are drawn independently, as in the papers. So a class may be unknown in several splits or
    in none, and two splits may have the same classes if there are few.

    The images of a class are tested in turn, in a random order, in the splits in which it is known.

    The more alike known and unknown classes are, the harder a split is. Report the mean over several splits, and
    compare detectors on the same ones.

    References
    ----------
    Neal et al., "Open Set Learning with Counterfactual Images", ECCV 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.evaluation import OpenSetSplit
    >>> y = np.repeat(["ant", "bee", "cat", "dog"], 10)
    >>> cv = OpenSetSplit(n_known=2, n_unknown=1, n_splits=2, random_state=0)
    >>> for train, test in cv.split(np.zeros((40, 2)), y):
    ...     print(np.unique(y[train]), np.unique(y[test]), len(train), len(test))
    ['cat' 'dog'] ['bee' 'cat' 'dog'] 16 14
    ['ant' 'cat'] ['ant' 'bee' 'cat'] 16 14
    >>> for known, unknown in cv.class_splits(y):
    ...     print(known, unknown)
    ['cat' 'dog'] ['bee']
    ['ant' 'cat'] ['bee']
    """

    def __init__(
        self,
        n_known: int,
        n_unknown: int | None = None,
        *,
        n_splits: int = 5,
        test_size: float = 0.2,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        check_scalar(n_known, "n_known", Integral, min_val=LEAST_KNOWN)
        if n_unknown is not None:
            check_scalar(n_unknown, "n_unknown", Integral, min_val=1)
        check_scalar(n_splits, "n_splits", Integral, min_val=1)
        check_scalar(test_size, "test_size", Real, min_val=0, max_val=1, include_boundaries="neither")
        check_random_state(random_state)
        self.n_known = n_known
        self.n_unknown = n_unknown
        self.n_splits = n_splits
        self.test_size = test_size
        self.random_state = random_state

    def class_splits(self, y: npt.ArrayLike) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """Generate the known and the unknown classes of each split, for data with a test set of their own.

        Parameters
        ----------
        y : array-like of shape (n,)
            Class labels of images, or the classes themselves. How often a class occurs does not matter.

        Yields
        ------
        known : ndarray of shape (n_known,)
            Labels of the known classes, ascending.
        unknown : ndarray of shape (n_unknown,)
            Labels of the unknown classes, ascending.

        Raises
        ------
        ValueError
            See the class. It is raised when the first split is requested, since this is a generator.
        """
        classes, _, _ = distinct_classes(y)
        self._check_number(len(classes))
        for known, unknown in self._class_splits(len(classes), check_random_state(self.random_state)):
            yield classes[known], classes[unknown]

    def _class_splits(self, n_classes: int, rng: np.random.RandomState) -> list[tuple[Indices, Indices]]:
        # A list, drawn before any image is: so the classes do not depend on the images.
        orders = [rng.permutation(n_classes) for _ in range(self.n_splits)]
        end = n_classes if self.n_unknown is None else self.n_known + self.n_unknown
        return [(np.sort(order[: self.n_known]), np.sort(order[self.n_known : end])) for order in orders]

    def _check_number(self, n_classes: int) -> None:
        n_needed = self.n_known + (1 if self.n_unknown is None else self.n_unknown)
        if n_classes < n_needed:
            remedy = "Lower n_known" if self.n_unknown is None else "Lower n_known or n_unknown"
            raise ValueError(
                f"y has {n_classes} class(es): expected at least {n_needed} for n_known={self.n_known}, "
                f"n_unknown={self.n_unknown}. {remedy}, or add classes."
            )
