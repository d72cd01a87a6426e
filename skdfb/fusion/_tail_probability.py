"""Parts as in-distribution tail probabilities, joined by a rule for p-values."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from skdfb.fusion._parts import check_parts
from skdfb.utils import TAIL_RULES, TailProbability, joined_tails

Scores = npt.NDArray[np.float64]


class TailProbabilityFusion(BaseEstimator):
    r"""Parts as in-distribution tail probabilities, joined by Fisher's or Stouffer's rule.

    .. math::
        S(x) = \log P\Bigl(\textstyle\sum_j g(p_j(S_j(X))) \le \sum_j g(p_j(S_j(x)))\Bigr), \qquad
        p_j(s) = P(S_j(X) \le s)

    where :math:`S_j` is part j, X an in-distribution image, and g the logarithm (Fisher) or the normal quantile
    (Stouffer). Both P are learned from held-out in-distribution images and continue smoothly beyond their scores. So
    the scale of a part needs no tuning, the number of parts is free, and images far from all known ones keep their
    order.

    The joint score is itself the logarithm of a tail probability: about 5 % of in-distribution images score below
    log 0.05 = -3.0. Higher is more in-distribution; scores are at most 0.

    Parameters
    ----------
    rule : {"fisher", "stouffer"}, default="stouffer"
        The function g. With "fisher" the part with the lowest tail probability dominates. With "stouffer" high tail
        probabilities of some parts compensate for a low one of another.

    Attributes
    ----------
    part_names_ : tuple of str
        Names of the parts.
    tails_ : dict of str to TailProbability
        The learned :math:`p_j` by the name of the part.
    rule_ : str
        The rule of `fit`, which `combine` uses.
    joint_tail_ : TailProbability
        The learned tail probability of the sum.

    See Also
    --------
    TemperatureFusion : Eq. 7 of the paper, for two parts, with a fixed scale.
    skdfb.scorers.ScorerEnsemble : Several scorers of one representation, joined in the same way.

    Notes
    -----
    For independent parts, minus twice Fisher's sum would be chi-squared, and Stouffer's sum normal. The scores of one
    image are not independent: foreground and background come from one network. So no such law is assumed. The
    distribution of the sum is learned from the same held-out images, in which the parts have their true correlation.
    The joint score is then a correct tail probability for any correlation, but correlated parts detect less: of two
    equal parts the second adds no information, and it reduces the weight of the others.

    `learns_from_scores` is true: a detector fits the fusion on half of the held-out images and sets its threshold on
    the other half. So the guarantee of the threshold depends on conformal calibration alone, not on the tail
    probabilities.

    From the lowest tenth of the held-out scores (at least ten scores) downwards, tail probabilities fall exponentially
    in the score. Above the highest score they are bounded. So an image with a low enough score of one part is rejected,
    for any scores of the others. By Stouffer's rule this takes a lower score than by Fisher's.

    The default was chosen on the embedded images and on left-out classes of CIFAR-10's training set, where Stouffer's
    rule ranked a little better than Fisher's; see :ref:`measured`.

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
    >>> np.exp(fusion.combine(new)).round(3)  # share of in-distribution images with a lower score
    array([0.533, 0.047, 0.001])
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {"rule": [StrOptions(set(TAIL_RULES))]}

    learns_from_scores: ClassVar[bool] = True

    part_names_: tuple[str, ...]
    tails_: dict[str, TailProbability]
    rule_: str
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
            Scores of in-distribution images that were not used for training, by the name of the part; higher is more
            in-distribution.

        Returns
        -------
        TailProbabilityFusion
            The fitted fusion.

        Raises
        ------
        ValueError
            If there are no parts, or if they differ in length, are empty, not 1-d or not finite.
        """
        # Checked here too, since the fusion may be used without a detector.
        self.check_names(parts)
        arrays = check_parts(parts, parts)
        self.tails_ = {name: TailProbability.fit(array) for name, array in zip(parts, arrays, strict=True)}
        self.part_names_ = tuple(parts)
        self.rule_ = self.rule  # set_params after fit must not mix two rules
        # The law of the sum for independent parts does not hold, so it is learned as well.
        self.joint_tail_ = TailProbability.fit(self._sum(arrays))
        return self

    def combine(self, parts: Mapping[str, npt.ArrayLike]) -> Scores:
        """Join the parts.

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
            If the names differ from those of `fit`, or if parts differ in length, are not 1-d or not finite.
        """
        check_is_fitted(self)
        return self.joint_tail_.log_p(self._sum(check_parts(parts, self.part_names_)))

    def _sum(self, arrays: list[Scores]) -> Scores:
        # The tails are in the order of ``part_names_``, as the arrays are.
        return joined_tails(self.tails_.values(), arrays, self.rule_)
