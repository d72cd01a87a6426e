"""How the shared checks use an object: its data, its calls and its result."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from skdfb.testing._shared._demands import Array, fresh_copy


class Usage(ABC):
    """What a suite supplies to the checks that all suites share.

    Attributes
    ----------
    noun : str
        What the object returns, in the plural, for messages.
    fit_method : str
        Name of the method that learns.
    result_method : str
        Name of the method that returns the result for new data.
    """

    noun: ClassVar[str]
    fit_method: ClassVar[str] = "fit"
    result_method: ClassVar[str]

    @abstractmethod
    def training_data(self, instance: Any, seed: int = 0) -> Any:
        """Return data for :meth:`fit`."""

    @abstractmethod
    def new_data(self, instance: Any, seed: int = 1) -> Any:
        """Return data for :meth:`result`."""

    @abstractmethod
    def contents(self, data: Any) -> dict[str, bytes]:
        """Return the bytes of all arrays in training data or new data by name."""

    @abstractmethod
    def fit(self, instance: Any, data: Any) -> Any:
        """Call the method that learns, and return what it returned."""

    @abstractmethod
    def result(self, fitted: Any, data: Any) -> Array:
        """Return the result for new data, in a type that holds differences exactly enough."""

    def fitted(self, instance: Any, data: Any = None) -> Any:
        """Return a fitted copy. It does not rely on what `fit` returned."""
        fresh = fresh_copy(instance)
        self.fit(fresh, self.training_data(instance) if data is None else data)
        return fresh

    def run(self, instance: Any, seed: int = 0) -> Array:
        """Fit the object itself on the training data of a seed, and return its result for new data."""
        self.fit(instance, self.training_data(instance, seed))
        return self.result(instance, self.new_data(instance))


class ScoringUsage(Usage):
    """The usage of objects that return one score per image; data can be indexed by rows."""

    noun: ClassVar[str] = "scores"

    @abstractmethod
    def new_data(self, instance: Any, seed: int = 1, n: int = 60) -> Any:
        """Return the data of n images."""

    @abstractmethod
    def training_images(self, instance: Any) -> Any:
        """Return the training data as data of n images to score."""

    @abstractmethod
    def raw_result(self, fitted: Any, data: Any) -> Array:
        """Return the scores as an array of their own type."""

    def result(self, fitted: Any, data: Any) -> Array:
        """Return the scores in float64."""
        return np.asarray(self.raw_result(fitted, data), dtype=np.float64)
