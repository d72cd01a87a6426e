"""The protocol of fusions: what a detector calls and reads."""

from collections.abc import Mapping
from typing import Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt


@runtime_checkable
class Fusion(Protocol):
    """A rule that joins named parts into one score per image.

    A class needs the methods `fit` and `combine`; it does not inherit from this one. The detector names its parts
    "foreground" and "background". Where there are several, the names start with these words, as in
    "background_logit". Three things are optional:

    - A method ``check_names(names)``, where names is an iterable of str. It raises a ValueError where the fusion cannot
      join parts of these names. A detector calls it before any training.
    - A keyword argument ``outputs`` of `fit`: a mapping from the name of a part to its output kind ("logit",
      "probability" or "log_probability"). A detector passes it only to a `fit` that accepts it.
    - An attribute ``learns_from_scores``, True if absent. False means that `fit` learns nothing from the scores.
      Otherwise the detector fits the fusion on half of the held-out images and sets the threshold on the other half.

    See Also
    --------
    TemperatureFusion : Eq. 7 of the paper.
    TailProbabilityFusion : Any number of parts of any scale.
    skdfb.testing.check_fusion : Checks of a third-party fusion.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.fusion import Fusion
    >>> class MinimumFusion:
    ...     def fit(self, parts):
    ...         return self
    ...
    ...     def combine(self, parts):
    ...         return np.min(list(parts.values()), axis=0)
    >>> isinstance(MinimumFusion(), Fusion)
    True
    """

    def fit(self, parts: Mapping[str, npt.NDArray[np.float64]]) -> Self:
        """Learn from the scores of in-distribution images.

        Parameters
        ----------
        parts : mapping of str to ndarray of shape (n,)
            Finite scores of in-distribution images by the name of the part; higher is more in-distribution. The
            threshold must be set on other images.

        Returns
        -------
        Fusion
            The fitted fusion.
        """
        ...

    def combine(self, parts: Mapping[str, npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        """Join the parts.

        Parameters
        ----------
        parts : mapping of str to ndarray of shape (n,)
            Finite scores of any images under the names given to `fit`, in any order.

        Returns
        -------
        ndarray of shape (n,)
            Joint scores, one per image; higher is more in-distribution.
        """
        ...
