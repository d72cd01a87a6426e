"""ODIN: the softmax at a high temperature, on perturbed images."""

from collections.abc import Iterator
from numbers import Real
from typing import Any, ClassVar

from torch import Tensor

from skdfb._constraints import Interval
from skdfb.scorers._base import BaseScorer, as_double
from skdfb.scorers._protocol import ScorerOutput
from skdfb.scorers._representation import Representation
from skdfb.scorers._softmax import Softmax


class ODIN(BaseScorer):
    r"""Logarithm of the maximum softmax probability at a high temperature, on perturbed images.

    .. math::

        S(x) = o(z(x')), \qquad o(z) = \max_k \log \mathrm{softmax}(z / T)_k, \qquad
        x' = x + \varepsilon \, \mathrm{sign}(\nabla_x o(z(x))) / \sigma

    where z(x) are the K logits of the normalised image x, T is `temperature`, ε is `input_perturbation` and σ is the
    standard deviation of each channel that the image is normalised with. Higher is more in-distribution; the largest
    value is 0.

    Computing the perturbed image x' needs the network, and a scorer has no network. A detector computes x' and passes
    its representation to the scorer (see :class:`InputPerturbingScorer`). `fit` only records the sizes and accepts any
    representation.

    Parameters
    ----------
    temperature : float, default=1000.0
        Temperature T > 0.
    input_perturbation : float, default=0.0014
        Size ε of the perturbation in [0, 1], for pixel values in 0..1. With 0 the images are not perturbed and no
        network is needed.

    Attributes
    ----------
    n_features_in_ : int
        Number of features C in `fit`.
    n_classes_ : int
        Number of classes K in `fit`, at least 2.
    output : str
        "log_probability": the exponential of the score is the probability in Eq. 7 of DFB (see
        :class:`~skdfb.fusion.TemperatureFusion`).

    See Also
    --------
    MSP : The same score at T = 1 without perturbation.

    Notes
    -----
    At T = 1000 the probabilities of all images are close to 1 / K. To keep their differences, the score is computed in
    float64 as :math:`-\log(1 + \sum_{j \ne k} e^{(z_j - z_k) / T})`, where k is the class of the largest logit.
    `score_samples` raises ValueError if `representation.input_perturbation` differs from `input_perturbation`.

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
        """Return the quantity that the perturbation raises: the log of the largest softmax probability at T.

        Parameters
        ----------
        logits : Tensor of shape (n, K)
            Logits of the unperturbed images.

        Returns
        -------
        Tensor of shape (n,)
            Values in float64, differentiable with respect to `logits`. Each value depends only on its own row. The
            method works before `fit`.
        """
        # In float32 the differences between the logits would be lost at a high temperature.
        return -Softmax.of(as_double(logits) / self.temperature).log_normaliser[:, 0]

    def _check_scorable(self, representation: Representation) -> None:
        super()._check_scorable(representation)
        # Scores of unperturbed images are plausible numbers, so nothing else would show the mistake.
        if representation.input_perturbation != self.input_perturbation:
            raise ValueError(
                f"Expected representation.input_perturbation={self.input_perturbation!r}, as this ODIN has, got "
                f"{representation.input_perturbation!r}. Score images through a detector, which perturbs them, or use "
                "ODIN(input_perturbation=0)."
            )

    def _score_batches(self, representation: Representation) -> Iterator[Tensor]:
        for batch in representation.batches():
            yield self.perturbation_objective(batch.logits)
