"""What cross-validators by classes share: some classes are known, others appear in the test part alone."""

import os
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils import check_random_state, indexable

from skdfb.images import encode_labels, label_array, shown

__all__ = ["LEAST_KNOWN", "ClassSplitter", "distinct_classes"]

LEAST_KNOWN = 2  # classes that a classifier can still be trained on

Indices = npt.NDArray[np.intp]


class ClassSplitter(BaseCrossValidator):
    """Cross-validator whose test part has held-out images of known classes and all images of unknown classes.

    A subclass has the attributes `n_splits`, `test_size` and `random_state`, and draws the classes of each split.
    """

    n_splits: int
    test_size: float
    random_state: int | np.random.RandomState | None

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of splits.

        Parameters
        ----------
        X, y, groups : object, default=None
            Ignored.

        Returns
        -------
        n_splits : int
            The parameter `n_splits`.
        """
        return int(self.n_splits)

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[Indices, Indices]]:
        """Generate training and test indices.

        Parameters
        ----------
        X : array-like or sequence of length n
            Images or features; only their number matters.
        y : array-like of shape (n,)
            Class labels of any kind.
        groups : object, default=None
            Ignored, with a warning: images of one group may be in both parts.

        Yields
        ------
        train : ndarray of shape (n_train,)
            Indices of the training part, ascending.
        test : ndarray of shape (n_test,)
            Indices of the test part, ascending.

        Raises
        ------
        ValueError
            See the class. It is raised when the first split is requested, since this is a generator.
        """
        if groups is not None:
            name = type(self).__name__
            warnings.warn(f"The groups parameter is ignored by {name}.", UserWarning, stacklevel=2)
        if isinstance(X, str | os.PathLike):
            raise TypeError(
                f"X is the path {str(X)!r}: expected a list, an array or a dataset, of which a split can take "
                "some images; pass load_image_folder(X).paths and its labels."
            )
        X, y = indexable(X, y)
        classes, indices, counts = distinct_classes(y)
        self._check_number(len(classes))
        if counts.min() < 2:
            raise ValueError(
                f"y: class {shown(classes.tolist()[counts.argmin()])} has 1 image: expected at least 2 per class, one "
                "to train on and one to test. Add images of this class, or remove it."
            )
        rng = check_random_state(self.random_state)
        class_splits = self._class_splits(len(classes), rng)
        # For each class, its images in random order; those to test next come first.
        members = [rng.permutation(np.flatnonzero(indices == k)) for k in range(len(classes))]
        n_tested = [int(np.clip(round(self.test_size * n), 1, n - 1)) for n in counts.tolist()]
        for known, unknown in class_splits:
            train, test = [], [members[k] for k in unknown]
            for k in known:
                images, n = members[k], n_tested[k]
                test.append(images[:n])
                train.append(images[n:])
                members[k] = np.roll(images, -n)  # the tested images go to the end
            yield np.sort(np.concatenate(train)), np.sort(np.concatenate(test))

    @abstractmethod
    def _class_splits(self, n_classes: int, rng: np.random.RandomState) -> Iterable[tuple[Indices, Indices]]:
        """Return the indices of the known and of the unknown classes of each split.

        A list is drawn before the images are shuffled, a generator after it.
        """

    @abstractmethod
    def _check_number(self, n_classes: int) -> None:
        """Refuse a number of classes from which the classes of a split cannot be drawn."""


def distinct_classes(y: Any) -> tuple[npt.NDArray[Any], Indices, Indices]:
    """Return the sorted classes (K,), the class index of each label (n,) and the number of images per class (K,)."""
    if y is None:
        raise ValueError("y is None: expected one class label per image.")
    classes, indices = encode_labels(label_array(y))
    return classes, indices, np.bincount(indices)
