"""Energy: log-sum-exp of the logits."""

from collections.abc import Iterator
from numbers import Real
from typing import Any, ClassVar

from torch import Tensor

from skdfb._constraints import Interval
from skdfb.scorers._base import BaseScorer, as_double, logit_batches
from skdfb.scorers._representation import Representation
from skdfb.scorers._softmax import energy


class Energy(BaseScorer):
    r"""Negative free energy: the log-sum-exp of the logits.

    .. math:: S(x) = T \log \sum_k e^{z_k / T}

    where z are the K logits of image x and T is `temperature`. Higher is more in-distribution; the energy itself,
    -S, has the opposite sign. `fit` only records the sizes.

    Parameters
    ----------
    temperature : float, default=1.0
        Temperature T > 0. As T approaches 0, the score approaches that of :class:`MaxLogit`.

    Attributes
    ----------
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`.
    output : str
        "logit".

    See Also
    --------
    MaxLogit : The largest logit.
    ViM : Energy minus a residual of the features.

    References
    ----------
    Liu et al., *Energy-based Out-of-distribution Detection*, NeurIPS 2020, arXiv 2010.03759.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import Energy, Representation
    >>> features = np.array([[4.0, 0.0], [1.0, 1.0]])
    >>> representation = Representation.from_numpy(features=features, weight=np.eye(2), bias=np.zeros(2))
    >>> Energy().fit(representation).score_samples(representation).round(3)
    array([4.018, 1.693])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "temperature": [Interval(Real, 0, None, closed="neither")]
    }

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        for batch in logit_batches(representation):
            # At a high temperature, z / T is small beside log K, and float32 would lose digits. At 1, nothing is lost.
            z = batch.logits if self.temperature == 1 else as_double(batch.logits) / self.temperature
            yield self.temperature * energy(z)
