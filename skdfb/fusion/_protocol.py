"""What the detector asks of a fusion."""

from collections.abc import Mapping
from typing import Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt


@runtime_checkable
class Fusion(Protocol):
    """A rule that joins named parts, each a score an image, into one score an image.

    Nothing is to be inherited. The detector names its parts "foreground" and "background", or, where there are
    several, names that start with these words, such as "background_logit". `fit` may take a keyword `outputs`, a
    mapping from the name of a part to its output kind ("logit", "probability" or "log_probability"): it is passed
    only to a fusion that accepts it. An attribute ``learns_from_scores = False`` says that `fit` learns nothing from
    the scores; without it, the detector holds back half of the held-out images from the threshold to fit the fusion.

    See Also
    --------
    TemperatureFusion : Eq. 7 of the paper.
    TailProbabilityFusion : Any number of parts of any scale.

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
        """Learn the scales of the parts.

        Parameters
        ----------
        parts : mapping of str to ndarray of shape (n,)
            Scores of in-distribution images by the name of the part; higher is more in-distribution. They must not
            also set the threshold.

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
            Scores of any images under the names given to `fit`.

        Returns
        -------
        ndarray of shape (n,)
            Joint scores; higher is more in-distribution.
        """
        ...
