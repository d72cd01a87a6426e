"""Parts brought to in-distribution tail probabilities and joined by a rule for p-values."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri_exp
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from skdfb.fusion._parts import check_parts
from skdfb.utils import TailProbability

Scores = npt.NDArray[np.float64]


def _normal_quantiles(log_probabilities: Scores) -> Scores:
    # The quantile of 1 is infinite, which a rounded probability may be.
    return np.asarray(ndtri_exp(np.minimum(log_probabilities, -np.finfo(np.float64).tiny)), dtype=np.float64)


# What each rule adds up, a function of the logarithm of the tail probability.
_TERMS: dict[str, Callable[[Scores], Scores]] = {"fisher": lambda log_p: log_p, "stouffer": _normal_quantiles}


class TailProbabilityFusion(BaseEstimator):
    r"""Parts as in-distribution tail probabilities, joined by Fisher's or Stouffer's rule.

    .. math::
        S(x) = \log P\Bigl(\textstyle\sum_j g(p_j(S_j(X))) \le \sum_j g(p_j(S_j(x)))\Bigr), \qquad
        p_j(s) = P(S_j(X) \le s)

    where :math:`S_j` is part j, X an in-distribution image, and g the logarithm (Fisher) or the normal quantile
    (Stouffer). Both P are learned from held-out in-distribution images and go on smoothly beyond their scores. So no
    part's scale needs tuning, any number of parts is taken, and images far from all known ones keep their order.

    The joint score is itself the logarithm of a tail probability: about 5 % of in-distribution images score below
    log 0.05 = -3.0. Higher is more in-distribution; scores are at most 0.

    Parameters
    ----------
    rule : {"fisher", "stouffer"}, default="stouffer"
        What is added up. Fisher's rule is led by the part that finds an image strangest; in Stouffer's, parts that
        find it usual make up for one that does not.

    Attributes
    ----------
    part_names_ : tuple of str
        Names of the parts.
    tails_ : dict of str to TailProbability
        What :math:`p_j` was learned, by the name of the part.
    joint_tail_ : TailProbability
        What was learned of the sum.

    See Also
    --------
    TemperatureFusion : Eq. 7 of the paper, for two parts, with a fixed scale.
    skdfb.scorers.ScorerEnsemble : Several scorers of one representation, joined likewise.

    Notes
    -----
    For independent parts minus twice Fisher's sum would be chi-squared, and Stouffer's sum normal. Scores of one image
    are not independent: foreground and background come from one network. So no such law is assumed: the distribution
    of the sum is learned from the same held-out images, in which the parts are as correlated as they are. Correlation
    then does no harm to what the score says, only to how much it can find: of two equal parts the second adds nothing,
    yet its voice counts, which takes weight from the others.

    `learns_from_scores` is true: a detector fits the fusion on half of the held-out images and sets its threshold on
    the other half. Its promise therefore rests on conformal calibration alone, not on the tail probabilities.

    Below the tenth part with the lowest held-out scores (at least ten scores), tail probabilities fall exponentially
    in the score, above the highest they are bounded. So an image that one part finds far enough out is rejected,
    whatever the others say; by Stouffer's rule it takes more for that than by Fisher's.

    The default was chosen on the embedded images and on left-out classes of CIFAR-10's training set, where Stouffer's
    rule ranked a little better than Fisher's; how, is told under :ref:`measured`.

    References
    ----------
    Fisher, *Statistical Methods for Research Workers*, 4th edition, Oliver and Boyd, 1932, section 21.1. Stouffer et
    al., *The American Soldier*, volume 1, Princeton University Press, 1949.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.fusion import TailProbabilityFusion
    >>> rng = np.random.default_rng(0)
    >>> held_out = {"foreground": rng.normal(size=1000), "background": 1000 * rng.normal(size=1000)}
    >>> fusion = TailProbabilityFusion().fit(held_out)
    >>> new = {"foreground": np.array([0.0, -2.5, -2.5]), "background": np.array([0.0, 0.0, -2500.0])}
    >>> np.exp(fusion.combine(new)).round(3)  # as the share of in-distribution images that are stranger
    array([0.533, 0.047, 0.001])
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {"rule": [StrOptions(set(_TERMS))]}

    learns_from_scores: ClassVar[bool] = True

    part_names_: tuple[str, ...]
    tails_: dict[str, TailProbability]
    joint_tail_: TailProbability

    def __init__(self, rule: str = "stouffer") -> None:
        self.rule = rule

    def check_names(self, names: Iterable[str]) -> None:
        """Refuse an empty list of parts; any other names can be joined.

        Parameters
        ----------
        names : iterable of str
            Names of the parts.

        Raises
        ------
        ValueError
            If there are no names.
        """
        if not list(names):
            raise ValueError("parts is empty: expected at least one part, like {'foreground': scores}.")

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, parts: Mapping[str, npt.ArrayLike]) -> Self:
        """Learn the tail probabilities of the parts and of their sum.

        Parameters
        ----------
        parts : mapping of str to array-like of shape (n,)
            Scores of in-distribution images that trained nothing, by the name of the part; higher is more
            in-distribution.

        Returns
        -------
        TailProbabilityFusion
            The fitted fusion.

        Raises
        ------
        ValueError
            If there are no parts, or they differ in length, are empty, not 1-d or not finite.
        """
        self.check_names(parts)
        arrays = check_parts(parts, parts)
        self.tails_ = {name: TailProbability.fit(array) for name, array in zip(parts, arrays, strict=True)}
        self.part_names_ = tuple(parts)
        self.rule_ = self.rule  # set_params after fit must not mix two rules
        self.joint_tail_ = TailProbability.fit(self._sum(arrays))
        return self

    def combine(self, parts: Mapping[str, npt.ArrayLike]) -> Scores:
        """Joint scores of images.

        Parameters
        ----------
        parts : mapping of str to array-like of shape (n,)
            Scores under the names given to `fit`; higher is more in-distribution.

        Returns
        -------
        ndarray of shape (n,)
            Logarithms of tail probabilities, at most 0; higher is more in-distribution.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If names differ from those of `fit`, or parts differ in length, are not 1-d or not finite.
        """
        check_is_fitted(self)
        return self.joint_tail_.log_p(self._sum(check_parts(parts, self.part_names_)))

    def _sum(self, arrays: list[Scores]) -> Scores:
        term, tails = _TERMS[self.rule_], self.tails_.values()
        joint: Scores = np.sum([term(tail.log_p(array)) for tail, array in zip(tails, arrays, strict=True)], axis=0)
        return joint
