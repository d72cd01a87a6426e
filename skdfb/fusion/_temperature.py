"""Eq. 7 of DFB: the foreground score plus the background score divided by a temperature."""

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils.validation import check_is_fitted

from skdfb._constraints import Interval
from skdfb.fusion._parts import check_parts

_OUTPUTS = ("logit", "probability", "log_probability")


class TemperatureFusion(BaseEstimator):
    r"""Joint score of the paper: the sum of one foreground and one background part, on a fixed scale.

    It is Eq. 7 of DFB.

    Parameters
    ----------
    temperature : float, default=2.5
        Divisor T of the background score where the foreground score comes from logits; greater than 0. A larger
        value gives the background less weight.
    probability_temperature : float, default=1.0
        Divisor of the logarithm of the background score where the foreground score is a probability; greater than 0.

    Attributes
    ----------
    part_names_ : tuple of str
        Names of the foreground part and of the background part.
    outputs_ : dict of str to str
        Output kind of each part: "logit", "probability" or "log_probability". Only that of the foreground is used.
    temperature_, probability_temperature_ : float
        The temperatures of `fit`, which `combine` uses.

    See Also
    --------
    TailProbabilityFusion : Any number of parts of any scale.
    Fusion : The protocol.

    Notes
    -----
    With foreground score :math:`S_f` and background score :math:`S_b`, both higher for in-distribution images,

    .. math::
        S = \begin{cases}
            S_f + S_b / T & S_f \text{ from logits (Energy, ViM, ...)} \\
            S_f + \log(\mathrm{softplus}(S_b)) / T_p & S_f \text{ a probability (MSP, ODIN)}
        \end{cases}

    with `temperature` :math:`T` and `probability_temperature` :math:`T_p`; softplus is :math:`\log(1 + e^s)`. A
    "log_probability" is exponentiated first. The paper uses :math:`\log S_b`, which is undefined where
    :math:`S_b \le 0`. Softplus keeps the order of the scores. Its logarithm tends to :math:`\log S_b` for large scores
    and to :math:`S_b` for very negative ones. The paper has :math:`T_p = 1`.

    References
    ----------
    .. [1] C. Ding, G. Pang, "Improving Out-of-Distribution Detection with Disentangled Foreground and Background
       Features", ACM MM 2024, Eq. 7. arXiv:2303.08727.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.fusion import TemperatureFusion
    >>> parts = {"foreground": np.array([9.0, 4.0]), "background": np.array([5.0, -2.5])}
    >>> TemperatureFusion().fit(parts).combine(parts)
    array([11.,  3.])
    >>> parts = {"foreground": np.array([0.9, 0.5]), "background": np.array([50.0, -50.0])}
    >>> TemperatureFusion().fit(parts, outputs={"foreground": "probability"}).combine(parts)
    array([  4.812023..., -49.5     ...])
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "probability_temperature": [Interval(Real, 0, None, closed="neither")],
    }

    learns_from_scores: ClassVar[bool] = False

    part_names_: tuple[str, str]
    outputs_: dict[str, str]
    temperature_: float
    probability_temperature_: float

    def __init__(self, temperature: float = 2.5, probability_temperature: float = 1.0) -> None:
        self.temperature = temperature
        self.probability_temperature = probability_temperature

    def check_names(self, names: Iterable[str]) -> None:
        """Refuse names of parts that this fusion cannot join; a detector calls this before any training.

        Parameters
        ----------
        names : iterable of str
            Names of the parts.

        Raises
        ------
        ValueError
            If there is not exactly one name that starts with "foreground", one that starts with "background", and no
            other.
        """
        _foreground_and_background(names)

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, parts: Mapping[str, npt.ArrayLike], outputs: Mapping[str, str] | None = None) -> Self:
        """Store the names, output kinds and temperatures; nothing is learned from the scores.

        Parameters
        ----------
        parts : mapping of str to array-like of shape (n,)
            Scores by the name of the part; higher is more in-distribution. One name starts with "foreground", the
            other with "background".
        outputs : mapping of str to {"logit", "probability", "log_probability"}, default=None
            Output kind by the name of the part; "logit" for parts that are not in the mapping.

        Returns
        -------
        TemperatureFusion
            The fitted fusion.

        Raises
        ------
        ValueError
            If the parts are not one foreground and one background part, differ in length, are not 1-d or not
            finite, or if an output kind is unknown.
        """
        part_names = _foreground_and_background(parts)
        check_parts(parts, part_names)
        self.outputs_ = _check_outputs(outputs or {}, part_names)
        self.part_names_ = part_names
        # Kept, so that set_params after fit changes no score before the next fit.
        self.temperature_ = self.temperature
        self.probability_temperature_ = self.probability_temperature
        return self

    def combine(self, parts: Mapping[str, npt.ArrayLike]) -> npt.NDArray[np.float64]:
        """Join the parts.

        Parameters
        ----------
        parts : mapping of str to array-like of shape (n,)
            Scores under the names given to `fit`; higher is more in-distribution.

        Returns
        -------
        ndarray of shape (n,)
            Joint scores, float64; higher is more in-distribution.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If the names differ from those of `fit`, or if parts differ in length, are not 1-d or not finite.
        """
        check_is_fitted(self)
        foreground, background = check_parts(parts, self.part_names_)
        output = self.outputs_[self.part_names_[0]]
        # Eq. 7 has one branch for scores from logits and one for probabilities.
        if output == "logit":
            return foreground + background / self.temperature_
        # The paper adds the probability itself, for example of MSP, to the logarithm of the background score.
        if output == "log_probability":
            foreground = np.exp(foreground)
        return foreground + _log_softplus(background) / self.probability_temperature_


def _log_softplus(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    # Far below zero softplus underflows. There log(log(1 + e^s)) = s - e^s / 2 + O(e^2s), exact to rounding at -30.
    log_of_softplus = np.log(np.logaddexp(0.0, np.maximum(scores, -30.0)))
    return np.where(scores < -30.0, scores - np.exp(np.minimum(scores, -30.0)) / 2, log_of_softplus)


def _foreground_and_background(names: Iterable[str]) -> tuple[str, str]:
    # By the start of the names: several scorers of one kind get longer names.
    names = list(names)
    foreground = [name for name in names if name.startswith("foreground")]
    background = [name for name in names if name.startswith("background")]
    if len(names) != 2 or len(foreground) != 1 or len(background) != 1:
        raise ValueError(
            f"parts has the names {names}: Eq. 7 joins one part whose name starts with 'foreground' and one "
            "whose name starts with 'background'; leave the others out or use a fusion for any number of parts."
        )
    return foreground[0], background[0]


def _check_outputs(outputs: Mapping[str, str], part_names: tuple[str, str]) -> dict[str, str]:
    unknown = [name for name in outputs if name not in part_names]
    if unknown:
        raise ValueError(f"Expected outputs for the parts {list(part_names)}, got outputs for {unknown}.")
    for name, output in outputs.items():
        if output not in _OUTPUTS:
            raise ValueError(f"Expected outputs[{name!r}] to be one of {list(_OUTPUTS)}, got {output!r}.")
    return {name: outputs.get(name, "logit") for name in part_names}
