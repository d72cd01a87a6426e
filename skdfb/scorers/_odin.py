"""ODIN: softmax at a high temperature, on perturbed images."""

from collections.abc import Iterator
from numbers import Real
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval
from torch import Tensor

from skdfb.scorers._base import BaseScorer, as_double
from skdfb.scorers._protocol import ScorerOutput
from skdfb.scorers._representation import Representation
from skdfb.scorers._softmax import Softmax


class ODIN(BaseScorer):
    r"""Maximum softmax probability at a high temperature, on perturbed images, as its logarithm.

    .. math::

        S(x) = o(z(x')), \qquad o(z) = \max_k \log \mathrm{softmax}(z / T)_k, \qquad
        x' = x + \varepsilon \, \mathrm{sign}(\nabla_x o(z(x))) / \sigma

    where z(x) are the K logits of the normalised image x, T is `temperature`, ε is `input_perturbation` and σ the
    normalising standard deviation of each channel. Higher is more in-distribution; the largest value is 0.

    The perturbed image needs the network, which no scorer has: a detector computes x' and hands over its
    representation (see :class:`InputPerturbingScorer`). `fit` only records the sizes and takes any representation.

    Parameters
    ----------
    temperature : float, default=1000.0
        T > 0.
    input_perturbation : float, default=0.0014
        ε in [0, 1], in pixel values of 0..1. With 0 the images stay as they are and no network is needed.

    Attributes
    ----------
    n_features_in_ : int
        Number of features C seen in `fit`.
    n_classes_ : int
        Number of classes K seen in `fit`, at least 2.
    output : str
        "log_probability": the exponential of the score is the probability of Eq. 7 of DFB (see
        :class:`~skdfb.fusion.TemperatureFusion`).

    See Also
    --------
    MSP : The same at T = 1 without perturbation.

    Notes
    -----
    At T = 1000 the probabilities of all images lie close to 1 / K; their differences are kept by computing
    :math:`-\log(1 + \sum_{j \ne k} e^{(z_j - z_k) / T})`, with k the largest logit, in float64. `score_samples`
    raises ValueError if `representation.input_perturbation` is not `input_perturbation`.

    References
    ----------
    Liang, Li and Srikant, *Enhancing the Reliability of Out-of-distribution Image Detection in Neural Networks*,
    ICLR 2018, arXiv 1706.02690.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.scorers import ODIN, Representation
    >>> features = np.array([[4.0, 0.0], [1.0, 1.0]])
    >>> representation = Representation.from_numpy(features=features, weight=np.eye(2), bias=np.zeros(2))
    >>> scorer = ODIN(input_perturbation=0).fit(representation)
    >>> np.exp(scorer.score_samples(representation)).round(4)
    array([0.501, 0.5  ])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "input_perturbation": [Interval(Real, 0, 1, closed="both")],
    }
    _min_classes = 2
    output: ScorerOutput = "log_probability"

    def __init__(self, temperature: float = 1000.0, input_perturbation: float = 0.0014) -> None:
        self.temperature = temperature
        self.input_perturbation = input_perturbation

    def perturbation_objective(self, logits: Tensor) -> Tensor:
        """Return the log of the largest softmax probability at the temperature, which the perturbation raises.

        Parameters
        ----------
        logits : Tensor of shape (n, K)
            Logits of the images as they are.

        Returns
        -------
        Tensor of shape (n,)
            In float64 and differentiable; each value depends on its own row alone. Works before `fit`.
        """
        # In float64 throughout: a high temperature takes what float32 leaves of differences.
        return -Softmax.of(as_double(logits) / self.temperature).log_normaliser[:, 0]

    def _check_scorable(self, representation: Representation) -> None:
        super()._check_scorable(representation)
        if representation.input_perturbation != self.input_perturbation:
            raise ValueError(
                f"representation.input_perturbation is {representation.input_perturbation!r}; this ODIN wants "
                f"{self.input_perturbation!r}. Score images through a detector, which perturbs them, or use "
                "ODIN(input_perturbation=0)."
            )

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        for batch in representation.batches():
            yield self.perturbation_objective(batch.logits)
